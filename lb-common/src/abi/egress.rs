//! Ways out of the host.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One entry of `EGRESS`. An entry never changes while a next hop names it: a new MAC, MTU or source address is a new
/// entry, and the next-hop words move over one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct EgressValue {
    pub source_mac: [u8; 6],
    pub _padding: [u8; 2],
    /// Kernel's interface index; 0 in an unused entry.
    pub ifindex: u32,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Source address of outer headers: IPv6, or IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    pub _reserved: [u8; 32],
}

const _: () = assert!(size_of::<EgressValue>() == 64);
