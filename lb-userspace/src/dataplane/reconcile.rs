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

mod execute;
mod plan;
mod preview;
mod published;
mod replication;
mod upkeep;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use lb_common::abi::{
    BackendValue, EgressValue, NatPool, NextHop, SERVICE_PANICS, ServiceEntry, ServiceRecord,
    limits::EGRESS_ENTRIES,
};

use super::{
    CounterReader, Dataplane, Error, Limits,
    allocate::{self, Allocation, Exhausted},
    desired::Desired,
    encode::{self, StableId},
    nat::{NatCensus, NatWorld, Sweeper},
    scan::{Census, Moment, Scanner, World},
    sources::SourceLists,
};
use crate::{
    control::OwnMacs,
    domain::{Health, Name},
};
use plan::{Plan, Table};
pub use preview::Impact;
pub use published::{LeavingBackend, Published, PublishedBackend, PublishedService};
use replication::Replication;
pub use upkeep::Ticked;

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
    /// All there are.
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
    /// With peers.
    replication: Option<Replication>,
}

/// Why an apply failed. Nothing that packets see has changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{limit}")]
    Exhausted {
        /// Whose part of the change does not fit.
        service: Option<Name>,
        limit: Exhausted,
    },
    #[error(
        "service {service}: table_size and algorithm of a live service can't change, nor its forwarding to or from dnat and \
         nat, nor its address there, because that would end its flows or send its clients to other backends: if that is \
         wanted, `ballast reload --disruptive` replaces it; if it was made over the command line, `ballast service remove` and \
         `ballast service add`"
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
            replication: None,
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
        let live = self.dataplane.live_services()?;
        let services = self.dataplane.service_records()?;
        let (services, twins) = allocate::without_twins(services, &live);
        for (number, _) in twins {
            self.dataplane.write_service_record(number, &ServiceRecord::default())?;
        }
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
        self.reclaim_sources(&live);
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

    /// Has only frames for these MAC addresses looked at.
    pub fn publish_own_macs(&mut self, macs: &OwnMacs) -> Result<(), Error> {
        self.dataplane.publish_own_macs(&encode::own_macs(macs))
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

    /// Whether the maps have services, whoever has put them there.
    pub fn serves(&self) -> bool {
        !self.allocation.services.is_empty()
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
}

#[cfg(test)]
mod tests;
