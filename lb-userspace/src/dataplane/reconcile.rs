//! From the desired state to map changes: difference, order, restore.
//!
//! The order is what keeps packets safe. Whatever a packet can reach is written before the word that leads there, and
//! what is left is not reused before the last packet that could have read it is gone:
//!
//! 1. everything that can fail: numbers, egress devices, counters of new objects;
//! 2. records and next hops of new backends, tables and records of new services;
//! 3. slots, next hops and states of live objects, a word at a time;
//! 4. the service table, by one word;
//! 5. what nothing leads to any more is retired.

mod plan;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use lb_common::abi::{
    BackendValue, EgressValue, HEALTH_UNKNOWN, NextHop, SERVICE_IN_USE, STATE_IN_USE, ServiceEntry,
    ServiceRecord, Slot, limits::EGRESS_ENTRIES,
};

use super::scan::{Census, Moment};
use super::{
    CounterReader, Dataplane, Error, Limits,
    allocate::{Allocation, Exhausted},
    desired::Desired,
    encode::{self, StableId},
};
use crate::domain::{Health, Name};
use plan::{Plan, Table};

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
    tables: HashMap<StableId, Table>,
    census: Census,
}

/// Why an apply failed. Nothing that packets see has changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    #[error(
        "service {service}: table_size and algorithm of a live service can't change, because that would send its clients \
         to other backends: remove the service with one reload and add it again with another"
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
}

/// What is live after an apply.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Whether any map was written.
    pub changed: bool,
    pub services: HashMap<StableId, PublishedService>,
}

#[derive(Clone, Debug, Default)]
pub struct PublishedService {
    pub id: u32,
    pub fingerprint: u64,
    pub backends: HashMap<StableId, PublishedBackend>,
    /// Backends that are declared no more, or under another address, and drain.
    pub leaving: Vec<LeavingBackend>,
}

