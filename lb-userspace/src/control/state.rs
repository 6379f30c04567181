//! The state as a value: a command makes a new one or is refused, and nothing else happens.

mod fit;
mod preview;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use fit::Past;

use super::{
    LeftOut,
    command::{Change, Command, HealthReport, NextHopUpdate, Rejected},
    describe::{describe, describe_nat, describe_removed, forgotten},
    edit::Edit,
    found,
    merge::{Merged, merge},
};
use crate::{
    dataplane::{
        desired::{Desired, DesiredBackend, DesiredService, Way},
        encode::{self, StableId},
        reconcile::Recorded,
    },
    domain::{
        Admin, Backend, Forwarding, Health, Kept, Name, NatPool, Probe, Service,
        policy::{self, Standing},
    },
};

/// Services, what was observed of their backends, and the ways to them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// As the file declares them.
    declared: BTreeMap<Name, Service>,
    nat: NatPool,
    /// What the API made and changed.
    kept: Kept,
    /// Both together, and what became of them.
    services: BTreeMap<Name, Entry>,
    /// Backends that were found and can't be, by service.
    left_out: BTreeMap<Name, Vec<LeftOut>>,
    ways: HashMap<IpAddr, NextHopUpdate>,
    /// Whether the command that made this state may replace live services.
    disruptive: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    spec: Arc<Service>,
    observed: BTreeMap<Name, Observed>,
    /// Healthy backends are too few, as policy decided last.
    panics: bool,
    /// Backends whose existing flows end with the command that made this state.
    cut: Vec<StableId>,
}

/// What is known of a backend beyond its declaration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub standing: Standing,
    /// The latest verdict of probes in words.
    pub detail: String,
    in_table: bool,
}

/// What a previous controller recorded.
pub(super) type RecordedBackends = HashMap<StableId, Recorded>;

impl State {
    /// Nothing declared yet; `kept` joins what will be.
    pub fn new(kept: Kept) -> Self {
        Self { kept, ..Self::default() }
    }

    /// The state after `command` at `now`, in boot-time seconds rounded up, and what differs. `recorded` is where a backend new to
    /// this state starts.
    pub fn apply(
        &self,
        command: &Command,
        recorded: &RecordedBackends,
        now: u64,
    ) -> Result<(Self, Vec<Change>), Rejected> {
        let mut next = self.clone();
        next.services.values_mut().for_each(|entry| entry.begin(now));
        next.disruptive = false;
        let changes = match command {
            Command::Declare { services, nat, ways, disruptive } => {
                next.learn(ways);
                next.disruptive = *disruptive;
                next.nat.clone_from(nat);
                next.declared =
                    services.iter().map(|service| (service.name.clone(), service.clone())).collect();
                let mut changes = next.rebuild(self, recorded, true)?;
                changes.extend(describe_nat(&self.nat, nat));
                changes
            }
            Command::Edit { edit, ways } => {
                next.learn(ways);
                if let Edit::AddService(service) = edit {
                    self.check_vip(service)?;
                }
                next.kept = edit.apply(&self.declared, &self.kept, &self.left_out)?;
                let changes = next.rebuild(self, recorded, false)?;
                if let Some((service, backend)) = edit.cuts() {
                    next.cut(self, service, backend);
                }
                changes
            }
            Command::Found { answers, ways } => {
                next.learn(ways);
                found::learn(&self.declared, &mut next.kept, answers);
                next.rebuild(self, recorded, false)?
            }
            Command::Health(reports) => {
                reports.iter().filter_map(|report| next.observe(report, now)).collect()
            }
            Command::NextHops(updates) => {
                let mut changes: Vec<_> = updates.iter().filter_map(|update| next.lead(update)).collect();
                changes.extend(next.judge_found(self));
                changes
            }
            Command::OwnMacs(_)
            | Command::Interfaces(_)
            | Command::HashKey(_)
            | Command::Peers { .. }
            | Command::ConfigRefused(_) => Vec::new(),
        };
        next.services.values_mut().for_each(|entry| entry.settle(now));
        Ok((next, changes))
    }

    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Backends that were found and can't be, each with its service.
    pub fn left_out(&self) -> impl Iterator<Item = (&Name, &LeftOut)> {
        self.left_out.iter().flat_map(|(service, all)| all.iter().map(move |out| (service, out)))
    }

    pub fn left_out_of(&self, service: &Name) -> &[LeftOut] {
        self.left_out.get(service).map_or(&[], Vec::as_slice)
    }

