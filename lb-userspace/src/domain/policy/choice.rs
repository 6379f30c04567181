//! Who gets new flows, and in which state that leaves the service: the choice order of docs/failures.md.

use std::collections::BTreeMap;

use crate::domain::{Admin, Backend, Health, Name, OnAllDown, OnPanic, Service};

/// Who gets new flows. It depends on no time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// None: packets of new flows are dropped and counted, or rejected.
    pub weights: BTreeMap<Name, u16>,
    pub state: ServiceState,
    /// Healthy backends are too few, or there are none. To be handed to the next choice, because it ends later than it begins.
    pub panics: bool,
    /// Nobody gets traffic, and senders are told.
    pub rejects: bool,
}

/// A service at a glance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceState {
    /// Every active backend is healthy, or of another role than the service needs and some other does.
    Healthy,
    /// Some are not; the rest carry the traffic.
    Degraded,
    /// Too few active backends are healthy, and those that are not get traffic all the same (`fail-open`).
    Panic,
    /// No backend gets traffic.
    #[default]
    Failing,
}

impl ServiceState {
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Degraded, Self::Panic, Self::Failing];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Panic => "panic",
            Self::Failing => "failing",
        }
    }
}

/// Chooses from the active backends of `service`. `panicked`: what [`Choice::panics`] was before.
pub fn choose(service: &Service, panicked: bool, health: impl Fn(&Name) -> Health) -> Choice {
    let active: Active<'_> = service
        .backends
        .values()
        .filter(|backend| backend.admin == Admin::Active && backend.weight > 0)
        .map(|backend| (backend, health(&backend.name)))
        .collect();
    let count = |backup, wanted| {
        active.iter().filter(|(backend, health)| (backend.backup, *health) == (backup, wanted)).count()
    };
    // A backend without a verdict never got traffic, one of another role must not get any: they count for nothing.
    let healthy = count(false, Health::Healthy);
    let judged = healthy + count(false, Health::Unhealthy);
    let with_backups = healthy + count(true, Health::Healthy);
    // Of a role there may be one, and whoever is dead may think that it still has it.
    let panics =
        !service.health.has_role() && service.panic.begins_or_goes_on(with_backups, judged, panicked);

    let is_healthy = |health| health == Health::Healthy;
    let is_judged = |health| matches!(health, Health::Healthy | Health::Unhealthy);
    let (weights, state) = if with_backups == 0 {
        match service.on_all_down {
            OnAllDown::FailOpen => (weights(&active, |_, health| is_judged(health)), ServiceState::Panic),
            OnAllDown::Drop | OnAllDown::Reject => (BTreeMap::new(), ServiceState::Failing),
        }
    } else if panics && service.panic.action == OnPanic::FailOpen {
        (weights(&active, |_, health| is_judged(health)), ServiceState::Panic)
    } else if healthy > 0 && service.panic.is_reached(healthy, judged) {
        // Those of another role wait for their turn: nothing is wrong with them.
        let all = active.iter().all(|(_, health)| matches!(health, Health::Healthy | Health::Ineligible));
        let state = if all { ServiceState::Healthy } else { ServiceState::Degraded };
        (weights(&active, |backend, health| !backend.backup && is_healthy(health)), state)
    } else {
        (weights(&active, |_, health| is_healthy(health)), ServiceState::Degraded)
    };
    let state = if weights.is_empty() { ServiceState::Failing } else { state };
    // One that waits for its first check may be there in a moment, and a client that is told nothing tries again.
    let down = active.iter().any(|(_, health)| matches!(health, Health::Unhealthy | Health::Ineligible));
    let rejects = weights.is_empty() && down && service.on_all_down == OnAllDown::Reject;
    Choice { weights, state, panics, rejects }
}

type Active<'a> = Vec<(&'a Backend, Health)>;

fn weights(active: &Active<'_>, is_chosen: impl Fn(&Backend, Health) -> bool) -> BTreeMap<Name, u16> {
    let chosen = active.iter().filter(|(backend, health)| is_chosen(backend, *health));
    chosen.map(|(backend, _)| (backend.name.clone(), backend.weight)).collect()
}

#[cfg(test)]
mod tests;
