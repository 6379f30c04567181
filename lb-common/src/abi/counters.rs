//! Per-CPU counters. Nothing else writes them but the data plane; a reader sums over CPUs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Room for drop reasons; more than there are, so that a new reason changes no layout.
pub const MAX_DROP_REASONS: usize = 48;

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
    /// Echo requests to a VIP that were answered.
    pub echo_replies: u64,
    /// Errors made: "too big" (ICMP type 3 code 4, ICMPv6 type 2) and "time exceeded" (11, 3).
    pub too_big_sent: u64,
    pub time_exceeded_sent: u64,
    /// Errors that were due and not made, because this CPU had made enough of them; the packets are dropped and counted.
    pub errors_limited: u64,
    /// Errors about a flow that were handed on: to its backend, or to its client.
    pub errors_relayed: u64,
    /// NAT flows made.
    pub nat_created: u64,
    /// Those of them that took the port of a flow that was over.
    pub nat_taken_over: u64,
    /// RSTs made for segments of services that reject them, and "port unreachable" (3/3, 1/4) for their datagrams.
    pub resets_sent: u64,
    pub port_unreachable_sent: u64,
    /// Indexed by `DropReason`.
    pub drops: [u64; MAX_DROP_REASONS],
}

const _: () = assert!(size_of::<Counters>() == 512);

/// One entry of `SERVICE_COUNTERS` and of `BACKEND_COUNTERS`: packets forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct TrafficCounters {
    /// Client to backend.
    pub packets: u64,
    /// Frames as received, without FCS.
    pub bytes: u64,
    /// TCP SYNs (without ACK, FIN and RST), retransmitted ones included; first packets of tracked UDP flows.
    pub new_flows: u64,
    /// Backend to client, where replies pass the load balancer.
    pub reply_packets: u64,
    pub reply_bytes: u64,
    pub _reserved: [u64; 3],
}

const _: () = assert!(size_of::<TrafficCounters>() == 64);
