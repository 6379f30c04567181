//! The map ABI: every layout that the kernel side and the user side share.
//!
//! Types are `repr(C)` with explicit zeroed padding, hold no bool, enum, `Option` or usize, and keep addresses and
//! ports as byte arrays in network order. A change of any layout bumps [`ABI_VERSION`]; `tests/tests/abi_layout.rs`
//! compares the layouts with a committed snapshot.

mod admission;
mod backend;
mod capture;
mod control;
mod counters;
mod drop_reason;
mod egress;
mod flow;
mod fragment;
pub mod limits;
pub mod names;
mod nat;
mod own_macs;
mod probe;
mod service;
mod slot;
mod trace;

pub use admission::{
    ICMP_ERRORS_PER_UNIT, IcmpBudget, NewFlows, SOURCE_ALLOW, SOURCE_DENY, SOURCE_LIST_BITS, SourceKey,
};
pub use backend::{
    ADMIN_ACTIVE, ADMIN_DISABLED, ADMIN_DRAINING, BackendValue, HEALTH_HEALTHY, HEALTH_INELIGIBLE,
    HEALTH_UNHEALTHY, HEALTH_UNKNOWN, NextHop, STATE_EXISTING_FLOWS, STATE_IN_USE, STATE_IPV6,
    STATE_NEW_FLOWS,
};
pub use capture::{
    CAPTURE_ANY_SERVICE, CaptureCounters, CaptureRate, CaptureScratch, CaptureSettings, CapturedPacket,
    MAX_SNAPLEN, WANTED, WANTED_AS_REPLY, WANTED_NOT, WANTED_TO_COUNT,
};
pub use control::{ControlBlock, ServiceTableWord};
pub use counters::{Counters, MAX_DROP_REASONS, TrafficCounters};
pub use drop_reason::DropReason;
pub use egress::EgressValue;
pub use flow::{
    CLOCK_GAP, CLOCK_REFRESH_PACKETS, COARSE_UNIT_NS, ClockCell, ClockJump, FLOW_BUCKET_ENTRIES,
    FLOW_CLOSING, FLOW_CONFIRMED, FLOW_EMPTY, FLOW_TAG_BITS, FLOW_UNCONFIRMED, FlowBucket, FlowEntry,
    FlowLoad, MAX_FLOW_AGE, Rotation, SlotStamp, SlotStampPair, UNCONFIRMED_AGE,
};
pub use fragment::{
    FATE_FORWARD, FATE_PASS, FATE_REPLY, FRAGMENT_AGE, FRAGMENT_ENTRIES, FragmentFate, FragmentKey,
    REPLY_FRAGMENT_AGE,
};
pub use nat::{
    NAT_CLOSED_AGE, NAT_CONFIRMED, NAT_DEAD, NAT_FIN, NAT_POOL_ADDRESSES, NAT_RESET_AGE, NAT_RST, NatFlow,
    NatFlowKey, NatPool, NatReply, NatReplyKey, NatSeen, SWEEP_FLOW, SWEEP_KEPT, SWEEP_LONE_REPLY, SWEPT,
    SweepRequest,
};
pub use own_macs::{MAX_OWN_MACS, NO_MAC, OWN_MAC_PLACES, OwnMacs, mac_word};
pub use probe::{PROBE_MARK, PROBE_MARK_MASK, PROBE_SENT_TTL, PROBE_TTL, probe_mark, probed_backend};
pub use service::{
    ENTRY_ADMISSION, ENTRY_OCCUPIED, FORWARDING_DNAT, FORWARDING_GUE, FORWARDING_IPIP, FORWARDING_L2_DSR,
    FORWARDING_NAT, GUE_PORT, HASH_FLOW, HASH_SOURCE, KIND_MARKER, KIND_SERVICE, PROTOCOL_ANY, PROTOCOL_ICMP,
    PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, SELECT_HASH, SELECT_LEAST_CONNECTIONS, SELECT_ROUND_ROBIN,
    SERVICE_IN_USE, SERVICE_PANICS, ServiceEntry, ServiceKey, ServiceRecord, TRACK_ALWAYS, TRACK_AUTO,
    TRACK_NEVER, translates,
};
pub use slot::{MAX_BACKEND_INDEX, Slot};
pub use trace::{
    ANSWER_ECHO, ANSWER_LIMITED, ANSWER_PORT_UNREACHABLE, ANSWER_RELAYED, ANSWER_RESET, ANSWER_TIME_EXCEEDED,
    ANSWER_TOO_BIG, ANSWER_TUNNEL, CHOSEN_FALLBACK, CHOSEN_FLOW, CHOSEN_FRAGMENT, CHOSEN_LEAST_LOADED,
    CHOSEN_NAT_FLOW, CHOSEN_NEW, CHOSEN_NOT, CHOSEN_ROTATION, CHOSEN_TABLE, PASSED_FRAGMENT, PASSED_ICMP,
    PASSED_MAC, PASSED_NO_FLOW, PASSED_NO_SERVICE, PASSED_OTHER, TRACE_ENDED, TRACE_REPLY, TRACE_SERVICE,
    TRACE_SLOT, TRACE_TRACKED, Trace,
};

/// Number of this layout. Pinned maps of another number are never adopted.
pub const ABI_VERSION: u32 = 6;
