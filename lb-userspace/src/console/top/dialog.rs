//! Asking whether a change is meant.

use std::time::{Duration, Instant};

use crate::{
    api::v1,
    domain::{Admin, Name},
};

/// A change that waits for a yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialog {
    pub(super) service: Name,
    pub(super) backend: Name,
    pub(super) admin: Admin,
    /// What it means.
    pub(super) lines: Vec<String>,
    /// Whether it would leave a service without anybody to serve it.
    pub(super) grave: bool,
    /// When a key was pressed last.
    pressed: Instant,
}

impl Dialog {
    /// `None` where there is nothing to ask, with what to say instead.
    pub(super) fn about(
        service: &v1::Service,
        backend: &v1::Backend,
        admin: Admin,
        now: Instant,
    ) -> Result<Self, String> {
        let name = format!("{}/{}", service.name, backend.name);
        if backend.admin == admin.as_str() {
            return Err(format!("backend {name} is {} already", backend.admin));
        }
        let (Ok(of), Ok(own)) = (service.name.parse(), backend.name.parse()) else {
            return Err(format!("backend {name} has a name that can't be"));
        };
        let mut lines = Vec::new();
        let mut grave = false;
        match admin {
            Admin::Draining => {
                let timeout = service.settings.drain_timeout.as_deref().unwrap_or("a while");
                let flows = backend.flows.map(|flows| format!("{flows} ")).unwrap_or_default();
                lines.push(format!(
                    "It takes {:.1} % of new flows now and will take none.",
                    backend.share * 100.0
                ));
                lines.push(format!("Existing {flows}flows may go on for {timeout}."));
                let others =
                    service.backends.iter().filter(|one| one.name != backend.name && one.share > 0.0);
                grave = backend.share > 0.0 && others.count() == 0;
                if grave {
                    lines.push("NOBODY ELSE TAKES NEW FLOWS OF THIS SERVICE.".to_owned());
                }
            }
            Admin::Active => {
                lines.push(format!("It is {} and takes new flows again.", backend.admin));
                if backend.health != "healthy" {
                    lines.push(format!("As it is {}, it may have to pass a check first.", backend.health));
                }
            }
            Admin::Disabled => lines.push("Its existing flows end at once.".to_owned()),
        }
        Ok(Self { service: of, backend: own, admin, lines, grave, pressed: now })
    }

    /// Notes that a key is pressed, and whether none was for a moment before.
    pub(super) fn paused(&mut self, now: Instant) -> bool {
        let before = std::mem::replace(&mut self.pressed, now);
        now.saturating_duration_since(before) >= PAUSE
    }

    /// `Drain backend web/web-1?`
    pub(super) fn question(&self) -> String {
        let verb = match self.admin {
            Admin::Draining => "Drain",
            Admin::Active => "Enable",
            Admin::Disabled => "Disable",
        };
        format!("{verb} backend {}/{}?", self.service, self.backend)
    }
}

/// Nobody reads a question and answers it in less; what is pasted comes without pauses.
const PAUSE: Duration = Duration::from_millis(200);
