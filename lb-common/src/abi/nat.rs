//! NAT state: one pair of entries a flow, in kernel hash maps that never evict.
//!
//! Inserting into [`NatReplyKey`]'s map with "no such entry" is the allocation of a port. The rules are in
//! docs/packet-path.md; both entries' `seen` words are changed by compare-and-swap alone.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of `NAT_FLOWS`: a client's side of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct NatFlowKey {
    /// IPv6, or IPv4 as `::ffff:a.b.c.d`, as every address here.
    pub client: [u8; 16],
    /// Source and destination port as the client sends them, in network order.
    pub ports: [u8; 4],
    /// The service: it has one VIP and one protocol.
    pub service: u32,
}

const _: () = assert!(size_of::<NatFlowKey>() == 24);

/// Entry of `NAT_FLOWS`. Nothing but `seen` and `came_by` changes while it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct NatFlow {
    /// A [`NatSeen`] of the client's packets.
    pub seen: u64,
    /// Backend index.
    pub backend: u32,
    /// Destination port of rewritten packets.
    pub backend_port: [u8; 2],
    /// Source port of rewritten packets.
    pub our_port: [u8; 2],
    /// Source address of rewritten packets: the client's in `dnat`.
    pub our_address: [u8; 16],
    /// By which way the client's last packet came: `source mac:48 | low bits of the interface:16`, the MAC's first byte
    /// lowest. When it changes, the reply's entry is told.
    pub came_by: u64,
}

const _: () = assert!(size_of::<NatFlow>() == 40);

impl NatFlow {
    /// Whether this is the other entry of the flow whose backend's side has this key.
    #[must_use]
    pub fn is_answered_by(&self, key: &NatReplyKey) -> bool {
        let [[a, b], [c, d]] = [self.backend_port, self.our_port];
        self.our_address == key.our_address && [a, b, c, d] == key.ports
    }
}

/// Key of `NAT_REPLIES`: a backend's side of a flow, as its replies have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct NatReplyKey {
    pub backend: [u8; 16],
    /// Where replies go: the load balancer's address, in `dnat` the client's.
    pub our_address: [u8; 16],
    /// Source and destination port of replies, in network order.
    pub ports: [u8; 4],
    pub protocol: u8,
    pub _padding: [u8; 3],
}

const _: () = assert!(size_of::<NatReplyKey>() == 40);

/// Entry of `NAT_REPLIES`. Nothing but `seen` and the way back changes while it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct NatReply {
    /// A [`NatSeen`] of the backend's packets.
    pub seen: u64,
    pub client: [u8; 16],
    /// Source address of rewritten replies.
    pub vip: [u8; 16],
    /// Source and destination port of rewritten replies, in network order: those of [`NatFlowKey`] the other way round.
    pub ports: [u8; 4],
    pub service: u32,
    /// Backend index.
    pub backend: u32,
    /// Interface on which the client's packets come.
    pub ifindex: u32,
    /// Destination MAC address of rewritten replies, first byte lowest: the source of the client's last packet.
    pub next_hop: u64,
    /// Their source MAC address, likewise: the destination of the client's last packet.
    pub source_mac: u64,
}

const _: () = assert!(size_of::<NatReply>() == 72);

impl NatReply {
    /// Key of the flow's other entry.
    #[must_use]
    pub const fn flow_key(&self) -> NatFlowKey {
        let [a, b, c, d] = self.ports;
        NatFlowKey { client: self.client, ports: [c, d, a, b], service: self.service }
    }
}

/// `coarse time:32, bits:32 << 32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct NatSeen(pub u64);

impl NatSeen {
    #[inline(always)]
    pub const fn new(time: u64, bits: u32) -> Self {
        Self((time as u32) as u64 | ((bits as u64) << 32))
    }

    /// Low bits of the coarse time of the last packet.
    #[inline(always)]
    pub const fn time(self) -> u32 {
        self.0 as u32
    }

    /// `NAT_*` bits.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    pub const fn has(self, bit: u32) -> bool {
        self.bits() & bit != 0
    }

    /// Time units since then; a time that seems to lie in the future is now.
    #[inline(always)]
    pub const fn age(self, now: u64) -> u32 {
        let age = (now as u32).wrapping_sub(self.time());
        if age > u32::MAX / 2 { 0 } else { age }
    }
}

/// Somebody is taking the entry away: it counts as gone.
pub const NAT_DEAD: u32 = 1;
/// A second packet came from this side: of a client's TCP flow one that is no SYN. Of the backend's side: any packet.
pub const NAT_CONFIRMED: u32 = 2;
/// A FIN came from this side.
pub const NAT_FIN: u32 = 4;
/// An RST came from this side.
pub const NAT_RST: u32 = 8;

/// Time units after which a flow that never got going, or was ended by both sides or by its backend, may be taken away.
pub const NAT_CLOSED_AGE: u32 = 5;
/// Time units after which a flow that its client reset may be taken away: anybody can send that RST.
pub const NAT_RESET_AGE: u32 = 60;

/// Addresses of a family in [`NatPool`].
pub const NAT_POOL_ADDRESSES: usize = 8;

/// An entry of `NAT_POOL`. It has two, of which `ControlBlock::nat_pool` names the live one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct NatPool {
    /// First and last port, in host order.
    pub first_port: u16,
    pub last_port: u16,
    /// How many of the addresses there are; 0: the source address of the backend's [`super::EgressValue`].
    pub v4_count: u32,
    pub v6_count: u32,
    pub _padding: [u8; 4],
    pub v4: [[u8; 16]; NAT_POOL_ADDRESSES],
    pub v6: [[u8; 16]; NAT_POOL_ADDRESSES],
    pub _padding2: [u64; 6],
}

const _: () = assert!(size_of::<NatPool>() == 320);

/// What `ballast_sweep` finds in the packet of a test run, 72 bytes in memory order: a flow to take away if it is over, or
/// a backend's side that lost its client's. The program answers [`SWEPT`] if it is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct SweepRequest {
    pub flow: NatFlowKey,
    /// Not 0: take it away whether it is over or not.
    pub force: u32,
    /// `SWEEP_*`.
    pub what: u32,
    pub reply: NatReplyKey,
}

const _: () = assert!(size_of::<SweepRequest>() == 72);

/// Both entries of `flow`.
pub const SWEEP_FLOW: u32 = 0;
/// The entry of `reply`, if no client's belongs to it and it is abandoned.
pub const SWEEP_LONE_REPLY: u32 = 1;

/// Return codes of `ballast_sweep`: kept, and taken away (or gone already).
pub const SWEEP_KEPT: u32 = 0;
pub const SWEPT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seen_word_keeps_time_and_bits_and_its_age_survives_the_wrap() {
        let seen = NatSeen::new(0x1_ffff_fffe, NAT_FIN | NAT_DEAD);
        assert_eq!((seen.time(), seen.bits()), (0xffff_fffe, NAT_FIN | NAT_DEAD));
        assert!(seen.has(NAT_FIN) && !seen.has(NAT_RST));
        assert_eq!(seen.age(0x2_0000_0003), 5);
        assert_eq!(seen.age(0x1_ffff_fffd), 0);
    }
}
