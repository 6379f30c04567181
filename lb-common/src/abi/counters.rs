//! Per-CPU counters. Nothing else writes them but the data plane; a reader sums over CPUs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Room for drop reasons; more than there are, so that a new reason changes no layout.
pub const MAX_DROP_REASONS: usize = 56;

/// The only entry of `COUNTERS`: `received = transmitted + redirected + passed + Σ drops`, on every CPU, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Counters {
    pub received: u64,
    pub transmitted: u64,
    pub redirected: u64,
    pub passed: u64,
    /// Flow-table entries made.
    pub flows_inserted: u64,
    /// Those of them that took the place of another flow's unconfirmed entry.
    pub flows_evicted: u64,
    /// Flows that found no place in the flow table and went where their next packet will look for them.
    pub flows_refused: u64,
    pub _reserved: u64,
    /// Indexed by `DropReason`.
    pub drops: [u64; MAX_DROP_REASONS],
}

const _: () = assert!(size_of::<Counters>() == 512);

/// One entry of `SERVICE_COUNTERS` and of `BACKEND_COUNTERS`: packets forwarded, client to backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TrafficCounters {
    pub packets: u64,
    /// Frames as received, without FCS.
    pub bytes: u64,
    /// TCP SYNs (without ACK, FIN and RST), retransmitted ones included; first packets of tracked UDP flows.
    pub new_flows: u64,
    pub _reserved: u64,
}

const _: () = assert!(size_of::<TrafficCounters>() == 32);
