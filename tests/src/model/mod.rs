//! The reference model: what Ballast's data plane should do with a frame, written from the design and the map ABI's
//! documentation, and never from the program's source.
//!
//! It is slow and simple on purpose: owned byte vectors, slices with checked bounds, no tricks shared with the program.
//! Where the two disagree one of them is wrong, and the differential tests say with which frame.

pub mod controller;
mod decide;
pub mod flow;
mod headers;
mod rewrite;
mod state;
mod track;

pub use decide::{Counted, Decision, Verdict, decide};
pub use flow::{Flow, FlowState};
pub use headers::{Kind, checksum};
pub use state::{
    Backend, Egress, Forwarding, HashKey, Load, Protocol, Selection, Service, Slot, SlotHash, Stamps, State,
    Tracking,
};
pub use track::{Effects, Fate, Looked};
