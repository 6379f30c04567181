//! What the task tells its readers.

use std::sync::Arc;

use super::Task;
use crate::{
    control::{BackendView, FlowTable, ServiceView, Snapshot},
    dataplane::{encode, scan::Moment},
    domain::Health,
};

impl Task {
    pub(super) fn census_figures(&self) -> [u64; 4] {
        let census = self.reconciler.census();
        [census.entries, census.capacity, census.tracked_slots, census.nat_entries]
    }

    pub(super) fn snapshot(&self, now: Moment) -> Snapshot {
        let attached =
            !self.interfaces.is_empty() && self.interfaces.iter().all(|interface| interface.attached);
        let census = self.reconciler.census();
        Snapshot {
            revision: self.revision,
            services: self.service_views(now.boot_seconds()),
            nat: self.state.nat().clone(),
            interfaces: self.interfaces.clone(),
            own_macs: self.own_macs.clone(),
            hash_key: self.hash_key,
            // Until a fleet's services are known, those that an earlier daemon left are forwarded by, as without a daemon.
            ready: attached && (self.declared || self.reconciler.serves()),
            declared: self.declared,
            config_error: self.config_error.clone(),
            state_error: self.state_error.clone(),
            nat_clashes: self.state.clashes(),
            flow_table: FlowTable { entries: census.entries, capacity: census.capacity },
            nat_table: FlowTable { entries: census.nat_entries, capacity: self.reconciler.nat_capacity() },
            tracked_slots: census.tracked_slots,
            announce_off: self.state.kept().announce_off.clone(),
        }
    }

    fn service_views(&self, now: u64) -> Vec<ServiceView> {
        let mut views = Vec::new();
        for (service, observed, decision) in self.state.services(now) {
            let published = self.published.services.get(&encode::service_id(&service.name));
            let gathers = self.state.gathers(&service.name);
            let backends = service.backends.values().map(|backend| {
                let id = encode::backend_id(&service.name, &backend.name, backend.address);
                let live =
                    published.and_then(|service| service.backends.get(&id)).copied().unwrap_or_default();
                let observed = observed.get(&backend.name).cloned().unwrap_or_default();
                let verdict = decision.backends.get(&backend.name).copied().unwrap_or_default();
                let waits = gathers && observed.standing.health == Health::Healthy;
                BackendView {
                    name: backend.name.clone(),
                    address: backend.address,
                    index: live.index,
                    health: observed.standing.health,
                    health_detail: if waits { waiting(&observed.detail) } else { observed.detail },
                    share: live.share,
                    reachable: live.reachable,
                    accepts_existing: verdict.accepts_existing,
                    drain_deadline: observed.standing.drain_deadline,
                    drained: live.drained,
                    flows: live.flows,
                    overrides: self.state.overrides(&service.name, &backend.name),
                }
            });
            views.push(ServiceView {
                service: Arc::clone(service),
                id: published.map(|service| service.id).unwrap_or_default(),
                state: decision.state,
                gathers,
                fingerprint: published.map(|service| service.fingerprint).unwrap_or_default(),
                backends: backends.collect(),
                leaving: published.map(|service| service.leaving.clone()).unwrap_or_default(),
                sources: self.state.source_views(service),
                left_out: self.state.left_out_of(&service.name).to_vec(),
            });
        }
        views
    }
}

/// Of one that passes its checks and is in no table yet.
fn waiting(detail: &str) -> String {
    format!("{detail}; in the table with the others that pass their first check")
}
