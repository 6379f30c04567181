//! From the desired state to map changes: difference, order, restore.
//!
//! The order is what keeps packets safe. Whatever a packet can reach is written before the word that leads there, and
//! what is left is not reused before the last packet that could have read it is gone:
//!
//! 1. everything that can fail: numbers, egress devices, lists of source prefixes, counters of new objects;
//! 2. records of new backends, next hops and what live backends take from now on, a word at a time;
//! 3. slots of all services, a word at a time, and what live backends take no longer;
//! 4. the addresses of NAT and the service table, each by one word;
//! 5. what nothing leads to any more is retired.
//!
//! Flows survive a change because of how slots change (`track.rs`); what that leaves behind is cleared away by the scan
//! (`scan.rs`), a step of which each [`Reconciler::tick`] makes.

mod plan;
mod published;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use lb_common::abi::{
    BackendValue, EgressValue, HEALTH_UNKNOWN, NatPool, NextHop, SERVICE_PANICS, STATE_EXISTING_FLOWS,
    STATE_IPV6, ServiceEntry, ServiceRecord, Slot, TRACK_ALWAYS, TRACK_NEVER, limits::EGRESS_ENTRIES,
};

use super::{
    CounterReader, Dataplane, Error, Limits,
    allocate::{self, Allocation, Exhausted},
    desired::Desired,
    encode::{self, StableId},
    nat::{NatCensus, NatWorld, Sweeper},
    scan::{self, Census, Moment, Scanner, World},
    sources::SourceLists,
    track,
};
use crate::domain::{Health, Name};
use plan::{Plan, Table};
pub use published::{LeavingBackend, Published, PublishedBackend, PublishedService};

/// Keeps the maps equal to what it was last told.
pub struct Reconciler {
    dataplane: Box<dyn Dataplane>,
    limits: Limits,
    allocation: Allocation,
    /// What each live index holds.
    backends: BTreeMap<u32, BackendValue>,
    /// Those that a live next hop names. Others hold what may no longer be true: the kernel forgets the device of an
    /// interface that goes, even if it comes back as the same one.
    egress: BTreeMap<u32, EgressValue>,
    records: BTreeMap<u32, ServiceRecord>,
    /// The live service table; `None` where it was not published by this reconciler.
    entries: Option<Vec<ServiceEntry>>,
    nat_pool: NatPool,
    /// All there are, those that a crash left included.
    sources: SourceLists,
    tables: HashMap<StableId, Table>,
    /// Indices of backends that nothing declares any more and that drain.
    leaving: BTreeSet<u32>,
    /// What was applied last.
    desired: Option<Desired>,
    /// Boot-time seconds of this controller's first apply.
    applied_first: Option<u64>,
    scanner: Scanner,
    world: World,
    sweeper: Sweeper,
    nat_world: NatWorld,
    nat_census: NatCensus,
    census: Census,
}

/// Why an apply failed. Nothing that packets see has changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    #[error(
        "service {service}: table_size and algorithm of a live service can't change, nor its forwarding to or from dnat and \
         nat, nor its address there, because that would end its flows or send its clients to other backends: remove the service and add it again, with two reloads if a file declares it, with `ballast \
         service remove` and `ballast service add` if it was made there"
    )]
    Disruptive { service: Name },
    #[error("more than {} different ways out (interface, MTU, source address)", EGRESS_ENTRIES - 1)]
    Egress,
    #[error(transparent)]
    Dataplane(#[from] Error),
}

/// What a previous controller wrote down of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    pub health: Health,
    /// As in [`super::desired::DesiredBackend`].
    pub left_table_at: u64,
    pub drain_deadline: u64,
    pub started_at: u64,
    /// Whether it got new flows.
    pub in_table: bool,
    /// Of its service, as in [`super::desired::DesiredService`].
    pub panics: bool,
}

