//! Reading a frame, one header after the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::abi::DropReason;

use super::state::Protocol;

/// A frame that may be for a VIP: it says whom it is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Headers {
    /// Where the IP header begins.
    pub(super) l3: usize,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) traffic_class: u8,
    pub(super) ttl: u8,
    /// Bytes of the IP packet as its header has it.
    pub(super) ip_len: usize,
    /// IPv4: identification and "don't fragment".
    pub(super) v4: Option<(u16, bool)>,
    /// `None` where extension headers hide it.
    pub(super) protocol: Option<Protocol>,
    pub(super) transport: Result<Ports, DropReason>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) source: u16,
    pub(super) destination: u16,
    pub(super) kind: Kind,
    pub(super) first_fragment: bool,
}

/// What a packet means to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Opens,
    Continues,
    Closes,
    Observes,
    Datagram,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Opens, Self::Continues, Self::Closes, Self::Observes, Self::Datagram];
}

const VLAN_TYPES: [u16; 2] = [0x8100, 0x88a8];

/// `None` for what is the host's own business whatever its addresses.
pub(super) fn read(frame: &[u8]) -> Option<Headers> {
    let mut l3 = 14;
    // Multicast and broadcast frames are not a router's business.
    if frame.first()? & 1 == 1 {
        return None;
    }
    let mut ethertype = word(frame, 12)?;
    // Two tags, as QinQ has them; a third hides what follows.
    for _ in 0..2 {
        if VLAN_TYPES.contains(&ethertype) {
            ethertype = word(frame, l3 + 2)?;
            l3 += 4;
        }
    }
    match ethertype {
        0x0800 => read_v4(frame, l3),
        0x86dd => read_v6(frame, l3),
        _ => None,
    }
}

fn read_v4(frame: &[u8], l3: usize) -> Option<Headers> {
    let header = frame.get(l3..l3 + 20)?;
    if header[0] >> 4 != 4 {
        return None;
    }
    let protocol = Protocol::from_number(header[9])?;
    let header_len = usize::from(header[0] % 16) * 4;
    let ip_len = usize::from(word(header, 2)?);
    let flags = word(header, 6)?;
    let (more_fragments, offset) = (flags & 0x2000 != 0, flags % 0x2000);

    let transport = match frame.get(l3..l3 + ip_len) {
        _ if header_len < 20 || ip_len < header_len => Err(DropReason::BadIpHeader),
        None => Err(DropReason::TruncatedHeader),
        Some(_) if offset > 0 => Err(DropReason::Fragment),
        Some(packet) => ports(&packet[header_len..], protocol, more_fragments),
    };
    Some(Headers {
        l3,
        source: v4(&header[12..16]),
        destination: v4(&header[16..20]),
        traffic_class: header[1],
        ttl: header[8],
        ip_len,
        v4: Some((word(header, 4)?, flags & 0x4000 != 0)),
        protocol: Some(protocol),
        transport,
    })
}

/// Extension headers that may stand before TCP or UDP: hop-by-hop, routing, authentication, destination options,
/// mobility, HIP, shim6. (ESP is an end: nobody but its receiver knows what it carries.)
const EXTENSIONS: [u8; 7] = [0, 43, 51, 60, 135, 139, 140];
const FRAGMENT: u8 = 44;

fn read_v6(frame: &[u8], l3: usize) -> Option<Headers> {
    let header = frame.get(l3..l3 + 40)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let next = header[6];
    let protocol = Protocol::from_number(next);
    if protocol.is_none() && next != FRAGMENT && !EXTENSIONS.contains(&next) {
        return None;
    }
    let destination = v6(&header[24..40]);
    // An IPv4-mapped destination is how the maps write IPv4 addresses. On the wire it is nobody's address, and
    // certainly not the IPv4 VIP's.
    if matches!(destination, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        return None;
    }
    let ip_len = 40 + usize::from(word(header, 4)?);
    let transport = match (frame.get(l3..l3 + ip_len), protocol) {
        (None, _) => Err(DropReason::TruncatedHeader),
        (Some(packet), Some(protocol)) => ports(&packet[40..], protocol, false),
        (Some(_), None) if next == FRAGMENT => Err(DropReason::Fragment),
        (Some(_), None) => Err(DropReason::ExtensionHeader),
    };
    Some(Headers {
        l3,
        source: v6(&header[8..24]),
        destination,
        traffic_class: header[0] << 4 | header[1] >> 4,
        ttl: header[7],
        ip_len,
        v4: None,
        protocol,
        transport,
    })
}

/// `payload` ends where the IP packet does, so padding is never taken for a header.
fn ports(payload: &[u8], protocol: Protocol, first_fragment: bool) -> Result<Ports, DropReason> {
    let header = payload.get(..protocol.header_len()).ok_or(DropReason::TruncatedHeader)?;
    Ok(Ports {
        source: word(header, 0).unwrap_or_default(),
        destination: word(header, 2).unwrap_or_default(),
        kind: match protocol {
            Protocol::Tcp => segment(header[13]),
            Protocol::Udp => Kind::Datagram,
        },
        first_fragment,
    })
}

fn segment(flags: u8) -> Kind {
    let has = |bit: u8| flags & bit != 0;
    let (fin, syn, rst, ack) = (has(0x01), has(0x02), has(0x04), has(0x10));
    match (syn, ack, fin, rst) {
        (true, false, false, false) => Kind::Opens,
        (_, _, _, true) => Kind::Observes,
        (_, _, true, false) => Kind::Closes,
        _ => Kind::Continues,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn v4(bytes: &[u8]) -> IpAddr {
    <[u8; 4]>::try_from(bytes).map(Ipv4Addr::from).expect("four bytes").into()
}

fn v6(bytes: &[u8]) -> IpAddr {
    <[u8; 16]>::try_from(bytes).map(Ipv6Addr::from).expect("sixteen bytes").into()
}

/// The Internet checksum of RFC 1071 over any bytes.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let sum: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) * 256 + u64::from(pair.get(1).copied().unwrap_or_default()))
        .sum();
    !ones_complement(sum)
}

/// A sum in one's-complement arithmetic of 16 bits.
pub(super) fn ones_complement(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + sum % 0x1_0000;
    }
    sum as u16
}
