use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use super::OwnMacs;
use crate::{
    dataplane::{KeyFingerprint, reconcile::LeavingBackend},
    domain::{AnnounceOff, Found, Health, Name, NatPool, Service, Source, policy::ServiceState},
};

/// The state at one revision, immutable, shared by all readers.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub revision: u64,
    pub services: Vec<ServiceView>,
    pub nat: NatPool,
    pub interfaces: Vec<InterfaceView>,
    /// Frames for these MAC addresses are looked at.
    pub own_macs: OwnMacs,
    /// Tells the hash key from others; `None` until the daemon has said which it is.
    pub hash_key: Option<KeyFingerprint>,
    /// Interfaces attached and the last change published, by an earlier daemon at the least.
    pub ready: bool,
    /// Whether it has been said what the services are. A fleet's member may have to wait for that, while the maps that an
    /// earlier daemon left are forwarded by.
    pub declared: bool,
    /// Why the configuration file is not what runs, if so.
    pub config_error: Option<String>,
    /// Why what the API made and changed was not all there at the start, if so.
    pub state_error: Option<String>,
    /// Services for whose packets replies through NAT may be taken, and why: the kernel's news has brought it about.
    pub nat_clashes: BTreeMap<Name, String>,
    pub flow_table: FlowTable,
    /// Flows through `dnat` and `nat`.
    pub nat_table: FlowTable,
    /// Slots in which flows are tracked because of a change.
    pub tracked_slots: u64,
    /// VIPs that the administrator has taken off the network.
    pub announce_off: AnnounceOff,
}

impl Snapshot {
    /// What is missing, in words; `None` where nothing is.
    pub fn why_not_ready(&self) -> Option<String> {
        if self.ready {
            return None;
        }
        let missing = self.interfaces.iter().filter(|interface| !interface.attached);
        let missing: Vec<_> = missing.map(|interface| interface.name.as_str()).collect();
        Some(match missing[..] {
            [] if !self.declared => "what the services are is not known yet".to_owned(),
            [] => "the last change is not published yet".to_owned(),
            _ => format!("not attached to {}", missing.join(", ")),
        })
    }
}

/// The flow table, or NAT's, as the last whole scan found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowTable {
    pub entries: u64,
    pub capacity: u64,
}

/// A service with what became of it.
#[derive(Clone, Debug)]
pub struct ServiceView {
    pub service: Arc<Service>,
    /// Number in the maps.
    pub id: u32,
    pub state: ServiceState,
    /// It has had no backend in its table yet, and waits for the first verdicts of some, or for a source to say whom it has, so that
    /// all come into it at once.
    pub gathers: bool,
    /// Hash of the whole lookup table over backend names: equal on two hosts that map every client alike.
    pub fingerprint: u64,
    /// In the order of their names, one for each of `service.backends`.
    pub backends: Vec<BackendView>,
    /// Backends that are gone from the service and whose existing flows may still end in peace.
    pub leaving: Vec<LeavingBackend>,
    /// What its sources said last, in their order.
    pub sources: Vec<SourceView>,
    /// What they found and can't be a backend.
    pub left_out: Vec<LeftOut>,
}

/// The last good answer of a source of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceView {
    pub source: Source,
    /// Empty: there never was one.
    pub backends: Found,
}

/// A backend that was found and can't be one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeftOut {
    pub source: Source,
    pub name: Name,
    pub address: SocketAddr,
    pub why: String,
}

#[derive(Clone, Debug)]
pub struct BackendView {
    pub name: Name,
    pub address: SocketAddr,
    /// Index in the maps.
    pub index: u32,
    pub health: Health,
    pub health_detail: String,
    /// Part of the lookup table, 0 to 1.
    pub share: f64,
    /// Whether the kernel knows a MAC address for it.
    pub reachable: bool,
    /// Whether packets of existing flows are sent to it.
    pub accepts_existing: bool,
    /// Boot-time seconds at which its drain ends; 0 where it doesn't drain.
    pub drain_deadline: u64,
    /// It takes no new flows, and none is left that is tracked or could be.
    pub drained: bool,
    /// Live tracked flows; `None` where not all are tracked.
    pub flows: Option<u64>,
    /// Settings changed over what it was declared or made with.
    pub overrides: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceView {
    pub name: String,
    /// `native` or `generic`; `none` where the interface was not there when the daemon started.
    pub mode: &'static str,
    pub attached: bool,
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// One that is live and takes existing flows, and of which nothing else is known.
    pub(crate) fn backend_view(name: Name, address: SocketAddr, health: Health) -> BackendView {
        BackendView {
            name,
            address,
            index: 1,
            health,
            health_detail: String::new(),
            share: 0.0,
            reachable: true,
            accepts_existing: true,
            drain_deadline: 0,
            drained: false,
            flows: None,
            overrides: Vec::new(),
        }
    }

    pub(crate) fn service_view(
        service: Service,
        state: ServiceState,
        backends: impl IntoIterator<Item = BackendView>,
    ) -> ServiceView {
        ServiceView {
            service: Arc::new(service),
            id: 0,
            state,
            gathers: false,
            fingerprint: 0,
            backends: backends.into_iter().collect(),
            leaving: Vec::new(),
            sources: Vec::new(),
            left_out: Vec::new(),
        }
    }
}
