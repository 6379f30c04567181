//! IPv6 (RFC 8200).

use super::{be16, ne64};

pub const HEADER_LEN: usize = 40;

/// The fixed header.
#[derive(Clone, Copy)]
pub struct Ipv6<'a>(pub &'a [u8; HEADER_LEN]);

impl Ipv6<'_> {
    #[inline(always)]
    pub const fn version(self) -> u8 {
        self.0[0] >> 4
    }

    #[inline(always)]
    pub const fn traffic_class(self) -> u8 {
        (self.0[0] << 4) | (self.0[1] >> 4)
    }

    /// Bytes after this header, extension headers included.
    #[inline(always)]
    pub const fn payload_len(self) -> u16 {
        be16(self.0, 4)
    }

    #[inline(always)]
    pub const fn next_header(self) -> u8 {
        self.0[6]
    }

    #[inline(always)]
    pub const fn hop_limit(self) -> u8 {
        self.0[7]
    }

    #[inline(always)]
    pub const fn source(self) -> [u64; 2] {
        [ne64(self.0, 8), ne64(self.0, 16)]
    }

    #[inline(always)]
    pub const fn destination(self) -> [u64; 2] {
        [ne64(self.0, 24), ne64(self.0, 32)]
    }
}

/// The header of a tunnel (RFC 2473 section 5.1) without its addresses, which are its last 32 bytes: a word in memory
/// order. `flow_label` has 20 bits (RFC 6438): equal for packets of one flow.
#[inline(always)]
pub const fn outer_head(traffic_class: u8, flow_label: u32, payload_len: u16, next_header: u8) -> u64 {
    let first = (6 << 28) | ((traffic_class as u32) << 20) | (flow_label & 0xf_ffff);
    let rest = ((payload_len as u32) << 16) | ((next_header as u32) << 8) | HOP_LIMIT as u32;
    (((first as u64) << 32) | rest as u64).to_be()
}

const HOP_LIMIT: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_an_outer_header_is_as_on_the_wire() {
        let head = outer_head(0xb9, 0xfff5_4321, 0x0554, 17).to_ne_bytes();
        assert_eq!(head, [0x6b, 0x95, 0x43, 0x21, 0x05, 0x54, 17, 64]);
    }
}