    pub fn nat(&self) -> &NatPool {
        &self.nat
    }

    /// Boot-time seconds at which the maps should say something else although nothing but time has changed.
    pub fn next_change(&self, now: u64) -> Option<u64> {
        self.services.values().filter_map(|entry| entry.decide(now).next_change).min()
    }

    pub fn has(&self, service: &Name) -> bool {
        self.services.contains_key(service)
    }

    /// With everything that was added and set.
    pub fn service(&self, name: &Name) -> Option<&Service> {
        self.services.get(name).map(|entry| &*entry.spec)
    }

    /// As [`Self::service`], all.
    pub fn specs(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(|entry| &*entry.spec)
    }

    /// Services whose packets of new flows are dropped.
    pub fn without_backends(&self) -> BTreeSet<Name> {
        let decided = self.services.values().map(|entry| (entry, entry.choose().weights));
        decided.filter(|(_, weights)| weights.is_empty()).map(|(entry, _)| entry.spec.name.clone()).collect()
    }

    /// Services in the order of their names, each with what policy decides for it.
    pub fn services(
        &self,
        now: u64,
    ) -> impl Iterator<Item = (&Arc<Service>, &BTreeMap<Name, Observed>, policy::Decision)> {
        self.services.values().map(move |entry| (&entry.spec, &entry.observed, entry.decide(now)))
    }

    /// What the maps should say at `now`, in boot-time seconds.
    pub fn desired(&self, now: u64) -> Desired {
        let service = |entry: &Entry| {
            let decision = entry.decide(now);
            let backend = |backend: &Backend| {
                let verdict = decision.backends.get(&backend.name).copied().unwrap_or_default();
                let Standing { health, left_table_at, drain_deadline, started_at } =
                    entry.standing(&backend.name);
                // What is over means nothing to whoever reads the maps.
                let started_at = if is_started(&entry.spec, started_at, now) { 0 } else { started_at };
                DesiredBackend {
                    id: encode::backend_id(&entry.spec.name, &backend.name, backend.address),
                    name: backend.name.clone(),
                    address: backend.address,
                    admin: backend.admin,
                    health,
                    weight: verdict.weight,
                    accepts_existing: verdict.accepts_existing,
                    left_table_at,
                    drain_deadline,
                    started_at,
                    way: self.way(&entry.spec, backend.address.ip()),
                }
            };
            DesiredService {
                id: encode::service_id(&entry.spec.name),
                spec: Arc::clone(&entry.spec),
                backends: entry.spec.backends.values().map(backend).collect(),
                panics: decision.panics,
                rejects: decision.rejects,
                cut: entry.cut.clone(),
            }
        };
        let ways = self.ways.iter().map(|(address, update)| {
            let way = update.hop.clone().map_or(Way::Unresolved, Way::Resolved);
            (*address, way)
        });
        Desired {
            services: self.services.values().map(service).collect(),
            nat: self.nat.clone(),
            ways: ways.collect(),
            disruptive: self.disruptive,
        }
    }

