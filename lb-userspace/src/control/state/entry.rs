//! A service with what was observed of its backends.

use std::{collections::BTreeMap, sync::Arc};

use super::RecordedBackends;
use crate::{
    dataplane::{
        encode::{self, StableId},
        reconcile::Recorded,
    },
    domain::{
        Admin, Backend, Health, Name, Probe, Service,
        policy::{self, Standing},
    },
};

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) spec: Arc<Service>,
    pub(super) observed: BTreeMap<Name, Observed>,
    /// Healthy backends are too few, as policy decided last.
    panics: bool,
    /// Backends whose existing flows end with the command that made this state.
    pub(super) cut: Vec<StableId>,
}

/// What is known of a backend beyond its declaration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub standing: Standing,
    /// The latest verdict of probes in words.
    pub detail: String,
    pub(super) in_table: bool,
}

impl Entry {
    pub(super) fn new(service: Service, old: Option<&Self>, recorded: &RecordedBackends) -> Self {
        let observed = service
            .backends
            .values()
            .map(|backend| (backend.name.clone(), first_observed(&service, backend, old, recorded)))
            .collect();
        let spec = match old {
            Some(old) if *old.spec == service => Arc::clone(&old.spec),
            _ => Arc::new(service),
        };
        let recorded = |backend: &Backend| {
            let id = encode::backend_id(&spec.name, &backend.name, backend.address);
            recorded.get(&id).is_some_and(|recorded| recorded.panics)
        };
        let panics = old.map_or_else(|| spec.backends.values().any(recorded), |old| old.panics);
        Self { observed, panics, cut: Vec::new(), spec }
    }

    pub(super) fn decide(&self, now: u64) -> policy::Decision {
        policy::decide(&self.spec, self.panics, now, |name| self.standing(name))
    }

    pub(super) fn choose(&self) -> policy::Choice {
        policy::choose(&self.spec, self.panics, |name| self.standing(name).health)
    }

    pub(super) fn standing(&self, backend: &Name) -> Standing {
        self.observed.get(backend).map(|observed| observed.standing).unwrap_or_default()
    }

    /// Before a command: forgets what was the last one's, and what is over by the settings there were.
    pub(super) fn begin(&mut self, now: u64) {
        self.cut.clear();
        for observed in self.observed.values_mut() {
            let started_at = &mut observed.standing.started_at;
            if is_started(&self.spec, *started_at, now) {
                *started_at = 0;
            }
        }
    }

    /// Notes who came into the table, who left it, whose drain began or is over, and whether the healthy are too few.
    pub(super) fn settle(&mut self, now: u64) {
        let policy::Choice { weights, state, panics, .. } = self.choose();
        self.panics = panics;
        for backend in self.spec.backends.values() {
            let Some(observed) = self.observed.get_mut(&backend.name) else { continue };
            let in_table = weights.contains_key(&backend.name);
            // Whoever comes in because others fail is needed at once.
            let starts = !self.spec.slow_start.is_zero()
                && observed.standing.health == Health::Healthy
                && state != policy::ServiceState::Panic
                && !backend.backup;
            if in_table != observed.in_table {
                observed.standing.started_at = if in_table && starts { now.max(1) } else { 0 };
            }
            if in_table {
                observed.standing.left_table_at = 0;
            } else if observed.in_table {
                observed.standing.left_table_at = now.max(1);
            }
            observed.in_table = in_table;
            let deadline = &mut observed.standing.drain_deadline;
            match backend.admin {
                // A second drain does not extend the first.
                Admin::Draining if *deadline != 0 => {}
                Admin::Draining => {
                    *deadline = match self.spec.drain_timeout.as_secs() {
                        // A moment that has passed for sure.
                        0 => 1,
                        timeout => now + timeout,
                    };
                }
                Admin::Active | Admin::Disabled => *deadline = 0,
            }
        }
    }
}

/// Where a backend starts: where it was if it is the same backend, else where a previous controller left it.
fn first_observed(
    service: &Service,
    backend: &Backend,
    old: Option<&Entry>,
    recorded: &RecordedBackends,
) -> Observed {
    let same = |entry: &&Entry| {
        entry.spec.backends.get(&backend.name).is_some_and(|known| known.address == backend.address)
    };
    let known = old.filter(same);
    let before = known.and_then(|entry| entry.observed.get(&backend.name)).cloned();
    let checked = service.health.probe != Probe::None;
    let was_checked = known.is_none_or(|entry| entry.spec.health.probe != Probe::None);
    let mut observed = match before {
        Some(before) if checked && was_checked => return before,
        Some(before) => before,
        None => from_record(service, backend, recorded),
    };
    if !checked {
        observed.standing.health = Health::Healthy;
        observed.detail = "not checked".to_owned();
    } else if !was_checked {
        // "Healthy" was an assumption; it holds until a check says otherwise.
        observed.detail = "as before".to_owned();
    }
    observed
}

fn from_record(service: &Service, backend: &Backend, recorded: &RecordedBackends) -> Observed {
    let id = encode::backend_id(&service.name, &backend.name, backend.address);
    let recorded = recorded.get(&id).copied().unwrap_or_default();
    let Recorded { health, left_table_at, drain_deadline, started_at, in_table, .. } = recorded;
    let detail = if health == Health::Unknown { "not checked yet" } else { "as before" };
    let standing = Standing { health, left_table_at, drain_deadline, started_at };
    Observed { standing, detail: detail.to_owned(), in_table }
}

/// Whether a slow start that began at `started_at` is over.
pub(super) fn is_started(service: &Service, started_at: u64, now: u64) -> bool {
    now >= started_at.saturating_add(service.slow_start.as_secs())
}
