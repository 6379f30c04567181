//! A service with what was observed of its backends.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::RecordedBackends;
use crate::{
    control::clock::begun_seconds,
    dataplane::{
        encode::{self, StableId},
        reconcile::Recorded,
        scan::Moment,
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
    first: FirstTable,
    /// Each of its sources has said whom it has.
    pub(super) sources_known: bool,
    /// Backends whose existing flows end with the command that made this state.
    pub(super) cut: Vec<StableId>,
}

/// What became of the first table that has anybody in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstTable {
    /// There was none yet. Boot time since which there could be one that waits for verdicts.
    ToCome {
        since: Option<Duration>,
    },
    Over,
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
        let observed: BTreeMap<Name, Observed> = service
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
        let had_table = |observed: &Observed| observed.in_table || observed.standing.left_table_at > 0;
        let first = match old {
            Some(old) => old.first,
            None if observed.values().any(had_table) => FirstTable::Over,
            None => FirstTable::ToCome { since: None },
        };
        Self { observed, panics, first, sources_known: true, cut: Vec::new(), spec }
    }

    pub(super) fn decide(&self, now: u64) -> policy::Decision {
        policy::decide(&self.spec, self.choose(), now, |name| self.standing(name))
    }

    pub(super) fn choose(&self) -> policy::Choice {
        let choice = self.choose_from_verdicts();
        match self.is_held(&choice) {
            // Whoever is told nothing tries again.
            true => policy::Choice { panics: choice.panics, ..policy::Choice::default() },
            false => choice,
        }
    }

    /// Without waiting for anybody.
    fn choose_from_verdicts(&self) -> policy::Choice {
        policy::choose(&self.spec, self.panics, |name| self.standing(name).health)
    }

    /// Whether this would be the first table, and waits to be whole.
    fn is_held(&self, choice: &policy::Choice) -> bool {
        let is_open = || {
            !self.sources_known || policy::is_open(&self.spec, self.panics, |name| self.standing(name).health)
        };
        self.first != FirstTable::Over && !choice.weights.is_empty() && is_open()
    }

    /// Whether its first table is still to come, and something is missing for it that is waited for.
    pub(super) fn gathers(&self) -> bool {
        let to_come = self.first != FirstTable::Over;
        to_come && (!self.sources_known || self.is_held(&self.choose_from_verdicts()))
    }

    /// Boot time at which its first table waits no longer.
    pub(super) fn gathered_at(&self) -> Option<Duration> {
        match self.first {
            FirstTable::ToCome { since: Some(since) } => Some(since + policy::patience(&self.spec)),
            _ => None,
        }
    }

    /// As if there had been a table.
    pub(super) fn wait_for_nobody(&mut self) {
        self.first = FirstTable::Over;
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

    /// Whether there is a first table now, and since when there could be.
    fn gather(&mut self, now: Duration) {
        let FirstTable::ToCome { since } = self.first else { return };
        let choice = self.choose_from_verdicts();
        let since = (!choice.weights.is_empty()).then(|| since.unwrap_or(now));
        self.first = FirstTable::ToCome { since };
        let is_over = self.gathered_at().is_some_and(|over| over <= now);
        if since.is_some() && (is_over || !self.is_held(&choice)) {
            self.first = FirstTable::Over;
        }
    }

    /// Notes who came into the table, who left it, whose drain began or is over, and whether the healthy are too few.
    pub(super) fn settle(&mut self, moment: Moment) {
        self.gather(moment.boot);
        let now = begun_seconds(moment);
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
