//! A plan's writes, in the order that keeps packets safe: the five steps of [`super`].

use std::{collections::HashSet, sync::Arc};

use lb_common::abi::{
    BackendValue, HEALTH_UNKNOWN, NextHop, STATE_EXISTING_FLOWS, STATE_IPV6, ServiceEntry, ServiceRecord,
    Slot, TRACK_ALWAYS, TRACK_NEVER,
};

use super::{
    super::{
        Error,
        scan::{self, Moment},
        track,
    },
    Reconciler,
    plan::Plan,
};

impl Reconciler {
    pub(super) fn execute(&mut self, plan: Plan, now: Moment) -> Result<bool, Error> {
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

    /// Takes away the lists of source prefixes that no service names: a change that was cut short left them, and they would
    /// keep room from the next one.
    pub(super) fn reclaim_sources(&mut self, live: &[ServiceEntry]) {
        let left = self.sources.without(&live.iter().map(|entry| entry.source_list).collect());
        if left.is_empty() {
            return;
        }
        // The service table may have led there until a moment ago.
        self.dataplane.quiesce();
        for (number, list) in left {
            let mut prefixes = list.keys();
            match prefixes.try_for_each(|prefix| self.dataplane.remove_source(number, *prefix)) {
                Ok(()) => self.sources.forget(number),
                Err(error) => log::warn!("a list of source prefixes that no service has stays: {error}"),
            }
        }
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
