//! The frame that leaves.

use std::net::IpAddr;

use super::headers::{Headers, checksum, ones_complement};
use super::state::Egress;

/// `frame` with new MAC addresses.
pub(super) fn macs(frame: &[u8], destination: [u8; 6], source: [u8; 6]) -> Vec<u8> {
    [&destination[..], &source, &frame[12..]].concat()
}

/// `frame` with its IP packet inside another of the same family (RFC 2003, RFC 2473). What stands before the IP
/// header, and any padding behind the packet, stays.
pub(super) fn tunnel(frame: &[u8], headers: &Headers, egress: &Egress, to: IpAddr, hash: u64) -> Vec<u8> {
    let (before, packet) = frame.split_at(headers.l3);
    let mut inner = packet.to_vec();
    let outer = match headers.v4 {
        Some((identification, dont_fragment)) => {
            decrement_ttl(&mut inner);
            outer_v4(headers, identification, dont_fragment, low_v4(egress.source), low_v4(to))
        }
        None => {
            inner[7] -= 1;
            outer_v6(headers, hash, mapped(egress.source), mapped(to))
        }
    };
    [before, &outer, &inner].concat()
}

/// RFC 1141 and RFC 1624: the checksum is updated, not made anew, so that a header which arrived damaged leaves
/// damaged. HC' = ~(~HC + ~m + m'), in one's-complement arithmetic.
fn decrement_ttl(header: &mut [u8]) {
    let word = |header: &[u8], at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (old_sum, old) = (word(header, 10), word(header, 8));
    header[8] -= 1;
    let new = word(header, 8);
    let sum = !ones_complement(u64::from(!old_sum) + u64::from(!old) + u64::from(new));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn outer_v4(
    headers: &Headers,
    identification: u16,
    dont_fragment: bool,
    from: [u8; 4],
    to: [u8; 4],
) -> Vec<u8> {
    let mut header = vec![0x45, headers.traffic_class];
    header.extend((headers.ip_len as u16 + 20).to_be_bytes());
    header.extend(identification.to_be_bytes());
    header.extend(if dont_fragment { [0x40, 0] } else { [0, 0] });
    // TTL, protocol, and the checksum's place.
    header.extend([64, 4, 0, 0]);
    header.extend(from);
    header.extend(to);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn outer_v6(headers: &Headers, hash: u64, from: [u8; 16], to: [u8; 16]) -> Vec<u8> {
    let flow_label = hash % (1 << 20);
    let first = 0x6000_0000 | u32::from(headers.traffic_class) << 20 | flow_label as u32;
    let mut header = first.to_be_bytes().to_vec();
    header.extend((headers.ip_len as u16).to_be_bytes());
    // Next header, hop limit.
    header.extend([41, 64]);
    header.extend(from);
    header.extend(to);
    header
}

/// Addresses as the maps have them: 16 bytes, IPv4 in the last four.
fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn low_v4(address: IpAddr) -> [u8; 4] {
    let [.., a, b, c, d] = mapped(address);
    [a, b, c, d]
}
