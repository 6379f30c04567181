//! Fragments: what the first one says about the others.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of `FRAGMENTS` (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct FragmentKey {
    /// IPv6, or IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    /// As on the wire: IPv4's two bytes come first and zeros follow.
    pub identification: [u8; 4],
    /// Of the transport header. 0 in IPv6, where the pair of addresses and the identification suffice.
    pub protocol: u8,
    pub _padding: [u8; 3],
}

const _: () = assert!(size_of::<FragmentKey>() == 40);

/// Entry of `FRAGMENTS`: where the first fragment went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct FragmentFate {
    /// Coarse time of the first fragment, low bits.
    pub seen: u32,
    /// `FATE_*`.
    pub kind: u8,
    /// `FORWARDING_*` of the service.
    pub forwarding: u8,
    /// Not 0: the addresses below replace the packet's.
    pub translated: u8,
    pub _padding: u8,
    pub service: u32,
    /// Backend index.
    pub backend: u32,
    /// The flow's hash: entropy of outer headers.
    pub hash: u64,
    /// New addresses, where `translated` says so.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    /// New identification, where `translated` says so: IPv4's in its first two bytes.
    pub identification: [u8; 4],
    /// Of a reply: the client's interface, and the MAC addresses, as in `NatReply`.
    pub ifindex: u32,
    pub next_hop: u64,
    pub source_mac: u64,
    /// Of a reply, two's complement: less the bytes of its payload that have come, plus all of them once the last one has
    /// said how many that is. With 0 the packet is complete and the note ends.
    pub missing: u64,
}

const _: () = assert!(size_of::<FragmentFate>() == 88);

impl FragmentFate {
    /// Whether the others find it at coarse time `now`. A time that seems to lie in the future is now.
    #[inline(always)]
    pub const fn is_recent(&self, now: u64) -> bool {
        let allowed = if self.kind == FATE_REPLY { REPLY_FRAGMENT_AGE } else { FRAGMENT_AGE };
        let age = (now as u32).wrapping_sub(self.seen);
        age <= allowed || age > u32::MAX / 2
    }
}

/// The first fragment was the host's.
pub const FATE_PASS: u8 = 1;
/// It went to a backend.
pub const FATE_FORWARD: u8 = 2;
/// It was a reply through NAT and went to a client.
pub const FATE_REPLY: u8 = 3;

/// Time units for which the others find it.
pub const FRAGMENT_AGE: u32 = 5;
/// The same of replies, whose 16 bits of identification a backend uses for all clients of one of our addresses: as long as
/// a train of fragments takes from next door.
pub const REPLY_FRAGMENT_AGE: u32 = 1;

/// Packets whose fragments may be under way at once; the oldest are forgotten first.
pub const FRAGMENT_ENTRIES: u32 = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_found_for_its_time_and_across_the_wrap_of_the_clock() {
        let fate = FragmentFate { seen: 0xffff_fffe, ..FragmentFate::default() };
        for (now, wanted) in [
            (0xffff_fffd_u64, true),
            (0xffff_fffe, true),
            (0x1_0000_0003, true),
            (0x1_0000_0004, false),
            (0x1_7000_0000, false),
        ] {
            assert_eq!(fate.is_recent(now), wanted, "{now:#x}");
        }
        let reply = FragmentFate { kind: FATE_REPLY, ..fate };
        for (now, wanted) in [(0xffff_fffd_u64, true), (0xffff_ffff, true), (0x1_0000_0000, false)] {
            assert_eq!(reply.is_recent(now), wanted, "a reply's at {now:#x}");
        }
    }
}
