//! The answer to a TCP segment that nobody takes (RFC 9293 section 3.10.7.1).

use super::transport::{self, TCP_ACK, TCP_FIN, TCP_HEADER_LEN, TCP_RST, TCP_SYN};

/// What distinguishes one RST from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
}

impl Reset {
    /// To a segment of `len` bytes, header included. `None` if it is an RST itself: those are never answered.
    #[inline(always)]
    pub const fn to(header: &[u8; TCP_HEADER_LEN], len: u32) -> Option<Self> {
        let flags = transport::flags(header);
        if flags & TCP_RST != 0 {
            return None;
        }
        if flags & TCP_ACK != 0 {
            return Some(Self { sequence: word(header, 8), acknowledgement: 0, flags: TCP_RST });
        }
        let header_len = ((header[12] >> 4) as u32) * 4;
        // SYN and FIN take a place in the sequence each.
        let taken = (flags & TCP_SYN != 0) as u32 + (flags & TCP_FIN != 0) as u32;
        let end = word(header, 4).wrapping_add(len.saturating_sub(header_len)).wrapping_add(taken);
        Some(Self { sequence: 0, acknowledgement: end, flags: TCP_RST | TCP_ACK })
    }

    /// The header in words as they lie in memory, its checksum 0. `ports` are the answered segment's, as
    /// [`transport::ports`] reads them.
    #[inline(always)]
    pub const fn header(self, ports: u32) -> [u32; TCP_HEADER_LEN / 4] {
        let rest = u32::from_ne_bytes([((TCP_HEADER_LEN / 4) as u8) << 4, self.flags, 0, 0]);
        [ports.rotate_left(16), self.sequence.to_be(), self.acknowledgement.to_be(), rest, 0]
    }
}

/// Where the checksum stands in the header.
pub const CHECKSUM_AT: usize = 16;

#[inline(always)]
const fn word(header: &[u8; TCP_HEADER_LEN], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: u8 = TCP_SYN;
    const ACK: u8 = TCP_ACK;

    fn segment(sequence: u32, acknowledgement: u32, flags: u8, words: u8) -> [u8; TCP_HEADER_LEN] {
        let mut header = [0; TCP_HEADER_LEN];
        header[..4].copy_from_slice(&[0x04, 0xd2, 0, 80]);
        header[4..8].copy_from_slice(&sequence.to_be_bytes());
        header[8..12].copy_from_slice(&acknowledgement.to_be_bytes());
        (header[12], header[13]) = (words << 4, flags);
        header
    }

    #[test]
    fn a_segment_without_ack_is_acknowledged_as_far_as_it_goes() {
        let to = |header, len| {
            Reset::to(&header, len).map(|reset| (reset.sequence, reset.acknowledgement, reset.flags))
        };
        let rst_ack = TCP_RST | ACK;
        assert_eq!(to(segment(1000, 0, SYN, 5), 20), Some((0, 1001, rst_ack)));
        assert_eq!(to(segment(1000, 7, SYN, 10), 40), Some((0, 1001, rst_ack)));
        assert_eq!(to(segment(1000, 0, SYN | TCP_FIN, 5), 25), Some((0, 1007, rst_ack)));
        assert_eq!(to(segment(u32::MAX, 0, 0, 5), 23), Some((0, 2, rst_ack)));
        // One that says it has a longer header than there is.
        assert_eq!(to(segment(1000, 0, SYN, 15), 20), Some((0, 1001, rst_ack)));
    }

    #[test]
    fn a_segment_with_ack_is_answered_where_its_sender_waits() {
        for flags in [ACK, SYN | ACK, ACK | TCP_FIN] {
            let reset = Reset::to(&segment(1000, 0xdead_beef, flags, 5), 99);
            let expected = Reset { sequence: 0xdead_beef, acknowledgement: 0, flags: TCP_RST };
            assert_eq!(reset, Some(expected), "{flags:#x}");
        }
    }

    #[test]
    fn a_reset_is_never_answered() {
        for flags in [TCP_RST, TCP_RST | ACK, TCP_RST | SYN] {
            assert_eq!(Reset::to(&segment(1, 2, flags, 5), 20), None);
        }
    }

    #[test]
    fn the_header_goes_back_between_the_same_ports() {
        let header = segment(0x0102_0304, 0, SYN, 5);
        let reset = Reset::to(&header, 20).expect("a reset");
        let words = reset.header(transport::ports(&header)).map(u32::to_ne_bytes);
        assert_eq!(words[..2], [[0, 80, 0x04, 0xd2], [0, 0, 0, 0]]);
        assert_eq!(words[2..], [[1, 2, 3, 5], [0x50, 0x14, 0, 0], [0, 0, 0, 0]]);
    }
}
