use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::Reason;
use crate::config::RouteSettings;

/// What is announced now, for everybody who wants to know.
#[derive(Debug, Default)]
pub struct Board {
    report: Mutex<Option<Arc<Report>>>,
}

/// How announcing is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub routes: RouteSettings,
    /// Every VIP of a service.
    pub vips: BTreeMap<IpAddr, VipReport>,
    /// Why the kernel's routes can't be read, if so.
    pub trouble: Option<String>,
}

/// How one VIP is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipReport {
    /// Its route is in the kernel.
    pub announced: bool,
    /// Why it should not be, or can't be; `None`: it is announced, and should be.
    pub reason: Option<Reason>,
    /// What there is to say of the reason.
    pub detail: String,
    /// Why it is announced although a service asks for more healthy backends; `None`: it is not, or none does.
    pub kept: Option<String>,
    /// Since it is announced, or is not.
    pub since: Instant,
}

impl Board {
    /// `None` where nothing is to be announced.
    pub fn report(&self) -> Option<Arc<Report>> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells news in the log, too.
    pub(super) fn set(&self, report: Option<Report>) {
        let mut known = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(report) = &report {
            tell(known.as_deref(), report);
        }
        *known = report.map(Arc::new);
    }

    #[cfg(test)]
    pub(crate) fn of(report: Report) -> Self {
        Self { report: Mutex::new(Some(Arc::new(report))) }
    }
}

fn tell(before: Option<&Report>, after: &Report) {
    for (vip, is) in &after.vips {
        let was = before.and_then(|report| report.vips.get(vip));
        let was_kept = was.is_some_and(|was| was.kept.is_some());
        if let Some(kept) = is.kept.as_ref().filter(|_| !was_kept) {
            log::warn!("{vip} lacks backends: {kept}");
        }
        if was.map(|was| (was.announced, was.reason)) == Some((is.announced, is.reason)) {
            continue;
        }
        let what = if is.announced { "is announced, and not as it should be" } else { "is not announced" };
        match is.reason {
            None => log::info!("{vip} is announced"),
            Some(Reason::Administrator | Reason::Starting) if !is.announced => {
                log::info!("{vip} {what}: {}", is.detail);
            }
            Some(_) => log::error!("{vip} {what}: {}", is.detail),
        }
    }
    for vip in
        before.iter().flat_map(|report| report.vips.keys()).filter(|vip| !after.vips.contains_key(*vip))
    {
        log::info!("{vip} is no VIP any more, and not announced");
    }
    if let Some(trouble) =
        after.trouble.as_ref().filter(|_| before.is_none_or(|before| before.trouble != after.trouble))
    {
        log::error!("announcing VIPs: {trouble}; trying again");
    }
}
