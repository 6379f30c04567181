//! The questions, byte by byte. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::{
    abi::{GUE_PORT, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP},
    checksum,
    wire::{
        PROTOCOL_IPV4, PROTOCOL_IPV6,
        ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    },
};

use crate::domain::Forwarding;

/// From this host to a neighbour, and inside what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) interface: u32,
    pub(crate) from: [u8; 6],
    pub(crate) to: [u8; 6],
    /// Addresses of an outer header, and what follows it.
    pub(crate) outer: Option<(IpAddr, IpAddr, Forwarding)>,
}

/// What lies behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// `size`: of the whole IP packet.
    Echo {
        id: u16,
        sequence: u16,
        size: usize,
    },
    Syn {
        from: u16,
        to: u16,
        sequence: u32,
    },
    /// Takes a SYN back.
    Reset {
        from: u16,
        to: u16,
        sequence: u32,
    },
}

impl Path {
    /// A frame that can be recognised by `token` where an ICMP error quotes its first header.
    pub(crate) fn frame(&self, token: u16, from: IpAddr, to: IpAddr, segment: Segment) -> Vec<u8> {
        let inner = packet(token, from, to, segment);
        let packet = match self.outer {
            None => inner,
            Some((source, destination, Forwarding::Gue)) => {
                let udp = udp(GUE_PORT, &inner);
                ip(token, source, destination, PROTOCOL_UDP, &udp)
            }
            Some((source, destination, _)) => {
                let kind = if from.is_ipv4() { PROTOCOL_IPV4 } else { PROTOCOL_IPV6 };
                ip(token, source, destination, kind, &inner)
            }
        };
        let kind = if is_v4(&packet) { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        ethernet(self.to, self.from, kind, &packet)
    }
}

/// Who holds an IPv4 address? Without an address of its own to ask from, so that nobody learns anything (RFC 5227).
pub(crate) fn arp_probe(from: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    // Ethernet, IPv4, their lengths, request.
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend(from);
    arp.extend([0; 4]);
    arp.extend([0; 6]);
    arp.extend(address.octets());
    ethernet([0xff; 6], from, ETHERTYPE_ARP, &arp)
}

/// Who holds an IPv6 address? From the unspecified address, as duplicate address detection asks (RFC 4862 section 5.4).
pub(crate) fn neighbour_probe(from: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = address.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut message = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(address.octets());
    let sum =
        checksum_with_pseudo_header(Ipv6Addr::UNSPECIFIED.into(), group.into(), PROTOCOL_ICMPV6, &message);
    message[2..4].copy_from_slice(&sum);
    let mut packet = ip(0, Ipv6Addr::UNSPECIFIED.into(), group.into(), PROTOCOL_ICMPV6, &message);
    // A router's hop would show in it (RFC 4861 section 7.1.1).
    packet[7] = 255;
    ethernet([0x33, 0x33, 0xff, a, b, c], from, ETHERTYPE_IPV6, &packet)
}

/// Bytes of the outer header of a forwarding mode, over the backend's family.
pub(crate) fn overhead(forwarding: Forwarding, backend: IpAddr) -> u32 {
    let ip = if backend.is_ipv4() { 20 } else { 40 };
    match forwarding {
        Forwarding::Ipip => ip,
        Forwarding::Gue => ip + 8,
        Forwarding::L2Dsr | Forwarding::Dnat | Forwarding::Nat => 0,
    }
}

fn packet(token: u16, from: IpAddr, to: IpAddr, segment: Segment) -> Vec<u8> {
    let v4 = from.is_ipv4();
    match segment {
        Segment::Echo { id, sequence, size } => {
            let header = if v4 { 20 } else { 40 };
            let mut message = vec![if v4 { ECHO } else { ECHO_V6 }, 0, 0, 0];
            message.extend(id.to_be_bytes());
            message.extend(sequence.to_be_bytes());
            message.resize(size.saturating_sub(header).max(message.len()), 0xba);
            let sum = match v4 {
                true => checksum::of(checksum::sum(&message)).to_ne_bytes(),
                false => checksum_with_pseudo_header(from, to, PROTOCOL_ICMPV6, &message),
            };
            message[2..4].copy_from_slice(&sum);
            ip(token, from, to, if v4 { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 }, &message)
        }
        Segment::Syn { from: source, to: destination, sequence } => {
            ip(token, from, to, PROTOCOL_TCP, &tcp((from, source), (to, destination), sequence, SYN))
        }
        Segment::Reset { from: source, to: destination, sequence } => {
            ip(token, from, to, PROTOCOL_TCP, &tcp((from, source), (to, destination), sequence, RST))
        }
    }
}

fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), sequence: u32, flags: u8) -> Vec<u8> {
    let mut segment = from.1.to_be_bytes().to_vec();
    segment.extend(to.1.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend([0; 4]);
    // Five words of header, and a window.
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = checksum_with_pseudo_header(from.0, to.0, PROTOCOL_TCP, &segment);
    segment[16..18].copy_from_slice(&sum);
    segment
}

/// Without a checksum, as the data plane sends GUE.
fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = port.to_be_bytes().to_vec();
    datagram.extend(port.to_be_bytes());
    datagram.extend(length_of(8 + payload.len()));
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// An IP packet that must not be fragmented.
fn ip(token: u16, from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend(length_of(20 + payload.len()));
            header.extend(token.to_be_bytes());
            header.extend([0x40, 0, HOPS, protocol, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum::of(checksum::sum(&header)).to_ne_bytes();
            header[10..12].copy_from_slice(&sum);
            header
        }
        _ => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            // The token is the flow label.
            let [high, low] = token.to_be_bytes();
            let mut header = vec![0x60, 0, high, low];
            header.extend(length_of(payload.len()));
            header.extend([protocol, HOPS]);
            header.extend(octets(from));
            header.extend(octets(to));
            header
        }
    };
    packet.extend(payload);
    packet
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend(from);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

fn is_v4(packet: &[u8]) -> bool {
    packet.first().is_some_and(|byte| byte >> 4 == 4)
}

/// Nothing here is longer than an Ethernet frame.
fn length_of(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

fn checksum_with_pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, message: &[u8]) -> [u8; 2] {
    let mut pseudo = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => pseudo.extend(address.octets()),
            IpAddr::V6(address) => pseudo.extend(address.octets()),
        }
    }
    pseudo.extend([0, protocol]);
    pseudo.extend(length_of(message.len()));
    checksum::of(checksum::sum(&pseudo) + checksum::sum(message)).to_ne_bytes()
}

pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
const ECHO: u8 = 8;
const ECHO_V6: u8 = 128;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const HOPS: u8 = 64;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip_of(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn outer_headers_are_as_long_as_they_are_said_to_be() {
        let (v4, v6) = (ip_of("10.0.0.1"), ip_of("fd00::1"));
        let path = |outer| Path { interface: 1, from: [2; 6], to: [4; 6], outer };
        let echo = |size| Segment::Echo { id: 1, sequence: 2, size };
        for inner in [v4, v6] {
            let plain = path(None).frame(7, inner, inner, echo(1400)).len();
            assert_eq!(plain, 1414);
            for outer in [v4, v6] {
                for forwarding in [Forwarding::Ipip, Forwarding::Gue] {
                    let frame = path(Some((outer, outer, forwarding))).frame(7, inner, inner, echo(1400));
                    assert_eq!(frame.len() as u32, 1414 + overhead(forwarding, outer));
                }
            }
        }
    }
}
