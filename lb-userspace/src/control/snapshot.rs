use std::{net::SocketAddr, sync::Arc};

use crate::domain::{Health, Name, Service, policy::ServiceState};

/// The state at one revision, immutable, shared by all readers.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub revision: u64,
    pub services: Vec<ServiceView>,
    pub interfaces: Vec<InterfaceView>,
    /// Interfaces attached and the last change published.
    pub ready: bool,
    /// Why the configuration file is not what runs, if so.
    pub config_error: Option<String>,
}

/// A service with what became of it.
#[derive(Clone, Debug)]
pub struct ServiceView {
    pub service: Arc<Service>,
    /// Number in the maps.
    pub id: u32,
    pub state: ServiceState,
    /// Hash of the whole lookup table over backend names: equal on two hosts that map every client alike.
    pub fingerprint: u64,
    /// In the order of their names, one for each of `service.backends`.
    pub backends: Vec<BackendView>,
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
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceView {
    pub name: String,
    /// `native` or `generic`; `none` where the interface was not there when the daemon started.
    pub mode: &'static str,
    pub attached: bool,
}
