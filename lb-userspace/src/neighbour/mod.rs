//! Routes and MAC addresses from the kernel, over netlink: route → next hop → neighbour → MAC, interface, MTU.
//!
//! [`table`] is a copy of what the kernel told and answers questions about it, with no I/O, [`own_macs`] one of them; [`netlink`] asks the
//! kernel; [`resolver`] puts the two together once, for a start; [`follower`] keeps the control task told of every
//! change; [`host_route`] is what such a question consists of; [`vip`] asks where the host's own packets to a VIP go; [`survey`] looks once at all that `ballast doctor` judges.
//!
//! XDP traffic does not refresh the kernel's neighbour entries, so the follower does: it makes the kernel resolve what
//! is unresolved, each second, and confirm what became stale.

mod follower;
mod host_route;
mod netlink;
mod own_macs;
mod resolver;
mod survey;
mod table;
mod vip;

pub use follower::{Frames, spawn};
pub(crate) use host_route::{host_length, host_route};
pub use resolver::Resolver;
pub use survey::{Interface, Survey, Way};
pub use vip::{HostRoute, VipRoutes};

/// Why the kernel could not be asked: the environment's fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no netlink socket: {0}")]
    Socket(#[source] std::io::Error),
    #[error("netlink: {operation} failed: {source}")]
    Request { operation: &'static str, source: rtnetlink::Error },
}
