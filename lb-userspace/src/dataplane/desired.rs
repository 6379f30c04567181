//! What the maps should say, as the state puts it: no numbers yet, those are the reconciler's.

use std::{net::SocketAddr, sync::Arc};

use super::encode::StableId;
use crate::{
    control::Hop,
    domain::{Admin, Health, Name, Service},
};

/// A whole state.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    pub services: Vec<DesiredService>,
}

#[derive(Clone, Debug)]
pub struct DesiredService {
    pub id: StableId,
    pub spec: Arc<Service>,
    pub backends: Vec<DesiredBackend>,
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
