//! What an apply will write, worked out in full before the first write.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use lb_common::abi::{
    ADMIN_DRAINING, BackendValue, DropReason, ENTRY_ADMISSION, ENTRY_OCCUPIED, EgressValue,
    HEALTH_INELIGIBLE, HEALTH_UNHEALTHY, NatPool, NextHop, SERVICE_IN_USE, SERVICE_PANICS,
    STATE_EXISTING_FLOWS, STATE_IN_USE, STATE_IPV6, STATE_NEW_FLOWS, ServiceEntry, ServiceRecord,
    limits::EGRESS_ENTRIES, limits::MAX_FLOW_IDLE, translates,
};

use super::{
    super::{
        allocate::{Allocation, Given, Retired, ServiceSlot},
        desired::{Desired, DesiredBackend, DesiredService, Way},
        encode::{self, StableId},
        sources::SourceLists,
    },
    ApplyError, Reconciler,
};
use crate::{
    domain::{Algorithm, Name, Service, TableSize, Tracking},
    lookup::{
        maglev::{self, Candidate},
        rotation,
    },
};

/// Everything an apply will write, made before the first write.
pub(super) struct Plan {
    pub(super) allocation: Allocation,
    pub(super) egress: BTreeMap<u32, EgressValue>,
    pub(super) backends: BTreeMap<u32, BackendValue>,
    pub(super) records: BTreeMap<u32, ServiceRecord>,
    pub(super) entries: Vec<ServiceEntry>,
    pub(super) every_port: bool,
    pub(super) nat_pool: NatPool,
    pub(super) sources: SourceLists,
    pub(super) tables: HashMap<StableId, Table>,
    /// Indices of backends that nothing declares any more and that drain.
    pub(super) leaving: BTreeSet<u32>,
    /// Indices that were out of use and whose records are used again.
    pub(super) returning: BTreeSet<u32>,
}

