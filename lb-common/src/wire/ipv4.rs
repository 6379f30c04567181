//! IPv4 (RFC 791).

use super::{be16, ne16, ne32};
use crate::checksum;

/// Length without options.
pub const HEADER_LEN: usize = 20;

/// Where the flag stands in its 16 bits.
pub const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// The fixed part of a header.
#[derive(Clone, Copy)]
pub struct Ipv4<'a>(pub &'a [u8; HEADER_LEN]);

impl Ipv4<'_> {
    #[inline(always)]
    pub const fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// Header length in bytes, options included: 0 to 60, sensible from 20.
    #[inline(always)]
    pub const fn header_len(self) -> usize {
        ((self.0[0] & 0xf) << 2) as usize
    }

    /// DSCP and ECN.
    #[inline(always)]
    pub const fn traffic_class(self) -> u8 {
        self.0[1]
    }

    /// Header and payload in bytes.
    #[inline(always)]
    pub const fn total_len(self) -> u16 {
        be16(self.0, 2)
    }

    #[inline(always)]
    pub const fn identification(self) -> u16 {
        be16(self.0, 4)
    }

    /// [`DONT_FRAGMENT`] or 0.
    #[inline(always)]
    pub const fn dont_fragment(self) -> u16 {
        be16(self.0, 6) & DONT_FRAGMENT
    }

    /// Where a fragment's payload stands in that of its packet, in units of eight bytes.
    #[inline(always)]
    pub const fn fragment_offset(self) -> u16 {
        be16(self.0, 6) & OFFSET
    }

    /// Whether there are fragments behind it.
    #[inline(always)]
    pub const fn has_more_fragments(self) -> bool {
        be16(self.0, 6) & MORE_FRAGMENTS != 0
    }

    /// A first fragment or a later one.
    #[inline(always)]
    pub const fn is_fragment(self) -> bool {
        be16(self.0, 6) & (MORE_FRAGMENTS | OFFSET) != 0
    }

    /// A fragment without the transport header.
    #[inline(always)]
    pub const fn is_later_fragment(self) -> bool {
        be16(self.0, 6) & OFFSET != 0
    }

    #[inline(always)]
    pub const fn ttl(self) -> u8 {
        self.0[8]
    }

    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        self.0[9]
    }

    #[inline(always)]
    pub const fn source(self) -> u32 {
        ne32(self.0, 12)
    }

    #[inline(always)]
    pub const fn destination(self) -> u32 {
        ne32(self.0, 16)
    }
}

/// Takes one from the TTL and mends the checksum. The TTL must not be 0.
#[inline(always)]
pub fn decrement_ttl(header: &mut [u8; HEADER_LEN]) {
    header[8] = header[8].wrapping_sub(1);
    let [high, low] = checksum::add_to(ne16(header, 10), 0x0100).to_ne_bytes();
    header[10] = high;
    header[11] = low;
}

/// What varies between outer headers.
#[derive(Clone, Copy)]
pub struct Outer {
    pub traffic_class: u8,
    /// Of the whole packet, this header included.
    pub total_len: u16,
    pub identification: u16,
    /// As [`Ipv4::dont_fragment`].
    pub dont_fragment: u16,
    /// Of what is inside.
    pub protocol: u8,
    /// In memory order, as is the destination.
    pub source: u32,
    pub destination: u32,
}

/// The header of a tunnel (RFC 2003 section 3.1), as words in memory order.
#[inline(always)]
pub fn outer_header(outer: Outer) -> [u32; HEADER_LEN / 4] {
    let mut header = [
        word([0x45, outer.traffic_class], outer.total_len.to_be()),
        word(outer.identification.to_be().to_ne_bytes(), outer.dont_fragment.to_be()),
        word([TTL, outer.protocol], 0),
        outer.source,
        outer.destination,
    ];
    header[2] = word([TTL, outer.protocol], checksum::ipv4_header(header));
    header
}

/// Two bytes, and two more that are in memory order already.
#[inline(always)]
const fn word(first: [u8; 2], rest: u16) -> u32 {
    // Shifts, which compilers for BPF handle better than bytes.
    (u16::from_le_bytes(first) as u32 | (u16::from_le(rest) as u32) << 16).to_le()
}

const TTL: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{abi::PROTOCOL_UDP, wire::PROTOCOL_IPV4};

    #[test]
    fn an_outer_header_is_as_on_the_wire() {
        let outer = Outer {
            traffic_class: 0xb9,
            total_len: 0x0554,
            identification: 0x1c46,
            dont_fragment: DONT_FRAGMENT,
            protocol: PROTOCOL_IPV4,
            source: u32::from_ne_bytes([192, 0, 2, 1]),
            destination: u32::from_ne_bytes([10, 1, 2, 3]),
        };
        let wanted = |protocol, [high, low]: [u8; 2]| {
            [0x45, 0xb9, 0x05, 0x54, 0x1c, 0x46, 0x40, 0, 64, protocol, high, low, 192, 0, 2, 1, 10, 1, 2, 3]
        };
        assert_eq!(bytes(outer), wanted(4, checksum_of(wanted(4, [0, 0]))));
        let outer = Outer { protocol: PROTOCOL_UDP, dont_fragment: 0, ..outer };
        assert_eq!(bytes(outer)[6..10], [0, 0, 64, 17]);
        assert_eq!(checksum_of(bytes(outer)), [0, 0], "a header sums up to nothing");
    }

    fn bytes(outer: Outer) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(outer_header(outer)) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn checksum_of(header: [u8; HEADER_LEN]) -> [u8; 2] {
        let words = header.chunks_exact(2).map(|pair| u32::from(be16(&[pair[0], pair[1]], 0)));
        let sum = words.sum::<u32>();
        (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
    }
}
