//! What is live, as the rest of the controller is told.

use std::{collections::HashMap, net::SocketAddr};

use lb_common::abi::{BackendValue, NextHop, TRACK_NEVER, translates};

use super::{
    super::encode::{self, StableId},
    Reconciler,
    plan::Table,
    preview::counts_flows,
};
use crate::domain::Name;

/// What is live after an apply.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Whether any map was written.
    pub changed: bool,
    pub services: HashMap<StableId, PublishedService>,
}

#[derive(Clone, Debug, Default, PartialEq)]
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

#[derive(Clone, Copy, Debug, Default, PartialEq)]
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
    /// What is live.
    pub(super) fn published(&self) -> HashMap<StableId, PublishedService> {
        let mut services: HashMap<StableId, PublishedService> = HashMap::new();
        let mut by_number: HashMap<u32, (StableId, &Table)> = HashMap::new();
        for (id, table) in &self.tables {
            if let Some(slot) = self.allocation.services.get(id) {
                by_number.insert(slot.id, (*id, table));
                let service = services.entry(*id).or_default();
                service.id = slot.id;
                service.fingerprint = table.fingerprint;
            }
        }
        for (index, value) in &self.backends {
            let Some((service, table)) = by_number.get(&value.service) else { continue };
            let service = services.entry(*service).or_default();
            let flows = self.census.flows.get(index).copied().unwrap_or_default();
            if self.leaving.contains(index) {
                service.leaving.push(LeavingBackend {
                    name: encode::name_from(&value.name),
                    address: SocketAddr::new(encode::unmapped(value.address), u16::from_be_bytes(value.port)),
                    index: *index,
                    flows,
                    drain_deadline: value.drain_deadline,
                });
                continue;
            }
            let record = self.records.get(&value.service).copied().unwrap_or_default();
            let counted = counts_flows(&record, value);
            let owned = table.counts.get(index).copied().unwrap_or_default();
            let backend = PublishedBackend {
                index: *index,
                share: f64::from(owned) / f64::from(table.size.slots()),
                reachable: NextHop(value.next_hop) != NextHop::UNRESOLVED,
                flows: counted.then_some(flows),
                drained: self.is_drained(*index, value),
            };
            service.backends.insert(value.stable_id, backend);
        }
        services
    }

    /// Whether a backend that gets no new flows has no flow left, and none can turn up.
    pub(super) fn is_drained(&self, index: u32, value: &BackendValue) -> bool {
        let record = self.records.get(&value.service);
        let translated = record.is_some_and(|record| translates(record.forwarding));
        let tracks = translated || record.is_some_and(|record| record.tracking != TRACK_NEVER);
        // Before the first apply the slots may be an earlier controller's, which named the backend.
        let since = self.applied_first.unwrap_or(u64::MAX - 1).max(value.left_table_at);
        let began = if translated { self.census.nat_began } else { self.census.began };
        let scanned = began.boot_seconds() > since + 1;
        value.weight == 0 && (!tracks || (scanned && !self.census.held.contains(&index)))
    }
}