impl Reconciler {
    /// Goes on from what the maps hold.
    pub fn restore(dataplane: Box<dyn Dataplane>) -> Result<Self, Error> {
        let mut reconciler = Self {
            limits: dataplane.limits(),
            allocation: Allocation::default(),
            backends: BTreeMap::new(),
            egress: BTreeMap::new(),
            records: BTreeMap::new(),
            entries: None,
            nat_pool: NatPool::default(),
            sources: SourceLists::default(),
            tables: HashMap::new(),
            leaving: BTreeSet::new(),
            desired: None,
            applied_first: None,
            scanner: Scanner::default(),
            world: World::default(),
            sweeper: Sweeper::default(),
            nat_world: NatWorld::default(),
            nat_census: NatCensus::default(),
            census: Census::default(),
            dataplane,
        };
        reconciler.census.capacity = reconciler.dataplane.words().flows.len() as u64;
        reconciler.reread()?;
        for (number, value) in &reconciler.egress {
            // The kernel forgets the device of an interface that goes and comes back. Where it is still gone this fails,
            // and the neighbour task finds the way unresolved.
            if let Err(error) = reconciler.dataplane.write_egress(*number, value) {
                log::warn!("egress {number}: {error}");
            }
        }
        Ok(reconciler)
    }

    /// Takes what the maps hold for the truth. Tables and the service table are forgotten, so that the next apply
    /// compares every slot and publishes every entry.
    fn reread(&mut self) -> Result<(), Error> {
        let services = self.dataplane.service_records()?;
        let backends = self.dataplane.backend_records()?;
        let egress = self.dataplane.egress_records()?;
        self.allocation = Allocation::restore(self.limits, &services, &backends);
        let known = |(index, value): &(u32, BackendValue)| {
            self.allocation.backends.get(&value.stable_id) == Some(index)
        };
        let (backends, others): (Vec<_>, Vec<_>) = backends.into_iter().partition(known);
        self.backends = backends.into_iter().collect();
        for (index, _) in others.iter().filter(|(_, value)| value.next_hop != NextHop::UNRESOLVED.0) {
            // A crash left it half made, or half taken away. The egress it names is free to become another.
            self.dataplane.store_next_hop(*index, NextHop::UNRESOLVED)?;
        }
        let named: HashSet<u32> =
            self.backends.values().map(|value| NextHop(value.next_hop).egress()).collect();
        self.egress = egress
            .into_iter()
            .filter(|(number, value)| value.ifindex != 0 && named.contains(number))
            .collect();
        self.records = services.into_iter().filter(|(_, record)| allocate::is_whole(record)).collect();
        self.nat_pool = self.dataplane.nat_pool()?;
        self.sources = SourceLists::restore(self.dataplane.sources()?);
        self.entries = None;
        self.tables.clear();
        self.world.regions.clear();
        self.look_around();
        Ok(())
    }

    pub fn counters(&self) -> Arc<dyn CounterReader> {
        self.dataplane.counters()
    }

    pub fn revision(&self) -> Result<u64, Error> {
        self.dataplane.revision()
    }

    pub fn store_revision(&mut self, revision: u64) -> Result<(), Error> {
        self.dataplane.store_revision(revision)
    }

    /// What the maps know of each backend.
    pub fn recorded(&self) -> HashMap<StableId, Recorded> {
        let recorded = |(index, value): (&u32, &BackendValue)| {
            // One that drains and is declared nowhere is not probed: what was known of it is no verdict any more.
            let recorded = match self.leaving.contains(index) {
                true => Recorded::default(),
                false => Recorded {
                    health: encode::health_from(value.health),
                    left_table_at: value.left_table_at,
                    drain_deadline: value.drain_deadline,
                    started_at: value.started_at,
                    in_table: value.weight > 0,
                    panics: self
                        .records
                        .get(&value.service)
                        .is_some_and(|record| record.flags & SERVICE_PANICS != 0),
                },
            };
            (value.stable_id, recorded)
        };
        self.backends.iter().map(recorded).collect()
    }

    /// What the last whole scan found.
    pub fn census(&self) -> &Census {
        &self.census
    }

    /// NAT flows there is room for.
    pub fn nat_capacity(&self) -> u64 {
        self.limits.nat_flows.into()
    }

    /// Makes the maps say what `desired` says.
    pub fn apply(&mut self, desired: &Desired, now: Moment) -> Result<Published, ApplyError> {
        let plan = Plan::make(self, desired, now.boot_seconds())?;
        self.applied_first.get_or_insert(now.boot_seconds());
        match self.execute(plan, now) {
            Ok(changed) => {
                self.desired = Some(desired.clone());
                Ok(Published { changed, services: self.published() })
            }
            Err(error) => {
                // Some of it may have been written: what is live is only known by looking.
                self.reread()?;
                Err(error.into())
            }
        }
    }

