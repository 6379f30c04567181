//! TCP (RFC 9293) and UDP (RFC 768), as far as a load balancer looks.

use super::ne32;
use crate::flow::Kind;

pub const TCP_HEADER_LEN: usize = 20;
pub const UDP_HEADER_LEN: usize = 8;

pub const TCP_FIN: u8 = 0x01;
pub const TCP_SYN: u8 = 0x02;
pub const TCP_RST: u8 = 0x04;
pub const TCP_ACK: u8 = 0x10;

/// Source and destination port, four bytes in memory order. Both protocols begin with them.
#[inline(always)]
pub const fn ports<const N: usize>(header: &[u8; N]) -> u32 {
    ne32(header, 0)
}

/// The destination port's two bytes in network order, from [`ports`].
#[inline(always)]
pub const fn destination_port(ports: u32) -> [u8; 2] {
    let bytes = ports.to_ne_bytes();
    [bytes[2], bytes[3]]
}

/// The flags of a TCP header.
#[inline(always)]
pub const fn flags(header: &[u8; TCP_HEADER_LEN]) -> u8 {
    header[13]
}

/// A SYN without ACK, FIN and RST: the first packet of a connection, or its retransmission.
#[inline(always)]
pub const fn opens_connection(flags: u8) -> bool {
    flags & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST) == TCP_SYN
}

/// What a TCP segment means to its flow.
#[inline(always)]
pub const fn segment(flags: u8) -> Kind {
    if flags & TCP_RST != 0 {
        Kind::Observes
    } else if opens_connection(flags) {
        Kind::Opens
    } else if flags & TCP_FIN != 0 {
        Kind::Closes
    } else {
        Kind::Continues
    }
}
