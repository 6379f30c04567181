//! What the maps should say, as the state puts it: no numbers yet, those are the reconciler's.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::encode::StableId;
use crate::{
    control::Hop,
    domain::{Admin, Health, Name, NatPool, Service},
};

/// A whole state.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    pub services: Vec<DesiredService>,
    pub nat: NatPool,
    /// What is known of the ways to backend addresses, those of backends that are gone and drain included.
    pub ways: HashMap<IpAddr, Way>,
    /// Whether a live service that can't become what is wanted may be replaced: its flows end.
    pub disruptive: bool,
}

#[derive(Clone, Debug)]
pub struct DesiredService {
    pub id: StableId,
    pub spec: Arc<Service>,
    pub backends: Vec<DesiredBackend>,
    /// What policy decided: healthy backends are too few. Written down for the next controller.
    pub panics: bool,
    /// What policy decided: nobody gets traffic, and senders are told.
    pub rejects: bool,
    /// Backends that are gone and whose existing flows end with this change. Those that are gone and not named here
    /// drain: the reconciler keeps them for the service's `drain_timeout`, or until no flow is left.
    pub cut: Vec<StableId>,
}

#[derive(Clone, Debug)]
pub struct DesiredBackend {
    pub id: StableId,
    pub name: Name,
    pub address: SocketAddr,
    pub admin: Admin,
    pub health: Health,
    /// What policy decided: 0 for a backend that gets no new flows.
    pub weight: u16,
    /// What policy decided: whether packets of existing flows may still be sent to it.
    pub accepts_existing: bool,
    /// Boot-time seconds at which it left the lookup table, 0 while it is in it or never was.
    pub left_table_at: u64,
    /// Boot-time seconds at which its slow start began, 0 where it has none.
    pub started_at: u64,
    /// Boot-time seconds at which its drain ends, 0 where it doesn't drain.
    pub drain_deadline: u64,
    pub way: Way,
}

/// What is known of the way to a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Not asked yet: a record that has a next hop keeps it.
    Unknown,
    /// No route or no MAC address.
    Unresolved,
    Resolved(Hop),
}
