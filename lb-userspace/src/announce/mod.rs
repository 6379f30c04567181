//! VIPs are made known to the network: as routes of this host's kernel, for BIRD or FRR to export.
//!
//! [`decide`] says which, from [`facts`] that [`task`] collects: where the program is and whether there is a link
//! ([`host`]), and whether the program takes packets for its services' ([`probe`]). [`routes`] makes and removes what
//! [`plan`] finds to be missing or too much, and [`rival`] notices who does the same. Of all this the [`Board`] tells everybody else.
//!
//! [`split_brain`] is about the other way, a pair of hosts of which one holds the VIPs as addresses.
//!
//! Routes stay when the daemon ends, however it does: the program that is pinned goes on forwarding. The next daemon knows
//! them by their protocol number.

mod board;
mod decide;
mod facts;
mod host;
mod plan;
mod probe;
mod rival;
mod routes;
pub mod split_brain;
mod task;

pub use board::{Board, Report, VipReport};
pub use host::Host;
pub use routes::{RouteError, withdraw_all};
pub use task::spawn;

/// Why a VIP is not announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The administrator has said so.
    Administrator,
    NoCarrier,
    NotAttached,
    ProbeFailed,
    /// Fewer backends are healthy than a service asks for.
    BackendsBelow,
    /// Somebody else has the same route.
    ForeignRoute,
    /// The kernel does not take the route.
    RouteRefused,
    /// Not everything is known yet.
    Starting,
}

impl Reason {
    pub const ALL: [Self; 8] = [
        Self::Administrator,
        Self::NoCarrier,
        Self::NotAttached,
        Self::ProbeFailed,
        Self::BackendsBelow,
        Self::ForeignRoute,
        Self::RouteRefused,
        Self::Starting,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Administrator => "administrator",
            Self::NoCarrier => "no_carrier",
            Self::NotAttached => "not_attached",
            Self::ProbeFailed => "probe_failed",
            Self::BackendsBelow => "backends_below",
            Self::ForeignRoute => "foreign_route",
            Self::RouteRefused => "route_refused",
            Self::Starting => "starting",
        }
    }
}
