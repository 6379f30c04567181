//! What an apply will write, worked out in full before the first write.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use lb_common::abi::{
    BackendValue, ENTRY_OCCUPIED, EgressValue, NextHop, SERVICE_IN_USE, STATE_EXISTING_FLOWS, STATE_IN_USE,
    STATE_NEW_FLOWS, ServiceEntry, ServiceRecord, Slot, limits::EGRESS_ENTRIES, limits::MAX_FLOW_IDLE,
};

use super::{
    super::{
        allocate::{Allocation, ServiceSlot},
        desired::{Desired, DesiredBackend, DesiredService, Way},
        encode::{self, StableId},
    },
    ApplyError, PublishedBackend, PublishedService, Reconciler,
};
use crate::{
    domain::{Name, TableSize},
    lookup::maglev::{self, Candidate},
};

/// Everything an apply will write, made before the first write.
pub(super) struct Plan {
    pub(super) allocation: Allocation,
    pub(super) egress: BTreeMap<u32, EgressValue>,
    pub(super) backends: BTreeMap<u32, BackendValue>,
    pub(super) records: BTreeMap<u32, ServiceRecord>,
    pub(super) entries: Vec<ServiceEntry>,
    pub(super) every_port: bool,
    pub(super) tables: HashMap<StableId, Table>,
}

/// A service's table as it is live, with what it was built from.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) size: TableSize,
    /// Name, weight and index of each backend that has slots, by name.
    pub(super) built_from: Vec<(Name, u16, u32)>,
    pub(super) slots: Arc<[Slot]>,
    pub(super) counts: HashMap<u32, u32>,
    pub(super) fingerprint: u64,
}

impl Plan {
    pub(super) fn make(now_live: &Reconciler, desired: &Desired, now: u64) -> Result<Self, ApplyError> {
        let mut plan = Self {
            allocation: now_live.allocation.clone(),
            egress: BTreeMap::new(),
            backends: BTreeMap::new(),
            records: BTreeMap::new(),
            entries: Vec::new(),
            every_port: false,
            tables: HashMap::new(),
        };
        let wanted_services: HashSet<_> = desired.services.iter().map(|service| service.id).collect();
        let wanted_backends: HashSet<_> =
            desired.services.iter().flat_map(|service| &service.backends).map(|backend| backend.id).collect();
        let gone: Vec<_> =
            plan.allocation.backends.keys().filter(|id| !wanted_backends.contains(*id)).copied().collect();
        for id in gone {
            plan.allocation.retire_backend(id, now);
        }
        for service in &desired.services {
            plan.add_service(now_live, service, now)?;
        }
        plan.allocation.retain_services(|id| wanted_services.contains(id));
        plan.entries.sort_by_key(|entry| entry.key.words());
        plan.entries.dedup_by_key(|entry| entry.key.words());
        Ok(plan)
    }

    fn add_service(
        &mut self,
        live: &Reconciler,
        service: &DesiredService,
        now: u64,
    ) -> Result<(), ApplyError> {
        let spec = &service.spec;
        let remaps = |record: &ServiceRecord| {
            record.slots_log2 != spec.table_size.log2()
                || record.hash_key != encode::hash_key(spec.algorithm)
                || record.selection != encode::selection(spec.algorithm)
        };
        if live.records.values().any(|record| record.stable_id == service.id && remaps(record)) {
            return Err(ApplyError::Disruptive { service: spec.name.clone() });
        }
        let slot = self.allocation.service(service.id, service.spec.table_size.log2(), live.limits)?;
        let mut chosen = Vec::new();
        for backend in &service.backends {
            let (index, fresh) = self.allocation.backend(backend.id, live.limits, now)?;
            let value = self.backend_value(live, service, slot, backend, index, fresh)?;
            self.backends.insert(index, value);
            if backend.weight > 0 {
                chosen.push((backend.name.clone(), backend.weight, index));
            }
        }
        chosen.sort();
        let size = service.spec.table_size;
        let table = match live.tables.get(&service.id) {
            Some(table) if table.built_from == chosen && table.size == size => table.clone(),
            _ => Table::build(size, chosen),
        };
        self.tables.insert(service.id, table);
        self.add_entries(service, slot);
        Ok(())
    }