/// A backend that nothing declares any more; existing flows may stay with it for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingBackend {
    /// `None` where its record holds none.
    pub name: Option<Name>,
    pub address: SocketAddr,
    pub index: u32,
    /// Live tracked flows, as the last whole scan counted them.
    pub flows: u64,
    /// Boot-time seconds at which the drain ends at the latest.
    pub drain_deadline: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct PublishedBackend {
    pub index: u32,
    /// Part of the table, 0 to 1.
    pub share: f64,
    pub reachable: bool,
    /// Live tracked flows, as the last whole scan counted them; `None` where not all flows are tracked.
    pub flows: Option<u64>,
    /// It takes no new flows, no flow of it is left, and none can come: nothing is lost by taking it away.
    pub drained: bool,
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
            tables: HashMap::new(),
            census: Census::default(),
            dataplane,
        };
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
        self.backends = backends.into_iter().filter(|(_, value)| value.state & STATE_IN_USE != 0).collect();
        let named: HashSet<u32> =
            self.backends.values().map(|value| NextHop(value.next_hop).egress()).collect();
        self.egress = egress
            .into_iter()
            .filter(|(number, value)| value.ifindex != 0 && named.contains(number))
            .collect();
        self.records =
            services.into_iter().filter(|(_, record)| record.flags & SERVICE_IN_USE != 0).collect();
        self.entries = None;
        self.tables.clear();
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
        let recorded = |value: &BackendValue| Recorded {
            health: encode::health_from(value.health),
            left_table_at: value.left_table_at,
            drain_deadline: value.drain_deadline,
        };
        self.backends.values().map(|value| (value.stable_id, recorded(value))).collect()
    }

    /// Does the work that time brings: a step of the scan for flows that are gone, and the end of drains. To be called
    /// every 100 ms; says whether what is [`Published`] has changed. `published` is brought up to date.
    pub fn tick(&mut self, _now: Moment, _published: &mut Published) -> Result<bool, Error> {
        Ok(false)
    }

    /// What the last whole scan found.
    pub fn census(&self) -> &Census {
        &self.census
    }

    /// Makes the maps say what `desired` says.
    pub fn apply(&mut self, desired: &Desired, now: Moment) -> Result<Published, ApplyError> {
        let now = now.boot_seconds();
        let plan = Plan::make(self, desired, now)?;
        match self.execute(&plan, now) {
            Ok(changed) => Ok(Published { changed, services: plan.published(self) }),
            Err(error) => {
                // Some of it may have been written: what is live is only known by looking.
                self.reread()?;
                Err(error)
            }
        }
    }

    /// Whether `desired` fits into the maps.
    pub fn check(&self, desired: &Desired, now: Moment) -> Result<(), ApplyError> {
        Plan::make(self, desired, now.boot_seconds()).map(|_| ())
    }

    fn execute(&mut self, plan: &Plan, now: u64) -> Result<bool, ApplyError> {
        let mut changed = self.prepare(plan)?;
        changed |= self.fill(plan)?;
        changed |= self.switch(plan)?;
        changed |= self.retire(plan, now)?;
        self.allocation = plan.allocation.clone();
        self.backends.clone_from(&plan.backends);
        self.egress.clone_from(&plan.egress);
        self.records.clone_from(&plan.records);
        self.tables.clone_from(&plan.tables);
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
        Ok(!fresh.is_empty())
    }

    /// Steps 2 and 3: backends first, since slots lead to them.
    fn fill(&mut self, plan: &Plan) -> Result<bool, Error> {
        let mut changed = false;
        for (index, value) in &plan.backends {
            changed |= self.write_backend(*index, value)?;
        }
        for (id, table) in &plan.tables {
            let Some(slot) = plan.allocation.services.get(id) else { continue };
            let live = self.tables.get(id).is_some_and(|live| Arc::ptr_eq(&live.slots, &table.slots));
            if !live || self.allocation.services.get(id) != Some(slot) {
                changed |= self.dataplane.store_slots(slot.base, &table.slots)? > 0;
            }
        }
        for (id, record) in &plan.records {
            if self.records.get(id) != Some(record) {
                self.dataplane.write_service_record(*id, record)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Step 4. Returns once nobody reads the old copy.
    fn switch(&mut self, plan: &Plan) -> Result<bool, Error> {
        if self.entries.as_ref() == Some(&plan.entries) {
            return Ok(false);
        }
        self.dataplane.publish_services(&plan.entries, plan.every_port)?;
        // What an earlier daemon published is published again only to be sure.
        let changed = self.entries.is_some();
        self.entries = Some(plan.entries.clone());
        Ok(changed)
    }

    /// Step 5. Regions first, so that no slot anywhere names an index that may be given out again.
    fn retire(&mut self, plan: &Plan, now: u64) -> Result<bool, Error> {
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
            changed |= self.dataplane.store_slots(slot.base, &empty)? > 0;
        }
        for (index, mut value) in gone {
            value.health = HEALTH_UNKNOWN;
            value.quarantined_at = now;
            self.dataplane.store_backend_state(index, 0)?;
            self.dataplane.store_next_hop(index, NextHop::UNRESOLVED)?;
            self.dataplane.update_backend_bookkeeping(index, &value)?;
            changed = true;
        }
        for id in self.records.keys().filter(|id| !plan.records.contains_key(id)) {
            self.dataplane.write_service_record(*id, &ServiceRecord::default())?;
            changed = true;
        }
        Ok(changed)
    }

    /// Writes what differs of one record.
    fn write_backend(&mut self, index: u32, value: &BackendValue) -> Result<bool, Error> {
        // A record cut short by a crash has no id, and no slot names it.
        let known = self.backends.get(&index).filter(|old| old.stable_id == value.stable_id);
        let Some(old) = known.copied() else {
            self.dataplane.write_backend(index, value)?;
            return Ok(true);
        };
        if old == *value {
            return Ok(false);
        }
        if old.next_hop != value.next_hop {
            self.dataplane.store_next_hop(index, NextHop(value.next_hop))?;
        }
        if old.state != value.state {
            self.dataplane.store_backend_state(index, value.state)?;
        }
        self.dataplane.update_backend_bookkeeping(index, value)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
