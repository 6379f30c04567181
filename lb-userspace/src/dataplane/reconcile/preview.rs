//! What a change would do to clients, told before it is made.

use std::collections::HashMap;

use lb_common::abi::{
    ADMIN_DRAINING, BackendValue, STATE_EXISTING_FLOWS, ServiceRecord, Slot, TRACK_ALWAYS, TRACK_AUTO,
    translates,
};

use super::{
    super::{desired::Desired, encode::StableId, scan::Moment},
    ApplyError, Reconciler,
    plan::Plan,
};

/// What becomes of a service's clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impact {
    /// Slots of the lookup table: of the one that is live, or of one that is to come.
    pub slots: u32,
    /// Slots with a backend that get another, or lose it. New flows of their clients go elsewhere.
    pub moved: u32,
    /// Live tracked flows that end; `None` where there may be others that nobody counts.
    pub flows_ending: Option<u64>,
    /// Live tracked flows whose backend begins to drain or to leave; as above.
    pub flows_draining: Option<u64>,
}

impl Impact {
    /// Whether any client would notice.
    pub fn is_felt(&self) -> bool {
        self.moved > 0 || self.flows_ending != Some(0) || self.flows_draining != Some(0)
    }
}

/// Flows of some backends.
#[derive(Clone, Copy)]
struct Flows(Option<u64>);

impl Flows {
    fn add(&mut self, counted: bool, flows: u64) {
        self.0 = self.0.filter(|_| counted).map(|sum| sum + flows);
    }
}

impl Reconciler {
    /// What `desired` would do to the clients of each service that is live or wanted.
    ///
    /// # Errors
    ///
    /// As [`Reconciler::apply`], of what can be known before.
    pub fn preview(&self, desired: &Desired, now: Moment) -> Result<HashMap<StableId, Impact>, ApplyError> {
        let plan = Plan::make(self, desired, now.boot_seconds())?;
        let mut impacts = HashMap::new();
        for (number, record) in &self.records {
            impacts.insert(record.stable_id, self.impact(&plan, *number, record)?);
        }
        for (id, table) in &plan.tables {
            let new = || Impact {
                slots: table.size.slots(),
                moved: 0,
                flows_ending: Some(0),
                flows_draining: Some(0),
            };
            impacts.entry(*id).or_insert_with(new);
        }
        Ok(impacts)
    }

    fn impact(&self, plan: &Plan, number: u32, record: &ServiceRecord) -> Result<Impact, ApplyError> {
        let slots = 1 << record.slots_log2;
        let live = self.dataplane.load_slots(record.slots_base, slots)?;
        let same_region =
            plan.records.get(&number).is_some_and(|planned| planned.slots_base == record.slots_base);
        let planned = plan.tables.get(&record.stable_id).filter(|_| same_region);
        let moves = |(at, slot): (usize, &Slot)| {
            let current = slot.current();
            current != 0 && planned.and_then(|table| table.slots.get(at)) != Some(&current)
        };
        let moved = live.iter().enumerate().filter(|slot| moves(*slot)).count();
        let (mut ending, mut draining) = (Flows(Some(0)), Flows(Some(0)));
        for (index, value) in self.backends.iter().filter(|(_, value)| value.service == number) {
            let flows = self.census.flows.get(index).copied().unwrap_or_default();
            let counted = counts_flows(record, value);
            let after = plan.backends.get(index).filter(|after| after.stable_id == value.stable_id);
            let accepts = |value: &BackendValue| value.state & STATE_EXISTING_FLOWS != 0;
            if accepts(value) && !after.is_some_and(accepts) {
                ending.add(counted, flows);
            } else if after.is_some_and(|after| after.admin == ADMIN_DRAINING)
                && value.admin != ADMIN_DRAINING
            {
                draining.add(counted, flows);
            }
        }
        Ok(Impact {
            slots,
            moved: u32::try_from(moved).unwrap_or(u32::MAX),
            flows_ending: ending.0,
            flows_draining: draining.0,
        })
    }
}

/// Whether all flows of a backend have entries, so that the scan counts them.
pub(super) fn counts_flows(record: &ServiceRecord, value: &BackendValue) -> bool {
    match record.tracking {
        _ if translates(record.forwarding) => true,
        TRACK_ALWAYS => true,
        TRACK_AUTO => value.admin == ADMIN_DRAINING,
        _ => false,
    }
}
