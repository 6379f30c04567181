//! IPv4 (RFC 791).

use super::{be16, ne32};
use crate::checksum;

/// Length without options.
pub const HEADER_LEN: usize = 20;

const DONT_FRAGMENT: u16 = 0x4000;
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

    #[inline(always)]
    pub const fn dont_fragment(self) -> bool {
        be16(self.0, 6) & DONT_FRAGMENT != 0
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
    let (ttl, protocol) = (header[8], header[9]);
    let fixed =
        checksum::replace_word([header[10], header[11]], [ttl, protocol], [ttl.wrapping_sub(1), protocol]);
    header[8] = ttl.wrapping_sub(1);
    header[10] = fixed[0];
    header[11] = fixed[1];
}

/// What varies between outer headers.
#[derive(Clone, Copy)]
pub struct Outer {
    pub traffic_class: u8,
    /// Of the whole packet, this header included.
    pub total_len: u16,
    pub identification: u16,
    pub dont_fragment: bool,
    pub source: [u8; 4],
    pub destination: [u8; 4],
}

/// An IPv4-in-IPv4 header (RFC 2003 section 3.1).
#[inline(always)]
pub fn outer_header(outer: Outer) -> [u8; HEADER_LEN] {
    let [len_0, len_1] = outer.total_len.to_be_bytes();
    let [id_0, id_1] = outer.identification.to_be_bytes();
    let [s0, s1, s2, s3] = outer.source;
    let [d0, d1, d2, d3] = outer.destination;
    let flags = if outer.dont_fragment { 0x40 } else { 0 };
    let mut header = [
        0x45,
        outer.traffic_class,
        len_0,
        len_1,
        id_0,
        id_1,
        flags,
        0,
        TTL,
        PROTOCOL_IPIP,
        0,
        0,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ];
    let sum = checksum::ipv4_header(&header);
    header[10] = sum[0];
    header[11] = sum[1];
    header
}

const TTL: u8 = 64;
const PROTOCOL_IPIP: u8 = 4;
