//! The state as a value: a command makes a new one or is refused, and nothing else happens.

mod desired;
mod entry;
mod fit;
mod preview;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use self::{
    entry::{Entry, Observed},
    fit::Past,
};
use super::{
    LeftOut,
    clock::begun_seconds,
    command::{Change, Command, HealthReport, NextHopUpdate, Rejected},
    describe::{describe, describe_announced, describe_nat, describe_removed, forgotten},
    edit::Edit,
    found,
    merge::{Merged, merge},
};
use crate::{
    dataplane::{
        encode::{self, StableId},
        reconcile::Recorded,
        scan::Moment,
    },
    digits::mac,
    domain::{Health, Kept, Name, NatPool, Service, policy},
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

/// What a previous controller recorded.
pub(super) type RecordedBackends = HashMap<StableId, Recorded>;

impl State {
    /// Nothing declared yet; `kept` joins what will be.
    pub fn new(kept: Kept) -> Self {
        Self { kept, ..Self::default() }
    }

    /// The state after `command` at `now`, and what differs. `recorded` is where a backend new to this state starts.
    pub fn apply(
        &self,
        command: &Command,
        recorded: &RecordedBackends,
        now: Moment,
    ) -> Result<(Self, Vec<Change>), Rejected> {
        let mut next = self.clone();
        let seconds = begun_seconds(now);
        next.services.values_mut().for_each(|entry| entry.begin(seconds));
        next.disruptive = false;
        let changes = match command {
            Command::Declare { services, nat, ways, disruptive } => {
                next.disruptive = *disruptive;
                next.declare(self, services, nat, ways, recorded)?
            }
            Command::Fleet { services, overrides, nat, ways } => {
                next.kept.overrides.clone_from(overrides);
                next.declare(self, services, nat, ways, recorded)?
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
                reports.iter().filter_map(|report| next.observe(report, seconds)).collect()
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
            | Command::ConfigRefused(_)
            | Command::ConfigAccepted => Vec::new(),
        };
        next.services.values_mut().for_each(|entry| entry.settle(now));
        Ok((next, changes))
    }

    /// This state at a later time: a first table that has waited for long enough is made of those that have a verdict.
    pub fn at(&self, now: Moment) -> Self {
        let mut next = self.clone();
        next.services.values_mut().for_each(|entry| entry.settle(now));
        next
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

    /// Boot time at which the maps should say something else although nothing but time has changed.
    pub fn next_change(&self, now: Moment) -> Option<Duration> {
        let decided = |entry: &Entry| entry.decide(now.boot_seconds()).next_change.map(Duration::from_secs);
        self.services.values().flat_map(|entry| decided(entry).into_iter().chain(entry.gathered_at())).min()
    }

    /// Whether the service's first table is still to come, and waits for somebody.
    pub fn gathers(&self, service: &Name) -> bool {
        self.services.get(service).is_some_and(Entry::gathers)
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

    /// Makes the declared part of the state equal to this, and says what differs.
    fn declare(
        &mut self,
        before: &Self,
        services: &[Service],
        nat: &NatPool,
        ways: &[NextHopUpdate],
        recorded: &RecordedBackends,
    ) -> Result<Vec<Change>, Rejected> {
        self.learn(ways);
        self.nat.clone_from(nat);
        self.declared = services.iter().map(|service| (service.name.clone(), service.clone())).collect();
        let mut changes = self.rebuild(before, recorded, true)?;
        changes.extend(describe_nat(&before.nat, nat));
        Ok(changes)
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
            let mut entry = Entry::new(service, known.as_ref(), recorded);
            let sources_known =
                entry.spec.discovery.sources().all(|source| self.kept.found(&name, &source).is_some());
            entry.sources_known = sources_known;
            self.services.insert(name, entry);
        }
        old.values().for_each(|entry| describe_removed(&entry.spec, &mut changes));
        changes.extend(forgotten(&kept_before, &self.kept));
        changes.extend(describe_announced(&before.kept.announce_off, &self.kept.announce_off));
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
}