/// A service's table as it is live, with what it was built from.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) size: TableSize,
    algorithm: Algorithm,
    /// Name, weight and index of each backend that has slots, by name.
    built_from: Vec<(Name, u16, u32)>,
    /// The current backend of each slot.
    pub(super) slots: Arc<[u32]>,
    /// Slots that round-robin goes through.
    rotation: u32,
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
            nat_pool: encode::nat_pool(&desired.nat),
            sources: SourceLists::default(),
            tables: HashMap::new(),
            leaving: BTreeSet::new(),
            returning: BTreeSet::new(),
        };
        let replaced = plan.replace_services(now_live, desired)?;
        let wanted_services: HashSet<_> = desired.services.iter().map(|service| service.id).collect();
        let wanted_backends: HashSet<_> =
            desired.services.iter().flat_map(|service| &service.backends).map(|backend| backend.id).collect();
        let gone: Vec<_> = plan
            .allocation
            .backends
            .iter()
            .map(|(id, index)| (*id, *index, now_live.backends.get(index).copied().unwrap_or_default()))
            .filter(|(id, _, value)| !wanted_backends.contains(id) || replaced.contains(&value.service))
            .collect();
        for (id, index, value) in gone {
            let stays = match replaced.contains(&value.service) {
                true => None,
                false => plan.leaving(now_live, desired, id, index, value, now),
            };
            match stays {
                Some(value) => {
                    plan.leaving.insert(index);
                    plan.backends.insert(index, value);
                }
                None => {
                    let record = now_live.records.get(&value.service);
                    let retired = Retired {
                        service: value.service,
                        idle: value.flow_idle_timeout,
                        translated: record.is_none_or(|record| translates(record.forwarding)),
                    };
                    plan.allocation.retire_backend(id, retired, now);
                }
            }
        }
        for service in &desired.services {
            plan.add_service(now_live, service, now)?;
        }
        plan.sources.fit(&now_live.sources, now_live.limits.source_prefixes).map_err(|limit| {
            let largest = plan.sources.beyond(&now_live.sources).max_by_key(|(_, list)| list.len());
            let owner = largest.and_then(|(list, _)| {
                let record = plan.records.values().find(|record| record.source_list == list)?;
                desired.services.iter().find(|service| service.id == record.stable_id)
            });
            ApplyError::Exhausted { service: owner.map(|service| service.spec.name.clone()), limit }
        })?;
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
        let record = live.records.values().find(|record| record.stable_id == service.id);
        let full = |limit| ApplyError::Exhausted { service: Some(spec.name.clone()), limit };
        let slot = self.allocation.service(service.id, spec.table_size.log2(), live.limits).map_err(full)?;
        let mut chosen = Vec::new();
        for backend in &service.backends {
            // A flow that NAT keeps may be of another address of the service.
            let may_return = !spec.forwarding.translates();
            let given = self.allocation.backend(backend.id, slot.id, may_return, live.limits, now);
            let given = given.map_err(full)?;
            let index = given.index();
            if matches!(given, Given::Returning(_)) {
                self.returning.insert(index);
            }
            let value = self.backend_value(live, service, slot, backend, given)?;
            self.backends.insert(index, value);
            if backend.weight > 0 {
                chosen.push((backend.name.clone(), backend.weight, index));
            }
        }
        chosen.sort();
        let size = service.spec.table_size;
        let table = match live.tables.get(&service.id) {
            Some(table)
                if table.built_from == chosen && table.size == size && table.algorithm == spec.algorithm =>
            {
                table.clone()
            }
            _ => Table::build(size, spec.algorithm, chosen),
        };
        let list = record.map_or(0, |record| record.source_list);
        let list = self.sources.add(&live.sources, service.id, spec, list);
        self.add_entries(service, slot, table.rotation, list);
        self.tables.insert(service.id, table);
        Ok(())
    }

    /// Makes room for services that can't become what is wanted of them while they live: under other numbers, with other
    /// indices for their backends, so that nothing that flows have left leads to them. Returns their old numbers.
    fn replace_services(&mut self, live: &Reconciler, desired: &Desired) -> Result<HashSet<u32>, ApplyError> {
        let mut replaced = HashSet::new();
        for service in &desired.services {
            let mut records = live.records.iter();
            let Some((number, _)) =
                records.find(|(_, record)| record.stable_id == service.id && remaps(record, &service.spec))
            else {
                continue;
            };
            if !desired.disruptive {
                return Err(ApplyError::Disruptive { service: service.spec.name.clone() });
            }
            self.allocation.release_service(service.id);
            replaced.insert(*number);
        }
        Ok(replaced)
    }

    /// The record of a backend that is gone and drains; `None` if it has no more to do.
    fn leaving(
        &mut self,
        live: &Reconciler,
        desired: &Desired,
        id: StableId,
        index: u32,
        value: BackendValue,
        now: u64,
    ) -> Option<BackendValue> {
        let record = live.records.get(&value.service)?;
        let service = desired.services.iter().find(|service| service.id == record.stable_id)?;
        let spec = &service.spec;
        let kept = value.state & STATE_EXISTING_FLOWS != 0
            && !service.cut.contains(&id)
            && spec.tracking() != Tracking::Never;
        if !kept {
            return None;
        }
        let left_table_at = if value.left_table_at == 0 { now } else { value.left_table_at };
        let drain_deadline = match value.drain_deadline {
            // One that was unhealthy is probed no more, and has no longer than it would have had.
            0 if matches!(value.health, HEALTH_UNHEALTHY | HEALTH_INELIGIBLE) => {
                left_table_at + spec.unhealthy_grace.as_secs()
            }
            0 if spec.drain_timeout.is_zero() => now,
            // `now` is up to a second ago.
            0 => now + 1 + spec.drain_timeout.as_secs(),
            deadline => deadline,
        };
        let next_hop = match desired.ways.get(&encode::unmapped(value.address)) {
            Some(Way::Resolved(hop)) => match self.egress_number(live, &encode::egress(hop)) {
                Ok(number) => NextHop::new(hop.mac, number),
                // No room for a new way: no reason to end its flows, which may still get there by the old one.
                Err(_) => self.keep_next_hop(live, NextHop(value.next_hop)),
            },
            Some(Way::Unresolved) => NextHop::UNRESOLVED,
            Some(Way::Unknown) | None => self.keep_next_hop(live, NextHop(value.next_hop)),
        };
        let value = BackendValue {
            next_hop: next_hop.0,
            state: STATE_IN_USE | STATE_EXISTING_FLOWS | value.state & STATE_IPV6,
            weight: 0,
            admin: ADMIN_DRAINING,
            left_table_at,
            drain_deadline,
            flow_idle_timeout: idle_units(spec.flow_idle_timeout),
            ..value
        };
        (now < drain_deadline && !live.is_drained(index, &value)).then_some(value)
    }

    fn add_entries(&mut self, service: &DesiredService, slot: ServiceSlot, rotation: u32, source_list: u32) {
        let spec = &service.spec;
        let admission = if spec.admission.limits() { ENTRY_ADMISSION } else { 0 };
        let entry = ServiceEntry {
            key: encode::service_key(spec.vip, spec.protocol),
            service: slot.id,
            slots_base: slot.base,
            slot_shift: 64 - slot.log2,
            forwarding: encode::forwarding(spec.forwarding),
            hash_key: encode::hash_key(spec.algorithm),
            tracking: encode::tracking(spec),
            selection: encode::selection(spec.algorithm),
            no_backend: if service.rejects { DropReason::Rejected } else { DropReason::NoBackend } as u8,
            rotation,
            source_list,
            new_flow_limit: spec.admission.new_flow_rate,
            flow_idle_timeout: idle_units(spec.flow_idle_timeout),
            flags: ENTRY_OCCUPIED | admission,
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
                flow_idle_timeout: entry.flow_idle_timeout,
                source_list,
                flags: SERVICE_IN_USE | if service.panics { SERVICE_PANICS } else { 0 },
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
        given: Given,
    ) -> Result<BackendValue, ApplyError> {
        let old = match given {
            Given::Known(index) => live.backends.get(&index),
            Given::Returning(_) | Given::Fresh(_) => None,
        };
        let next_hop = match (&backend.way, old) {
            (Way::Resolved(hop), _) => NextHop::new(hop.mac, self.egress_number(live, &encode::egress(hop))?),
            (Way::Unknown, Some(old)) => self.keep_next_hop(live, NextHop(old.next_hop)),
            (Way::Unknown | Way::Unresolved, _) => NextHop::UNRESOLVED,
        };
        let new_flows = if backend.weight > 0 { STATE_NEW_FLOWS } else { 0 };
        let existing_flows = if backend.accepts_existing { STATE_EXISTING_FLOWS } else { 0 };
        let family = if backend.address.is_ipv6() { STATE_IPV6 } else { 0 };
        Ok(BackendValue {
            next_hop: next_hop.0,
            address: encode::mapped(backend.address.ip()),
            state: STATE_IN_USE | existing_flows | new_flows | family,
            service: slot.id,
            port: backend.address.port().to_be_bytes(),
            stable_id: backend.id,
            name_id: encode::backend_name_id(&service.spec.name, &backend.name),
            left_table_at: backend.left_table_at,
            drain_deadline: backend.drain_deadline,
            started_at: backend.started_at,
            flow_idle_timeout: idle_units(service.spec.flow_idle_timeout),
            admin: encode::admin(backend.admin),
            health: encode::health(backend.health),
            weight: backend.weight,
            name: encode::name_bytes(&backend.name),
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
}

/// Whether flows of a live service would end, or its clients go elsewhere, if it became this.
fn remaps(record: &ServiceRecord, spec: &Service) -> bool {
    record.slots_log2 != spec.table_size.log2()
        || record.hash_key != encode::hash_key(spec.algorithm)
        || record.selection != encode::selection(spec.algorithm)
        || (record.forwarding != encode::forwarding(spec.forwarding)
            && (translates(record.forwarding) || spec.forwarding.translates()))
        || (translates(record.forwarding) && record.key != encode::service_key(spec.vip, spec.protocol))
}

/// An idle timeout in units of coarse time, which are seconds.
fn idle_units(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).clamp(1, MAX_FLOW_IDLE)
}

impl Table {
    fn build(size: TableSize, algorithm: Algorithm, built_from: Vec<(Name, u16, u32)>) -> Self {
        let candidates: Vec<_> = built_from
            .iter()
            .map(|(name, weight, index)| Candidate { name: name.as_str(), weight: *weight, index: *index })
            .collect();
        let (indices, rotation) = match algorithm {
            Algorithm::RoundRobin => {
                let rotation = rotation::build(size.slots(), &candidates);
                (rotation.slots, rotation.length)
            }
            _ => (maglev::build(size, &candidates), size.slots()),
        };
        let fingerprint = maglev::fingerprint(&indices, &candidates);
        let mut counts = HashMap::new();
        for index in &indices {
            *counts.entry(*index).or_default() += 1;
        }
        Self { size, algorithm, built_from, slots: indices.into(), rotation, counts, fingerprint }
    }

    /// Of the backends that have slots, by their names.
    pub(super) fn indices(&self) -> impl Iterator<Item = u32> {
        self.built_from.iter().map(|(_, _, index)| *index)
    }
}
