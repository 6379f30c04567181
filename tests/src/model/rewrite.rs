//! The frame that leaves.

use std::net::IpAddr;

use super::forward::{Carried, Road};
use super::fragment::NewEndpoints;
use super::headers::Headers;
use super::service::{Forwarding, Protocol, mapped};
use super::sums::{checksum, mend_at, mend_udp_at};
use super::work::octets;

/// `frame` with new MAC addresses.
pub(super) fn macs(frame: &[u8], destination: [u8; 6], source: [u8; 6]) -> Vec<u8> {
    [&destination[..], &source, &frame[12..]].concat()
}

/// Length of an outer header to this address.
pub(super) const fn ip_header_len(to: IpAddr) -> usize {
    if to.is_ipv4() { 20 } else { 40 }
}

/// `frame` with its IP packet inside another (RFC 2003, RFC 2473, RFC 4213), and that in UDP for `gue`
/// (draft-ietf-intarea-gue, variant 1). Tags, and any padding behind the packet, stay.
pub(super) fn tunnel(frame: &[u8], headers: &Headers, road: &Road, carried: &Carried) -> Vec<u8> {
    let (before, packet) = frame.split_at(headers.l3);
    let mut inner = packet.to_vec();
    decrement_ttl(&mut inner);
    let mut carrier = Vec::new();
    let mut protocol = if headers.v4.is_some() { 4 } else { 41 };
    if carried.forwarding == Forwarding::Gue {
        let port = 0xc000 | (carried.entropy % (1 << 14)) as u16;
        carrier.extend(port.to_be_bytes());
        carrier.extend(6080_u16.to_be_bytes());
        carrier.extend((8 + headers.ip_len as u16).to_be_bytes());
        carrier.extend([0, 0]);
        protocol = 17;
    }
    let len = (headers.ip_len + carrier.len()) as u16;
    let from = road.egress.source;
    let (ethertype, outer) = match road.backend.address {
        IpAddr::V4(_) => ([0x08, 0x00], outer_v4(headers, len, protocol, from, road.backend.address)),
        IpAddr::V6(_) => {
            ([0x86, 0xdd], outer_v6(headers, len, protocol, carried.entropy, from, road.backend.address))
        }
    };
    [&before[..headers.l3 - 2], &ethertype, &outer, &carrier, &inner].concat()
}

/// One hop less, in a packet of either family.
pub(super) fn decrement_ttl(packet: &mut [u8]) {
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
        return;
    }
    let old = [packet[8], packet[9]];
    packet[8] -= 1;
    mend_at(packet, 10, &old, &[old[0] - 1, old[1]]);
}

fn outer_v4(headers: &Headers, len: u16, protocol: u8, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut header = vec![0x45, headers.traffic_class];
    header.extend((len + 20).to_be_bytes());
    let (identification, dont_fragment) = headers.v4.unwrap_or((0, true));
    header.extend(identification.to_be_bytes());
    header.extend(if dont_fragment { [0x40, 0] } else { [0, 0] });
    // TTL, protocol, and the checksum's place.
    header.extend([64, protocol, 0, 0]);
    header.extend(&mapped(from).octets()[12..]);
    header.extend(&mapped(to).octets()[12..]);
    seal(&mut header);
    header
}

/// Writes the checksum of an IPv4 header.
pub(super) fn seal(header: &mut [u8]) {
    let sum = checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn outer_v6(headers: &Headers, len: u16, next: u8, entropy: u64, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let flow_label = entropy % (1 << 20);
    let first = 0x6000_0000 | u32::from(headers.traffic_class) << 20 | flow_label as u32;
    let mut header = first.to_be_bytes().to_vec();
    header.extend(len.to_be_bytes());
    header.extend([next, 64]);
    header.extend(mapped(from).octets());
    header.extend(mapped(to).octets());
    header
}

/// What takes the place of a packet's addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoints {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Source's and destination's; `None` where the packet has none.
    pub(super) ports: Option<(u16, u16)>,
    /// Of fragments.
    pub(super) identification: Option<[u8; 4]>,
}

impl Endpoints {
    /// Of a fragment without ports.
    pub(super) const fn of_fragment(new: NewEndpoints) -> Self {
        Self {
            source: new.source,
            destination: new.destination,
            ports: None,
            identification: new.identification,
        }
    }

    /// What the later fragments get.
    pub(super) const fn for_later(self) -> NewEndpoints {
        NewEndpoints {
            source: self.source,
            destination: self.destination,
            identification: self.identification,
        }
    }
}

/// Gives the frame's packet new addresses, ports and identification.
pub(super) fn readdress_frame(frame: &mut [u8], headers: &Headers, to: &Endpoints) {
    if let (Some(fragment), Some(identification)) = (headers.fragment, to.identification) {
        let len = if headers.v4.is_some() { 2 } else { 4 };
        let place = fragment.at..fragment.at + len;
        let old = frame[place.clone()].to_vec();
        frame[place].copy_from_slice(&identification[..len]);
        if headers.v4.is_some() {
            mend_at(&mut frame[headers.l3..], 10, &old, &identification[..len]);
        }
    }
    let l4 = headers.protocol.map(|protocol| (headers.l4 - headers.l3, protocol));
    readdress(&mut frame[headers.l3..], l4, to);
}

/// Gives a packet, of which only the beginning may be there, new addresses and ports, and mends all checksums in it.
/// `l4` is where its transport header begins.
pub(super) fn readdress(packet: &mut [u8], l4: Option<(usize, Protocol)>, to: &Endpoints) {
    let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
    let mut old = packet[addresses.clone()].to_vec();
    let mut new = [octets(to.source), octets(to.destination)].concat();
    packet[addresses].copy_from_slice(&new);
    if packet[0] >> 4 == 4 {
        mend_at(packet, 10, &old, &new);
    }
    let (Some((l4, protocol)), Some((source, destination))) = (l4, to.ports) else { return };
    let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    old.extend(&packet[l4..l4 + 4]);
    new.extend(&ports);
    packet[l4..l4 + 4].copy_from_slice(&ports);
    match protocol {
        Protocol::Tcp if packet.len() >= l4 + 18 => mend_at(packet, l4 + 16, &old, &new),
        Protocol::Udp if packet.len() >= l4 + 8 => mend_udp_at(packet, l4 + 6, &old, &new),
        _ => {}
    }
}
