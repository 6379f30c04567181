//! What the scan and the sweep have to know of services and backends.

use std::collections::HashSet;

use lb_common::abi::{
    ADMIN_DISABLED, SELECT_LEAST_CONNECTIONS, STATE_EXISTING_FLOWS, ServiceRecord, TRACK_ALWAYS, TRACK_NEVER,
    translates,
};

use super::{
    super::{
        nat::NatBackend,
        scan::{Region, Tracked},
    },
    Reconciler,
};

impl Reconciler {
    /// Tells the scan what there is.
    pub(super) fn look_around(&mut self) {
        let closed: HashSet<u32> =
            self.world.regions.iter().filter(|region| !region.open).map(|region| region.base).collect();
        let region = |record: &ServiceRecord| Region {
            base: record.slots_base,
            slots: 1 << record.slots_log2,
            idle: self.kept(record),
            always: record.tracking == TRACK_ALWAYS,
            open: !closed.contains(&record.slots_base),
        };
        self.world.regions = self.records.values().map(region).collect();
        let last = self.backends.keys().next_back().copied().unwrap_or_default();
        let mut backends = vec![Tracked::default(); last as usize + 1];
        let mut nat_backends = vec![NatBackend::default(); last as usize + 1];
        for (index, value) in &self.backends {
            let record = self.records.get(&value.service).copied().unwrap_or_default();
            let weighed = record.selection == SELECT_LEAST_CONNECTIONS;
            if let Some(backend) = backends.get_mut(*index as usize) {
                *backend = Tracked {
                    idle: if record.tracking == TRACK_NEVER { 0 } else { self.kept(&record) },
                    accepts_existing: value.state & STATE_EXISTING_FLOWS != 0,
                    weighed: weighed && !translates(record.forwarding),
                };
            }
            if let Some(backend) =
                nat_backends.get_mut(*index as usize).filter(|_| translates(record.forwarding))
            {
                *backend = NatBackend {
                    service: value.service,
                    // Whoever disables a backend ends its flows.
                    idle: if value.admin == ADMIN_DISABLED { 0 } else { record.flow_idle_timeout },
                    protocol: record.key.protocol,
                    address: value.address,
                    weighed,
                };
            }
        }
        self.world.backends = backends;
        self.nat_world.backends = nat_backends;
        self.map_fleet();
    }
}