    /// Whether `desired` fits into the maps.
    pub fn check(&self, desired: &Desired, now: Moment) -> Result<(), ApplyError> {
        Plan::make(self, desired, now.boot_seconds()).map(|_| ())
    }

    /// Does the work that time brings: a step of the scan for flows that are gone and of NAT's sweep, and the end of
    /// drains. To be called every 100 ms; says whether what is [`Published`] has changed. `published` is brought up to date.
    pub fn tick(&mut self, now: Moment, published: &mut Published) -> Result<bool, ApplyError> {
        self.dataplane.store_clock(now.coarse());
        let swept = self.sweeper.step(&mut *self.dataplane, &self.nat_world, now, SWEEP_BUDGET);
        // Neither has to wait for the other's troubles.
        let scanned = self.scan(now, published)?;
        if let Some(census) = swept? {
            self.nat_census = census;
        }
        Ok(scanned)
    }

    /// A step of the scan for flows that are gone, and what follows from a pass that ends.
    fn scan(&mut self, now: Moment, published: &mut Published) -> Result<bool, ApplyError> {
        let Some(mut census) = self.scanner.step(self.dataplane.words(), &mut self.world, now, SCAN_BUDGET)
        else {
            return Ok(false);
        };
        census.join(&self.nat_census);
        self.allocation.observe(&census);
        self.census = census;
        let boot = now.boot_seconds();
        let has_left = |index: &u32| {
            let value = self.backends.get(index);
            value.is_none_or(|value| boot >= value.drain_deadline || self.is_drained(*index, value))
        };
        if self.leaving.iter().any(has_left)
            && let Some(desired) = self.desired.clone()
        {
            *published = self.apply(&desired, now)?;
            return Ok(true);
        }
        if self.tables.is_empty() && !published.services.is_empty() {
            // A change failed half-way. What is published is as good as known until it is made again.
            return Ok(false);
        }
        let services = self.published();
        let changed = services != published.services;
        published.services = services;
        Ok(changed)
    }

    fn execute(&mut self, plan: Plan, now: Moment) -> Result<bool, Error> {
        let mut changed = self.prepare(&plan)?;
        changed |= self.introduce(&plan, now.coarse())?;
        changed |= self.publish_tables(&plan, now.coarse())?;
        changed |= self.dismiss(&plan)?;
        changed |= self.switch(&plan)?;
        changed |= self.retire(&plan, now)?;
        self.allocation = plan.allocation;
        self.backends = plan.backends;
        self.egress = plan.egress;
        self.records = plan.records;
        self.sources = plan.sources;
        self.tables = plan.tables;
        self.leaving = plan.leaving;
        self.look_around();
        Ok(changed)
    }

    /// Step 1: what can fail.
    fn prepare(&mut self, plan: &Plan) -> Result<bool, Error> {
        let fresh: Vec<_> =
            plan.egress.iter().filter(|(number, _)| !self.egress.contains_key(number)).collect();
        if !fresh.is_empty() {
            // A next hop may have named the number until a moment ago.
            self.dataplane.quiesce();
        }
        for (number, value) in &fresh {
            self.dataplane.write_egress(**number, value)?;
        }
        for index in plan.backends.keys().filter(|index| !self.backends.contains_key(index)) {
            self.dataplane.clear_backend_counters(*index)?;
        }
        for id in plan.records.keys().filter(|id| !self.records.contains_key(id)) {
            self.dataplane.clear_service_counters(*id)?;
        }
        let mut changed = !fresh.is_empty();
        for (list, prefixes) in plan.sources.beyond(&self.sources) {
            for (prefix, verdict) in &**prefixes {
                self.dataplane.write_source(list, *prefix, *verdict)?;
            }
            changed = true;
        }
        Ok(changed)
    }