    /// Settings of `backend` changed over what it was declared or made with.
    pub fn overrides(&self, service: &Name, backend: &Name) -> Vec<&'static str> {
        self.kept.over(service, backend).names()
    }

    /// Only what is news: the neighbour task may have told a later state of the others.
    fn learn(&mut self, ways: &[NextHopUpdate]) {
        for way in ways {
            if !self.ways.contains_key(&way.backend) {
                self.lead(way);
            }
        }
    }

    /// Makes the services from what is declared and what is kept. `before`: what the change is to be judged against.
    fn rebuild(
        &mut self,
        before: &Self,
        recorded: &RecordedBackends,
        by_file: bool,
    ) -> Result<Vec<Change>, Rejected> {
        let gateway = |service: &Service, address| self.gateway(service, address);
        let Merged { services, kept, left_out } = merge(&self.declared, &self.kept, by_file, gateway)?;
        self.check_fit(&services, &Past { state: before, recorded }, by_file)?;
        self.left_out = left_out;
        let kept_before = std::mem::replace(&mut self.kept, kept);
        let mut changes = Vec::new();
        let mut old = std::mem::take(&mut self.services);
        for (name, service) in services {
            let known = old.remove(&name);
            describe(known.as_ref().map(|entry| &*entry.spec), &service, &mut changes);
            self.services.insert(name, Entry::new(service, known.as_ref(), recorded));
        }
        old.values().for_each(|entry| describe_removed(&entry.spec, &mut changes));
        changes.extend(forgotten(&kept_before, &self.kept));
        Ok(changes)
    }

    /// Forgets the ways that no backend needs: neither those of this state nor those at `leaving`.
    pub fn forget_ways(&mut self, leaving: &HashSet<IpAddr>) {
        let specs = self.services.values().map(|entry| &entry.spec);
        let used: HashSet<IpAddr> =
            specs.flat_map(|spec| spec.backends.values().map(|backend| backend.address.ip())).collect();
        // What a way says against a backend that was found is to be known the next time, too.
        let out: HashSet<IpAddr> = self.left_out().map(|(_, out)| out.address.ip()).collect();
        self.ways.retain(|address, _| {
            used.contains(address) || leaving.contains(address) || out.contains(address)
        });
    }

    /// The existing flows of a backend that `before` had end.
    fn cut(&mut self, before: &Self, service: &Name, backend: &Name) {
        let gone = before.services.get(service).and_then(|entry| entry.spec.backends.get(backend));
        if let (Some(entry), Some(gone)) = (self.services.get_mut(service), gone) {
            entry.cut.push(encode::backend_id(service, backend, gone.address));
        }
    }

    fn observe(&mut self, report: &HealthReport, now: u64) -> Option<Change> {
        let entry = self.services.get_mut(&report.service)?;
        let backend = entry.spec.backends.get(&report.backend)?;
        if backend.address != report.address {
            return None;
        }
        let observed = entry.observed.get_mut(&report.backend)?;
        if (observed.standing.health, &observed.detail) == (report.health, &report.detail) {
            return None;
        }
        let change = Change {
            action: "change",
            object: format!("backend {}/{}", report.service, report.backend),
            detail: format!(
                "health {} -> {} ({})",
                observed.standing.health.as_str(),
                report.health.as_str(),
                report.detail
            ),
        };
        let fails = observed.standing.health == Health::Healthy && report.health != Health::Healthy;
        if fails && !observed.in_table {
            // Drained or of weight 0 it may still have flows: their grace begins now. One never healthy has none.
            observed.standing.left_table_at = now.max(1);
        }
        observed.standing.health = report.health;
        observed.detail.clone_from(&report.detail);
        Some(change)
    }

    fn lead(&mut self, update: &NextHopUpdate) -> Option<Change> {
        if self.ways.get(&update.backend) == Some(update) {
            return None;
        }
        let detail = match &update.hop {
            Some(hop) => format!("next hop {} on interface {}", mac(hop.mac), hop.ifindex),
            None => "next hop unresolved".to_owned(),
        };
        self.ways.insert(update.backend, update.clone());
        Some(Change { action: "change", object: format!("address {}", update.backend), detail })
    }

    fn way(&self, service: &Service, address: IpAddr) -> Way {
        match self.ways.get(&address) {
            None => Way::Unknown,
            Some(update) => match &update.hop {
                Some(hop) if service.forwarding != Forwarding::L2Dsr || update.gateway.is_none() => {
                    Way::Resolved(hop.clone())
                }
                _ => Way::Unresolved,
            },
        }
    }
}

impl Entry {
    fn new(service: Service, old: Option<&Self>, recorded: &RecordedBackends) -> Self {
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

    fn decide(&self, now: u64) -> policy::Decision {
        policy::decide(&self.spec, self.panics, now, |name| self.standing(name))
    }

    fn choose(&self) -> policy::Choice {
        policy::choose(&self.spec, self.panics, |name| self.standing(name).health)
    }

    fn standing(&self, backend: &Name) -> Standing {
        self.observed.get(backend).map(|observed| observed.standing).unwrap_or_default()
    }

    /// Before a command: forgets what was the last one's, and what is over by the settings there were.
    fn begin(&mut self, now: u64) {
        self.cut.clear();
        for observed in self.observed.values_mut() {
            let started_at = &mut observed.standing.started_at;
            if is_started(&self.spec, *started_at, now) {
                *started_at = 0;
            }
        }
    }

    /// Notes who came into the table, who left it, whose drain began or is over, and whether the healthy are too few.
    fn settle(&mut self, now: u64) {
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
fn is_started(service: &Service, started_at: u64, now: u64) -> bool {
    now >= started_at.saturating_add(service.slow_start.as_secs())
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
