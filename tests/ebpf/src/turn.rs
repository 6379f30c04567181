//! What the entry programs are told; the benchmark includes this file as well.

/// The only entry of the map `TURN`. Words of a packet are in memory order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Turn {
    /// Number of the next packet.
    pub(super) packet: u64,
    /// Flows less one: a power of two less one.
    pub(super) flow_mask: u64,
    /// Length of the frame that the program under test is to get.
    pub(super) frame_len: u64,
    /// The destination address, in its first half for IPv4; and the first half of an IPv6 source.
    pub(super) destination: [u64; 2],
    pub(super) source_high: u64,
    /// The frame's first eight bytes.
    pub(super) macs: u64,
    /// The four bytes after them.
    pub(super) macs_rest: u32,
    /// EtherType.
    pub(super) ethertype: u16,
    /// TTL and protocol, or next header and hop limit.
    pub(super) ttl: u16,
    /// IPv4's header checksum. It does not follow the source address: nothing on the way reads it.
    pub(super) checksum: u16,
    pub(super) destination_port: u16,
    /// By how much the program under test makes a frame longer.
    pub(super) outer_len: i32,
}

impl Turn {
    /// The flow of a packet by its number. The factor is odd, so this goes through all numbers below a power of two, in no
    /// order that a prefetcher knows.
    #[inline(always)]
    pub(super) const fn flow(&self, number: u64) -> u64 {
        number.wrapping_mul(0x9e37_79b1) & self.flow_mask
    }
}

/// Flows that there are replies of at most.
pub(super) const FLOWS: u32 = 1 << 16;

/// An entry of the map `REPLIES`. As on the wire, in memory order; an IPv4 address is the first half of a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Reply {
    pub(super) source: [u64; 2],
    pub(super) destination: [u64; 2],
    pub(super) ports: u32,
    pub(super) _padding: [u32; 7],
}