    /// Step 2: whoever takes more than before, or is new.
    fn introduce(&mut self, plan: &Plan, now: u64) -> Result<bool, Error> {
        let old_states = |reconciler: &Self, index: &u32, value: &BackendValue| {
            let known = reconciler.backends.get(index).filter(|old| old.stable_id == value.stable_id);
            known.map(|old| old.state).or_else(|| plan.returning.contains(index).then_some(0))
        };
        // While a backend took nothing, flows that had come to its slots went to their current backends: see
        // docs/flow-tracking.md.
        let takes_again: HashSet<u32> = plan
            .backends
            .iter()
            .filter(|(index, value)| {
                let old = old_states(self, index, value);
                old.is_some_and(|old| !old & value.state & STATE_EXISTING_FLOWS != 0)
            })
            .map(|(_, value)| value.service)
            .collect();
        let mut changed = false;
        // Seldom anybody does, and who accepts is worked out from all backends.
        let accepts = if takes_again.is_empty() { None } else { Some(self.accepting()) };
        for (id, record) in &plan.records {
            if let Some(accepts) = &accepts
                && takes_again.contains(id)
                && self.records.contains_key(id)
            {
                let old = self.dataplane.load_slots(record.slots_base, 1 << record.slots_log2)?;
                let slots: Vec<_> = old.into_iter().map(|slot| track::forget(slot, accepts)).collect();
                changed |= self.dataplane.store_slots(record.slots_base, &slots, now)? > 0;
            }
        }
        for (index, value) in &plan.backends {
            let Some(old) = old_states(self, index, value) else {
                // A record cut short by a crash has no id, and no slot names it.
                self.dataplane.write_backend(*index, value)?;
                changed = true;
                continue;
            };
            let live = self.backends.get(index);
            if live.is_none_or(|live| live.next_hop != value.next_hop) {
                self.dataplane.store_next_hop(*index, NextHop(value.next_hop))?;
            }
            if live.is_none_or(|live| live.weight != value.weight) {
                self.dataplane.store_backend_weight(*index, value.weight)?;
            }
            if old | value.state != old {
                self.dataplane.store_backend_state(*index, old | value.state)?;
            }
        }
        Ok(changed)
    }

