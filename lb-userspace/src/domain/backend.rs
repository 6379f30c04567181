use std::net::SocketAddr;

use super::{Name, Origin};

/// A server behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub name: Name,
    pub address: SocketAddr,
    /// Share of new flows relative to the other backends; 0 means no new flows.
    pub weight: u16,
    /// Gets traffic only while the others are too few.
    pub backup: bool,
    pub admin: Admin,
    pub origin: Origin,
}

/// What the administrator wants of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admin {
    /// Takes flows as its weight says.
    #[default]
    Active,
    /// Takes no new flows; those that exist may go on for the service's `drain_timeout`.
    Draining,
    /// Takes nothing.
    Disabled,
}

impl Admin {
    pub const ALL: [Self; 3] = [Self::Active, Self::Draining, Self::Disabled];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}
