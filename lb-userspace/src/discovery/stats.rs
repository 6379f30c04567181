use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    control::FoundBackends,
    domain::{Name, Source},
};

/// How the sources of the services are doing. One of each, so that labels stay bounded.
#[derive(Debug, Default)]
pub struct DiscoveryStats {
    sources: Mutex<BTreeMap<(Name, Source), SourceStatus>>,
}

/// How one is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// When the last good answer came; before the first, when it was asked for.
    since: Instant,
    /// Whether there was a good answer since the daemon started.
    pub answered: bool,
    /// Questions since then that had none.
    pub failures: u64,
    /// What is wrong with the latest answer, or with what it holds.
    pub trouble: Option<String>,
    /// Why what was found does not run.
    pub refused: Option<String>,
}

impl SourceStatus {
    /// Time since the last good answer; before the first, since the first question.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// What there is to worry about.
    pub fn alarm(&self) -> Option<&str> {
        self.refused.as_deref().or(self.trouble.as_deref())
    }
}

impl DiscoveryStats {
    /// How a source of a service is doing; `None` if it was never looked at.
    pub fn of(&self, service: &Name, source: &Source) -> Option<SourceStatus> {
        self.lock().get(&(service.clone(), source.clone())).cloned()
    }

    /// Makes the sources these, and no others. Returns those that are new.
    pub(crate) fn follow(&self, sources: impl Iterator<Item = (Name, Source)>) -> HashSet<(Name, Source)> {
        let mut known = self.lock();
        let mut before = std::mem::take(&mut *known);
        let new = || SourceStatus {
            since: Instant::now(),
            answered: false,
            failures: 0,
            trouble: None,
            refused: None,
        };
        let mut come = HashSet::new();
        known.extend(sources.map(|key| {
            let status = before.remove(&key).unwrap_or_else(|| {
                come.insert(key.clone());
                new()
            });
            (key, status)
        }));
        come
    }

    /// A good answer of that age, with what is wrong with parts of it.
    pub(super) fn good(&self, service: &Name, source: &Source, trouble: Option<String>, age: Duration) {
        self.with(service, source, |status| {
            let now = Instant::now();
            status.since = now.checked_sub(age).unwrap_or(now);
            status.answered = true;
            if status.trouble != trouble {
                match &trouble {
                    Some(trouble) => log::warn!("{source} of service {service}: {trouble}"),
                    None => log::info!("{source} of service {service} answers again"),
                }
            }
            status.trouble = trouble;
        });
    }

    /// The file is as it was read; nothing else is known of it.
    pub(super) fn still_good(&self, service: &Name, source: &Source) {
        self.with(service, source, |status| {
            if status.trouble.is_none() {
                status.since = Instant::now();
            }
        });
    }

    pub(crate) fn failed(&self, service: &Name, source: &Source, trouble: String) {
        self.with(service, source, |status| {
            status.failures += 1;
            if status.trouble.as_ref() != Some(&trouble) {
                log::warn!("{source} of service {service}: {trouble}; what was found before stays");
            }
            status.trouble = Some(trouble);
        });
    }

    /// What the control task said to what was found.
    pub(super) fn submitted(&self, service: &Name, source: &Source, refused: Option<String>) {
        self.with(service, source, |status| {
            if let Some(why) = refused.as_ref().filter(|_| status.refused != refused) {
                log::error!("what {source} has for service {service} is refused: {why}");
            }
            status.refused = refused;
        });
    }

    /// Of the others nothing is waiting to be accepted.
    pub(super) fn nothing_refused_but(&self, waiting: &[FoundBackends]) {
        for ((service, source), status) in
            self.lock().iter_mut().filter(|(_, status)| status.refused.is_some())
        {
            if !waiting.iter().any(|of| (&of.service, &of.source) == (service, source)) {
                status.refused = None;
            }
        }
    }

    fn with(&self, service: &Name, source: &Source, change: impl FnOnce(&mut SourceStatus)) {
        if let Some(status) = self.lock().get_mut(&(service.clone(), source.clone())) {
            change(status);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Name, Source), SourceStatus>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
