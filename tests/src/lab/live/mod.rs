//! Thousands of live TCP connections: backends that say their names, and clients that remember them.
//!
//! A client sends a line that nobody else sends, the backend answers with its name and that line. A connection is
//! *broken* when another backend answers than the first time, when the answer is to another line, when it is reset or
//! closed, or when no answer comes within [`Order::PATIENCE`].
//!
//! A process has at most 20,000 descriptors here, so both sides are processes of their own (`lab-peer`, an event loop
//! in one thread), which take [orders](Order) on stdin. They end when stdin does, that is, with the test.

mod clients;
mod peer;
mod protocol;
mod servers;

pub use clients::LiveClients;
pub use protocol::{Loss, NOBODY, Order, Report, Served};
pub use servers::LiveServers;
