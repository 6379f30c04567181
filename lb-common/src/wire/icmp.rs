//! ICMP (RFC 792) and ICMPv6 (RFC 4443). A version is that of the IP header around it, 4 or 6.

use super::{be16, be32};

/// Type, code, checksum, and four bytes that depend on the type.
pub const HEADER_LEN: usize = 8;

/// The fixed part of a message.
#[derive(Clone, Copy)]
pub struct Icmp<'a> {
    pub version: u8,
    pub bytes: &'a [u8; HEADER_LEN],
}

impl Icmp<'_> {
    #[inline(always)]
    pub const fn is_echo_request(self) -> bool {
        self.bytes[1] == 0 && self.bytes[0] == if self.version == 4 { 8 } else { 128 }
    }

    /// An error about a packet, which is quoted behind the header: destination unreachable, time exceeded, parameter
    /// problem, and packet too big (which in IPv4 is a code of the first).
    #[inline(always)]
    pub const fn is_error(self) -> bool {
        let kind = self.bytes[0];
        if self.version == 4 { kind == 3 || kind == 11 || kind == 12 } else { kind >= 1 && kind <= 4 }
    }

    /// What "too big" says would have fitted (RFC 1191 section 4, RFC 4443 section 3.2). Of a router that does not know:
    /// 0. `None` in any other message.
    #[inline(always)]
    pub const fn mtu(self) -> Option<u32> {
        match (self.version, self.bytes[0], self.bytes[1]) {
            (4, 3, 4) => Some(be16(self.bytes, 6) as u32),
            (6, 2, _) => Some(be32(self.bytes, 4)),
            _ => None,
        }
    }
}

/// The type of an echo reply.
#[inline(always)]
pub const fn echo_reply(version: u8) -> u8 {
    if version == 4 { 0 } else { 129 }
}

/// What a sender is told of its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    TimeExceeded,
    /// With the size that would have fitted, in bytes.
    TooBig(u32),
    /// The host, or the address.
    Unreachable,
    PortUnreachable,
}

impl Message {
    /// Type, code and the four bytes behind the checksum, the first byte highest; the checksum is zero.
    #[inline(always)]
    pub const fn header(self, version: u8) -> u64 {
        let (kind, code, rest) = match (version, self) {
            (4, Self::TimeExceeded) => (11, 0, 0),
            (4, Self::TooBig(mtu)) if mtu > u16::MAX as u32 => (3, 4, u16::MAX as u32),
            (4, Self::TooBig(mtu)) => (3, 4, mtu),
            (4, Self::Unreachable) => (3, 1, 0),
            (4, Self::PortUnreachable) => (3, 3, 0),
            (_, Self::TimeExceeded) => (3, 0, 0),
            (_, Self::TooBig(mtu)) if mtu < LEAST_MTU_V6 => (2, 0, LEAST_MTU_V6),
            (_, Self::TooBig(mtu)) => (2, 0, mtu),
            (_, Self::Unreachable) => (1, 3, 0),
            (_, Self::PortUnreachable) => (1, 4, 0),
        };
        (kind << 56) | (code << 48) | rest as u64
    }
}

/// What every IPv6 link takes (RFC 8200 section 5).
const LEAST_MTU_V6: u32 = 1280;

/// Bytes that an error quotes of a packet of which `available` are there: as many as fit what everybody can receive
/// (RFC 1812 section 4.3.2.3: 576 with both headers; RFC 4443 section 2.4 c: 1280), and whole words, for the checksum.
#[inline(always)]
pub const fn quoted_len(version: u8, available: u32) -> u32 {
    let most = if version == 4 { 548 } else { 1232 };
    (if available < most { available } else { most }) & !3
}

/// Whether an IPv4 address, in memory order, can be a single host's, whom one can answer (RFC 1122 section 3.2.2): none
/// of 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3.
#[inline(always)]
pub const fn is_hosts_v4(address: u32) -> bool {
    let [first, ..] = address.to_ne_bytes();
    first != 0 && first != 127 && first < 224
}

