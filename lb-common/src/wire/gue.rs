//! GUE, variant 1 (draft-ietf-intarea-gue-09, section 4): an IP packet straight behind a UDP header.

use super::transport::UDP_HEADER_LEN;
use crate::abi::GUE_PORT;

/// The UDP header before a packet of `inner_len` bytes, in memory order. Its checksum is 0, as tunnels may (RFC 6935
/// section 5): the inner packet has its own. The source port is of the dynamic range and equal for packets of one flow.
#[inline(always)]
pub const fn udp_header(flow_hash: u32, inner_len: u16) -> u64 {
    let source = FIRST_SOURCE_PORT | flow_hash & SOURCE_PORT_BITS;
    let length = inner_len as u32 + UDP_HEADER_LEN as u32;
    (((source << 16 | GUE_PORT as u32) as u64) << 32 | (length << 16) as u64).to_be()
}

const FIRST_SOURCE_PORT: u32 = 0xc000;
const SOURCE_PORT_BITS: u32 = 0x3fff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_as_on_the_wire() {
        let header = udp_header(0x1234_fabc, 0x1122).to_ne_bytes();
        assert_eq!(header, [0xfa, 0xbc, 0x17, 0xc0, 0x11, 0x2a, 0, 0]);
    }

    #[test]
    fn the_longest_packet_and_the_lowest_port_fit() {
        let header = udp_header(0xffff_c000, u16::MAX - 8).to_ne_bytes();
        assert_eq!(header, [0xc0, 0, 0x17, 0xc0, 0xff, 0xff, 0, 0]);
    }
}
