//! From a state to what the maps should say.

use std::{net::IpAddr, sync::Arc};

use super::{
    State,
    entry::{Entry, is_started},
};
use crate::{
    dataplane::{
        desired::{Desired, DesiredBackend, DesiredService, Way},
        encode,
    },
    domain::{Backend, Forwarding, Service, policy::Standing},
};

impl State {
    /// What the maps should say at `now`, in boot-time seconds.
    pub fn desired(&self, now: u64) -> Desired {
        let service = |entry: &Entry| {
            let decision = entry.decide(now);
            let backend = |backend: &Backend| {
                let verdict = decision.backends.get(&backend.name).copied().unwrap_or_default();
                let Standing { health, left_table_at, drain_deadline, started_at } =
                    entry.standing(&backend.name);
                // What is over means nothing to whoever reads the maps.
                let started_at = if is_started(&entry.spec, started_at, now) { 0 } else { started_at };
                DesiredBackend {
                    id: encode::backend_id(&entry.spec.name, &backend.name, backend.address),
                    name: backend.name.clone(),
                    address: backend.address,
                    admin: backend.admin,
                    health,
                    weight: verdict.weight,
                    accepts_existing: verdict.accepts_existing,
                    left_table_at,
                    drain_deadline,
                    started_at,
                    way: self.way(&entry.spec, backend.address.ip()),
                }
            };
            DesiredService {
                id: encode::service_id(&entry.spec.name),
                spec: Arc::clone(&entry.spec),
                backends: entry.spec.backends.values().map(backend).collect(),
                panics: decision.panics,
                rejects: decision.rejects,
                cut: entry.cut.clone(),
            }
        };
        let ways = self.ways.iter().map(|(address, update)| {
            let way = update.hop.clone().map_or(Way::Unresolved, Way::Resolved);
            (*address, way)
        });
        Desired {
            services: self.services.values().map(service).collect(),
            nat: self.nat.clone(),
            ways: ways.collect(),
            disruptive: self.disruptive,
        }
    }

    fn way(&self, service: &Service, address: IpAddr) -> Way {
        match self.ways.get(&address) {
            None => Way::Unknown,
            Some(update) => match &update.hop {
                Some(hop) if service.forwarding != Forwarding::L2Dsr || update.gateway.is_none() => {
                    Way::Resolved(hop.clone())
                }
                _ => Way::Unresolved,
            },
        }
    }
}