/// The same of an IPv6 address (RFC 4443 section 2.4 e.6): neither `::` nor `::1` nor multicast.
#[inline(always)]
pub const fn is_hosts_v6([high, low]: [u64; 2]) -> bool {
    let is_special = high == 0 && u64::from_be(low) <= 1;
    let is_multicast = u64::from_be(high) >> 56 == 0xff;
    !is_special && !is_multicast
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: u8, message: Message) -> [u8; 8] {
        message.header(version).to_be_bytes()
    }

    #[test]
    fn a_message_has_the_numbers_of_its_version() {
        assert_eq!(header(4, Message::TimeExceeded), [11, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(header(4, Message::TooBig(1480)), [3, 4, 0, 0, 0, 0, 5, 0xc8]);
        assert_eq!(header(4, Message::TooBig(0x1_0000)), [3, 4, 0, 0, 0, 0, 0xff, 0xff]);
        assert_eq!(header(4, Message::Unreachable), [3, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(header(4, Message::PortUnreachable), [3, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(header(6, Message::PortUnreachable), [1, 4, 0, 0, 0, 0, 0, 0]);
        assert_eq!(header(6, Message::TimeExceeded), [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(header(6, Message::TooBig(0x1_0000)), [2, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(header(6, Message::TooBig(1279)), [2, 0, 0, 0, 0, 0, 5, 0]);
        assert_eq!(header(6, Message::Unreachable), [1, 3, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn every_message_that_is_made_is_an_error_and_only_too_big_has_an_mtu() {
        for version in [4, 6] {
            for (message, mtu) in [
                (Message::TimeExceeded, None),
                (Message::TooBig(1400), Some(1400)),
                (Message::Unreachable, None),
                (Message::PortUnreachable, None),
            ] {
                let bytes = header(version, message);
                let icmp = Icmp { version, bytes: &bytes };
                assert!(icmp.is_error() && !icmp.is_echo_request(), "{version} {message:?}");
                assert_eq!(icmp.mtu(), mtu, "{version} {message:?}");
            }
        }
    }

    #[test]
    fn an_echo_request_is_that_of_its_version_and_has_no_code() {
        for (version, kind, code, wanted) in
            [(4, 8, 0, true), (4, 8, 1, false), (4, 128, 0, false), (6, 128, 0, true), (6, 8, 0, false)]
        {
            let bytes = [kind, code, 0, 0, 0, 0, 0, 0];
            assert_eq!(Icmp { version, bytes: &bytes }.is_echo_request(), wanted, "{version} {kind} {code}");
        }
    }

    #[test]
    fn a_quote_is_whole_words_and_fits_what_everybody_receives() {
        for (version, available, wanted) in
            [(4, 547, 544), (4, 548, 548), (4, 9000, 548), (6, 1233, 1232), (6, 47, 44), (4, 3, 0)]
        {
            assert_eq!(quoted_len(version, available), wanted, "{version} {available}");
        }
    }

    #[test]
    fn only_single_hosts_are_told() {
        let v4 = |bytes| is_hosts_v4(u32::from_ne_bytes(bytes));
        for told in [[1, 0, 0, 0], [126, 0, 0, 1], [128, 0, 0, 1], [223, 255, 255, 255]] {
            assert!(v4(told), "{told:?}");
        }
        for untold in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
            assert!(!v4(untold), "{untold:?}");
        }
        let v6 = |words: [u64; 2]| is_hosts_v6(words.map(u64::to_be));
        for told in [[0x2001_0db8 << 32, 0], [0xfe80 << 48, 1], [0, 2], [1, 0], [1, 1]] {
            assert!(v6(told), "{told:x?}");
        }
        for untold in [[0, 0], [0, 1], [0xff02 << 48, 1]] {
            assert!(!v6(untold), "{untold:x?}");
        }
    }
}
