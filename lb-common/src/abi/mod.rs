//! The map ABI: every layout that the kernel side and the user side share.
//!
//! Types are `repr(C)` with explicit zeroed padding, hold no bool, enum, `Option` or usize, and keep addresses and
//! ports as byte arrays in network order. A change of any layout bumps [`ABI_VERSION`]; `tests/tests/abi_layout.rs`
//! compares the layouts with a committed snapshot.

mod backend;
mod control;
mod counters;
mod drop_reason;
mod egress;
mod flow;
pub mod limits;
pub mod names;
mod service;
mod slot;

pub use backend::{
    ADMIN_ACTIVE, ADMIN_DISABLED, ADMIN_DRAINING, BackendValue, HEALTH_HEALTHY, HEALTH_INELIGIBLE,
    HEALTH_UNHEALTHY, HEALTH_UNKNOWN, NextHop, STATE_EXISTING_FLOWS, STATE_IN_USE, STATE_NEW_FLOWS,
};
pub use control::{ControlBlock, ServiceTableWord};
pub use counters::{Counters, MAX_DROP_REASONS, TrafficCounters};
pub use drop_reason::DropReason;
pub use egress::EgressValue;
pub use flow::{
    CLOCK_REFRESH_PACKETS, COARSE_UNIT_NS, ClockCell, FLOW_BUCKET_ENTRIES, FLOW_CLOSING, FLOW_CONFIRMED,
    FLOW_EMPTY, FLOW_TAG_BITS, FLOW_UNCONFIRMED, FlowBucket, FlowEntry, FlowLoad, MAX_FLOW_AGE, Rotation,
    SlotStamp, SlotStampPair, UNCONFIRMED_AGE,
};
pub use service::{
    ENTRY_OCCUPIED, FORWARDING_IPIP, FORWARDING_L2_DSR, HASH_FLOW, HASH_SOURCE, KIND_MARKER, KIND_SERVICE,
    PROTOCOL_ANY, PROTOCOL_TCP, PROTOCOL_UDP, SELECT_HASH, SELECT_LEAST_CONNECTIONS, SELECT_ROUND_ROBIN,
    SERVICE_IN_USE, ServiceEntry, ServiceKey, ServiceRecord, TRACK_ALWAYS, TRACK_AUTO, TRACK_NEVER,
};
pub use slot::{MAX_BACKEND_INDEX, Slot};

/// Number of this layout. Pinned maps of another number are never adopted.
pub const ABI_VERSION: u32 = 2;
