//! The reference model: what Ballast's data plane should do with a frame, written from docs/packet-path.md,
//! docs/flow-tracking.md and the map ABI's documentation, and never from the program's source.
//!
//! It is slow and simple on purpose: owned byte vectors, slices with checked bounds, no tricks shared with the program.
//! Where the two disagree one of them is wrong, and the differential tests say with which frame.

mod admission;
mod allocate;
pub mod controller;
mod decide;
mod effects;
mod errors;
mod extension;
pub mod flow;
mod forward;
mod fragment;
mod headers;
mod icmp;
pub mod nat;
mod quote;
mod reject;
mod reply;
mod rewrite;
mod service;
mod state;
mod sums;
mod track;
mod translate;
mod work;

pub use decide::{Decision, decide, decide_as};
pub use effects::{Effects, Event, Fate, Looked};
pub use flow::{Flow, FlowState};
pub use fragment::{NewEndpoints, Note, NoteFate, NoteKey};
pub use headers::{Frame, Kind};
pub use nat::{NatChange, NatFlow, NatFlowKey, NatReply, NatReplyKey, NatTables, Seen};
pub use reply::WayBack;
pub use service::{
    Backend, Egress, Forwarding, HashKey, Load, Pool, Prefix, Protocol, Selection, Service, Slot, SlotHash,
    Stamps, Tracking, mapped,
};
pub use state::State;
pub use sums::checksum;
pub use work::{Chosen, Counted, Verdict};
