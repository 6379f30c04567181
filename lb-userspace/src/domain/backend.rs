use std::net::SocketAddr;

use super::{Name, Origin};

/// A server behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub name: Name,
    pub address: SocketAddr,
    /// Share of new flows relative to the other backends; 0 means no new flows.
    pub weight: u16,
    pub admin: Admin,
    pub origin: Origin,
}

/// What the administrator wants of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admin {
    #[default]
    Active,
}

impl Admin {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
        }
    }
}
