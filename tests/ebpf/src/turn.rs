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