    /// Step 3, its first half.
    fn publish_tables(&mut self, plan: &Plan, now: u64) -> Result<bool, Error> {
        let mut changed = false;
        let accepts = self.accepting();
        self.forget_flows(plan);
        for (id, table) in &plan.tables {
            let Some(slot) = plan.allocation.services.get(id) else { continue };
            let Some(record) = plan.records.get(&slot.id) else { continue };
            let live = self.records.get(&slot.id).filter(|_| self.allocation.services.get(id) == Some(slot));
            let reopens = live.is_some_and(|live| live.tracking != record.tracking);
            let same = self.tables.get(id).is_some_and(|live| Arc::ptr_eq(&live.slots, &table.slots));
            if live.is_none() {
                // Nobody has any business in the region yet, whatever is there.
                let slots: Vec<_> = table.slots.iter().map(|index| Slot::steady(*index)).collect();
                changed |= self.dataplane.store_slots(slot.base, &slots, now)? > 0;
            } else if !same || reopens {
                let untracked = live.is_some_and(|live| live.tracking == TRACK_NEVER);
                let old = self.dataplane.load_slots(slot.base, 1 << slot.log2)?;
                let slots: Vec<_> = old
                    .into_iter()
                    .zip(table.slots.iter())
                    .map(|(old, current)| {
                        // Until the service table says otherwise nobody asks for entries, and everyone goes to `current`.
                        let new = match untracked {
                            true => Slot::steady(*current),
                            false => track::publish(old, *current, record.tracking, &accepts, now),
                        };
                        if reopens { track::reopen(new, record.tracking, now) } else { new }
                    })
                    .collect();
                let stored = self.dataplane.store_slots(slot.base, &slots, now)?;
                changed |= stored > 0;
                let region = self.world.regions.iter_mut().find(|region| region.base == slot.base);
                if let Some(region) = region.filter(|_| stored > 0) {
                    region.open = true;
                }
            }
            if self.records.get(&slot.id) != Some(record) && !comes_late(live, record) {
                self.dataplane.write_service_record(slot.id, record)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Entries that were left while a service did not track know nothing of the flows that went by.
    fn forget_flows(&self, plan: &Plan) {
        let begins = |(id, record): &(&u32, &ServiceRecord)| {
            let live = self.records.get(id);
            live.is_some_and(|live| live.tracking == TRACK_NEVER) && record.tracking != TRACK_NEVER
        };
        let services: HashSet<u32> = plan.records.iter().filter(begins).map(|(id, _)| *id).collect();
        if !services.is_empty() {
            let theirs = self.backends.iter().filter(|(_, value)| services.contains(&value.service));
            scan::purge(self.dataplane.words().flows, &theirs.map(|(index, _)| *index).collect());
        }
    }

    /// Step 3, its second half: whoever takes less than before.
    fn dismiss(&mut self, plan: &Plan) -> Result<bool, Error> {
        let mut changed = false;
        for (index, value) in &plan.backends {
            let old = self.backends.get(index).filter(|old| old.stable_id == value.stable_id);
            let written = old.is_none() && !plan.returning.contains(index);
            if written || old == Some(value) {
                continue;
            }
            if old.is_none_or(|old| old.state | value.state != value.state) {
                self.dataplane.store_backend_state(*index, value.state)?;
            }
            self.dataplane.update_backend_bookkeeping(*index, value)?;
            changed = true;
        }
        Ok(changed)
    }

    /// Step 4. Returns once nobody reads the old copy.
    fn switch(&mut self, plan: &Plan) -> Result<bool, Error> {
        let mut changed = false;
        if self.nat_pool != plan.nat_pool {
            self.dataplane.publish_nat_pool(&plan.nat_pool)?;
            self.nat_pool = plan.nat_pool;
            changed = true;
        }
        if self.entries.as_ref() != Some(&plan.entries) {
            self.dataplane.publish_services(&plan.entries, plan.every_port)?;
            // What an earlier daemon published is published again only to be sure.
            changed |= self.entries.is_some();
            self.entries = Some(plan.entries.clone());
        }
        for (id, record) in &plan.records {
            if comes_late(self.records.get(id), record) {
                self.dataplane.write_service_record(*id, record)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Step 5. Regions first: what no packet looks at any more must not name an index that may be given out again.
    fn retire(&mut self, plan: &Plan, now: Moment) -> Result<bool, Error> {
        let mut changed = false;
        let gone = self.backends.iter().filter(|(index, _)| !plan.backends.contains_key(index));
        let gone: Vec<_> = gone.map(|(index, value)| (*index, *value)).collect();
        if !gone.is_empty() {
            // A packet may have read a slot just before it was replaced.
            self.dataplane.quiesce();
        }
        let kept = |id, slot| plan.allocation.services.get(id) == Some(slot);
        for (_, slot) in self.allocation.services.iter().filter(|(id, slot)| !kept(*id, *slot)) {
            let empty = vec![Slot::default(); 1 << slot.log2];
            changed |= self.dataplane.store_slots(slot.base, &empty, now.coarse())? > 0;
        }
        for (index, mut value) in gone {
            value.health = HEALTH_UNKNOWN;
            value.quarantined_at = now.boot_seconds();
            self.dataplane.store_backend_state(index, value.state & STATE_IPV6)?;
            self.dataplane.store_next_hop(index, NextHop::UNRESOLVED)?;
            self.dataplane.update_backend_bookkeeping(index, &value)?;
            changed = true;
        }
        for id in self.records.keys().filter(|id| !plan.records.contains_key(id)) {
            self.dataplane.write_service_record(*id, &ServiceRecord::default())?;
            changed = true;
        }
        for (list, prefixes) in self.sources.beyond(&plan.sources) {
            for prefix in prefixes.keys() {
                self.dataplane.remove_source(list, *prefix)?;
            }
            changed = true;
        }
        Ok(changed)
    }

    /// Says of an index whether it takes packets of existing flows, as of now.
    fn accepting(&self) -> impl Fn(u32) -> bool + use<> {
        let takes = |value: &BackendValue| value.state & STATE_EXISTING_FLOWS != 0;
        let taking: HashSet<u32> =
            self.backends.iter().filter(|(_, value)| takes(value)).map(|(index, _)| *index).collect();
        move |index| taking.contains(&index)
    }
}

/// Whether a live service's record may be changed only after the service table: by the record the scan would close slots
/// that a packet still goes by.
fn comes_late(live: Option<&ServiceRecord>, record: &ServiceRecord) -> bool {
    record.tracking == TRACK_ALWAYS && live.is_some_and(|live| live.tracking != TRACK_ALWAYS)
}

/// Flow entries that one step of the scan looks at: some milliseconds.
const SCAN_BUDGET: usize = 4 << 20;

/// NAT flows that one step of the sweep looks at, if there is no more to do: some milliseconds. At ten steps a second
/// the default size is looked at once a second even if all flows are old.
const SWEEP_BUDGET: usize = 128 << 10;

#[cfg(test)]
mod tests;
