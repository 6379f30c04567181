//! Flow replication: load balancers that tell each other which flows they track, so that one may take over another's traffic in the
//! middle of a change without breaking a connection (docs/flow-replication.md).
//!
//! [`wire`] is what datagrams look like, [`auth`] who may send them, [`session`] which of them are new. A [`link`] is one peer,
//! the [`Endpoint`] all of them; neither knows sockets or clocks. [`bind`] opens the sockets, [`task`] carries datagrams, and
//! [`Exchange`] is where the task that owns the maps meets it. What is told of slots and flows, and what is done with it, is in
//! `dataplane::replicate`.

mod auth;
mod counts;
mod endpoint;
mod exchange;
mod link;
mod post;
mod session;
mod sockets;
mod status;
pub mod task;
#[cfg(test)]
mod tests;
pub mod wire;

pub use auth::Keys;
pub use counts::{FlowFate, LinkCounts, Refusal};
pub use endpoint::{Endpoint, Event, Identity, PeerId};
pub use exchange::Exchange;
pub use link::{DEAD_AFTER, MAX_QUEUE};
pub use post::Post;
pub use sockets::{BindError, bind};
pub use status::{PeerStatus, PeersStatus};
