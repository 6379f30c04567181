//! The reference model: what Ballast's data plane should do with a frame, written from the design and the map ABI's
//! documentation, and never from the program's source.
//!
//! It is slow and simple on purpose: owned byte vectors, slices with checked bounds, no tricks shared with the program.
//! Where the two disagree one of them is wrong, and the differential tests say with which frame.

mod decide;
mod headers;
mod rewrite;
mod state;

pub use decide::{Counted, Decision, Verdict, decide};
pub use headers::checksum;
pub use state::{Backend, Egress, Forwarding, HashKey, Protocol, Service, SlotHash, State};
