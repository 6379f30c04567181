//! IPv6 extension headers (RFC 8200 section 4).

use super::{be16, ne32};

/// Most that are walked, and most bytes of them.
pub const MAX_EXTENSIONS: u32 = 8;
pub const MAX_EXTENSION_BYTES: usize = 512;

/// The shortest extension header; the others are longer by their second byte.
pub const EXTENSION_LEN: usize = 8;

const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;

/// Whether this is an extension header that may stand before the transport header (RFC 8200 section 4, RFC 6275
/// section 6.1, RFC 7401 section 5.1, RFC 5533 section 5.1, RFC 4302). ESP hides what follows it and is none.
#[inline(always)]
pub const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, 0 | ROUTING | FRAGMENT | AUTHENTICATION | 60 | 135 | 139 | 140)
}

/// The beginning of an extension header, and the number that announced it.
#[derive(Clone, Copy)]
pub struct Extension<'a> {
    pub kind: u8,
    pub bytes: &'a [u8; EXTENSION_LEN],
}

impl Extension<'_> {
    /// Of the whole header, in bytes: 8 to 2,048.
    #[inline(always)]
    pub const fn byte_len(self) -> usize {
        let units = self.bytes[1] as usize;
        match self.kind {
            FRAGMENT => EXTENSION_LEN,
            // RFC 4302 section 2.2.
            AUTHENTICATION => (units + 2) * 4,
            _ => (units + 1) * 8,
        }
    }

    #[inline(always)]
    pub const fn next_header(self) -> u8 {
        self.bytes[0]
    }

    /// Whether the IP header's destination is not the packet's last (RFC 8200 section 4.4).
    #[inline(always)]
    pub const fn says_another_destination(self) -> bool {
        self.kind == ROUTING && self.bytes[3] != 0
    }

    #[inline(always)]
    pub const fn is_authentication(self) -> bool {
        self.kind == AUTHENTICATION
    }

    /// A fragment's, first or later, but not that of a packet in one piece.
    #[inline(always)]
    pub const fn is_fragment(self) -> bool {
        self.kind == FRAGMENT && be16(self.bytes, 2) & (OFFSET | MORE_FRAGMENTS) != 0
    }

    /// A later fragment's.
    #[inline(always)]
    pub const fn is_later_fragment(self) -> bool {
        self.kind == FRAGMENT && be16(self.bytes, 2) & OFFSET != 0
    }

    /// Of a fragment header: where its payload stands in that of its packet, in units of eight bytes.
    #[inline(always)]
    pub const fn fragment_offset(self) -> u16 {
        be16(self.bytes, 2) >> 3
    }

    /// Of a fragment header: whether there are fragments behind it.
    #[inline(always)]
    pub const fn has_more_fragments(self) -> bool {
        be16(self.bytes, 2) & MORE_FRAGMENTS != 0
    }

    /// Of a fragment header, in memory order.
    #[inline(always)]
    pub const fn identification(self) -> u32 {
        ne32(self.bytes, 4)
    }
}

const OFFSET: u16 = 0xfff8;
const MORE_FRAGMENTS: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn extension(kind: u8, bytes: &[u8; 8]) -> Extension<'_> {
        Extension { kind, bytes }
    }

    #[test]
    fn lengths_are_in_the_units_of_their_header() {
        for (kind, len) in [(0, 2048), (43, 2048), (60, 2048), (135, 2048), (44, 8), (51, 1028)] {
            assert_eq!(extension(kind, &[6, 255, 0, 0, 0, 0, 0, 0]).byte_len(), len, "{kind}");
        }
    }

    #[test]
    fn only_a_routing_header_with_segments_left_says_another_destination() {
        let bytes = [6, 0, 0, 1, 0, 0, 0, 0];
        assert!(extension(43, &bytes).says_another_destination());
        assert!(!extension(60, &bytes).says_another_destination());
        assert!(!extension(43, &[6, 0, 0, 0, 1, 0, 0, 0]).says_another_destination());
    }

    #[test]
    fn a_fragment_header_tells_the_first_the_later_and_the_only_one_apart() {
        // Offset, two reserved bits, more to follow.
        for (word, is_fragment, is_later) in [
            (0_u16, false, false),
            (0b110, false, false),
            (1, true, false),
            (8, true, true),
            (0xfff9, true, true),
        ] {
            let [high, low] = word.to_be_bytes();
            let bytes = [17, 0, high, low, 0xde, 0xad, 0xbe, 0xef];
            let header = extension(44, &bytes);
            assert_eq!((header.is_fragment(), header.is_later_fragment()), (is_fragment, is_later), "{word}");
            assert_eq!(header.identification().to_ne_bytes(), [0xde, 0xad, 0xbe, 0xef]);
            assert!(!extension(60, &bytes).is_fragment());
        }
    }
}