    fn add_entries(&mut self, service: &DesiredService, slot: ServiceSlot) {
        let spec = &service.spec;
        let entry = ServiceEntry {
            key: encode::service_key(spec.vip, spec.protocol),
            service: slot.id,
            slots_base: slot.base,
            slot_shift: 64 - slot.log2,
            forwarding: encode::forwarding(spec.forwarding),
            hash_key: encode::hash_key(spec.algorithm),
            tracking: encode::tracking(spec),
            selection: encode::selection(spec.algorithm),
            rotation: spec.table_size.slots(),
            flags: ENTRY_OCCUPIED,
            ..ServiceEntry::default()
        };
        self.every_port |= spec.vip.port.is_none();
        self.entries.push(entry);
        // A marker says "somebody lives here", whoever it is: equal for all services of an address.
        let marker = |key| ServiceEntry { key, flags: ENTRY_OCCUPIED, ..ServiceEntry::default() };
        self.entries.extend(encode::markers(spec).map(marker));
        self.records.insert(
            slot.id,
            ServiceRecord {
                stable_id: service.id,
                key: entry.key,
                slots_base: slot.base,
                slots_log2: slot.log2,
                forwarding: entry.forwarding,
                hash_key: entry.hash_key,
                tracking: entry.tracking,
                selection: entry.selection,
                flow_idle_timeout: idle_units(spec.flow_idle_timeout),
                flags: SERVICE_IN_USE,
                ..ServiceRecord::default()
            },
        );
    }

    fn backend_value(
        &mut self,
        live: &Reconciler,
        service: &DesiredService,
        slot: ServiceSlot,
        backend: &DesiredBackend,
        index: u32,
        fresh: bool,
    ) -> Result<BackendValue, ApplyError> {
        let old = live.backends.get(&index).filter(|_| !fresh);
        let next_hop = match (&backend.way, old) {
            (Way::Resolved(hop), _) => NextHop::new(hop.mac, self.egress_number(live, &encode::egress(hop))?),
            (Way::Unknown, Some(old)) => self.keep_next_hop(live, NextHop(old.next_hop)),
            (Way::Unknown | Way::Unresolved, _) => NextHop::UNRESOLVED,
        };
        let new_flows = if backend.weight > 0 { STATE_NEW_FLOWS } else { 0 };
        Ok(BackendValue {
            next_hop: next_hop.0,
            address: encode::mapped(backend.address.ip()),
            state: STATE_IN_USE | STATE_EXISTING_FLOWS | new_flows,
            service: slot.id,
            port: backend.address.port().to_be_bytes(),
            stable_id: backend.id,
            name_id: encode::backend_name_id(&service.spec.name, &backend.name),
            admin: encode::admin(backend.admin),
            health: encode::health(backend.health),
            weight: backend.weight,
            ..BackendValue::default()
        })
    }

    fn keep_next_hop(&mut self, live: &Reconciler, next_hop: NextHop) -> NextHop {
        match live.egress.get(&next_hop.egress()) {
            Some(value) => {
                self.egress.insert(next_hop.egress(), *value);
                next_hop
            }
            None => NextHop::UNRESOLVED,
        }
    }

    /// The number of an egress entry: one in use that says the same, else one that nothing names.
    fn egress_number(&mut self, live: &Reconciler, value: &EgressValue) -> Result<u16, ApplyError> {
        let planned = self.egress.iter().chain(&live.egress).find(|(_, known)| *known == value);
        let number = match planned {
            Some((number, _)) => *number,
            None => (1..EGRESS_ENTRIES)
                .find(|number| !self.egress.contains_key(number) && !live.egress.contains_key(number))
                .ok_or(ApplyError::Egress)?,
        };
        self.egress.insert(number, *value);
        u16::try_from(number).map_err(|_| ApplyError::Egress)
    }

    pub(super) fn published(&self, live: &Reconciler) -> HashMap<StableId, PublishedService> {
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
        for (index, value) in &live.backends {
            let Some((service, table)) = by_number.get(&value.service) else { continue };
            let owned = table.counts.get(index).copied().unwrap_or_default();
            let backend = PublishedBackend {
                index: *index,
                share: f64::from(owned) / f64::from(table.size.slots()),
                reachable: NextHop(value.next_hop) != NextHop::UNRESOLVED,
                flows: None,
                drained: false,
            };
            services.entry(*service).or_default().backends.insert(value.stable_id, backend);
        }
        services
    }
}

/// An idle timeout in units of coarse time, which are seconds.
fn idle_units(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).clamp(1, MAX_FLOW_IDLE)
}

impl Table {
    fn build(size: TableSize, built_from: Vec<(Name, u16, u32)>) -> Self {
        let candidates: Vec<_> = built_from
            .iter()
            .map(|(name, weight, index)| Candidate { name: name.as_str(), weight: *weight, index: *index })
            .collect();
        let indices = maglev::build(size, &candidates);
        let fingerprint = maglev::fingerprint(&indices, &candidates);
        let mut counts = HashMap::new();
        for index in &indices {
            *counts.entry(*index).or_default() += 1;
        }
        let slots = indices.into_iter().map(Slot::steady).collect();
        Self { size, built_from, slots, counts, fingerprint }
    }
}
