//! Reading a frame, one header after the other: docs/packet-path.md, section 1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::abi::DropReason;

use super::extension::{self, Walk};
use super::service::Protocol;

/// A frame as it came.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub bytes: &'a [u8],
    /// Bytes of the first buffer, the only one in which headers are read.
    pub first: usize,
}

impl<'a> Frame<'a> {
    /// One in a single buffer.
    #[must_use]
    pub const fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, first: bytes.len() }
    }

    pub(super) fn head(self) -> &'a [u8] {
        &self.bytes[..self.first]
    }
}

/// A frame that may be for a VIP: it says whom it is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Headers {
    /// Where the IP header begins.
    pub(super) l3: usize,
    /// Where that begins which the last extension header announces.
    pub(super) l4: usize,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) traffic_class: u8,
    pub(super) ttl: u8,
    /// Bytes of the IP packet as its header has it.
    pub(super) ip_len: usize,
    /// IPv4: identification and "don't fragment".
    pub(super) v4: Option<(u16, bool)>,
    /// `None` where it is hidden, and for ICMP.
    pub(super) protocol: Option<Protocol>,
    pub(super) fragment: Option<Fragment>,
    /// Whether it has an authentication header.
    pub(super) authenticated: bool,
    pub(super) content: Content,
}

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    /// As on the wire: IPv4's two bytes come first and zeros follow.
    pub(super) identification: [u8; 4],
    /// Where the identification stands.
    pub(super) at: usize,
    pub(super) is_first: bool,
    /// Bytes of the packet's payload before this part, and in it.
    pub(super) offset: usize,
    pub(super) len: usize,
    /// Whether there are parts behind it.
    pub(super) more: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Ports(Ports),
    Icmp,
    /// A fragment that is not the first.
    LaterFragment,
    Unreadable(DropReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) source: u16,
    pub(super) destination: u16,
    pub(super) kind: Kind,
    /// A segment's flags.
    pub(super) fin: bool,
    pub(super) rst: bool,
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

pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;

const VLAN_TYPES: [u16; 2] = [0x8100, 0x88a8];

/// `None` for what is the host's own business whatever its addresses.
pub(super) fn read(frame: Frame<'_>) -> Option<Headers> {
    let head = frame.head();
    let mut l3 = 14;
    // Multicast and broadcast frames are not a router's business.
    if head.first()? & 1 == 1 {
        return None;
    }
    let mut ethertype = word(head, 12)?;
    // Two tags, as QinQ has them; a third hides what follows.
    for _ in 0..2 {
        if VLAN_TYPES.contains(&ethertype) {
            ethertype = word(head, l3 + 2)?;
            l3 += 4;
        }
    }
    match ethertype {
        0x0800 => read_v4(frame, l3),
        0x86dd => read_v6(frame, l3),
        _ => None,
    }
}

fn read_v4(frame: Frame<'_>, l3: usize) -> Option<Headers> {
    let header = frame.head().get(l3..l3 + 20)?;
    let (number, protocol) = (header[9], Protocol::from_number(header[9]));
    if header[0] >> 4 != 4 || protocol.is_none() && number != ICMP {
        return None;
    }
    let header_len = usize::from(header[0] % 16) * 4;
    let ip_len = usize::from(word(header, 2)?);
    let flags = word(header, 6)?;
    let (more_fragments, offset) = (flags & 0x2000 != 0, flags % 0x2000);
    let is_fragment = more_fragments || offset > 0;

    let content = if header_len < 20 || ip_len < header_len {
        Content::Unreadable(DropReason::BadIpHeader)
    } else if l3 + ip_len > frame.bytes.len() {
        Content::Unreadable(DropReason::TruncatedHeader)
    } else {
        match protocol {
            None if is_fragment => Content::Unreadable(DropReason::Fragment),
            None => Content::Icmp,
            Some(_) if offset > 0 => Content::LaterFragment,
            Some(protocol) => transport(frame, l3 + header_len, l3 + ip_len, protocol),
        }
    };
    let identification = [header[4], header[5], 0, 0];
    Some(Headers {
        l3,
        l4: l3 + header_len,
        source: v4(&header[12..16]),
        destination: v4(&header[16..20]),
        traffic_class: header[1],
        ttl: header[8],
        ip_len,
        v4: Some((word(header, 4)?, flags & 0x4000 != 0)),
        protocol,
        fragment: is_fragment.then_some(Fragment {
            identification,
            at: l3 + 4,
            is_first: offset == 0,
            offset: 8 * usize::from(offset),
            len: ip_len.saturating_sub(header_len),
            more: more_fragments,
        }),
        authenticated: false,
        content,
    })
}

fn read_v6(frame: Frame<'_>, l3: usize) -> Option<Headers> {
    let header = frame.head().get(l3..l3 + 40)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let destination = v6(&header[24..40]);
    // An IPv4-mapped destination is how the maps write IPv4 addresses. On the wire it is nobody's address, and
    // certainly not the IPv4 VIP's.
    if matches!(destination, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        return None;
    }
    let ip_len = 40 + usize::from(word(header, 4)?);
    let walk = extension::walk(frame, l3, l3 + ip_len);
    let protocol = walk.next.and_then(Protocol::from_number);
    if let Some(next) = walk.next
        && protocol.is_none()
        && next != ICMPV6
    {
        return None;
    }
    let content = if l3 + ip_len > frame.bytes.len() {
        Content::Unreadable(DropReason::TruncatedHeader)
    } else {
        match (&walk, protocol) {
            (Walk { refused: Some(reason), .. }, _) => Content::Unreadable(*reason),
            (Walk { fragment: Some(_), .. }, None) if walk.next == Some(ICMPV6) => {
                Content::Unreadable(DropReason::Fragment)
            }
            (Walk { later: true, .. }, _) => Content::LaterFragment,
            (_, None) => Content::Icmp,
            (_, Some(protocol)) => transport(frame, walk.end, l3 + ip_len, protocol),
        }
    };
    Some(Headers {
        l3,
        l4: walk.end,
        source: v6(&header[8..24]),
        destination,
        traffic_class: header[0] << 4 | header[1] >> 4,
        ttl: header[7],
        ip_len,
        v4: None,
        // In a later fragment nobody can tell.
        protocol: protocol.filter(|_| !walk.later),
        fragment: walk.fragment,
        authenticated: walk.authenticated,
        content,
    })
}

/// `end` is where the IP packet ends, so padding is never taken for a header.
fn transport(frame: Frame<'_>, l4: usize, end: usize, protocol: Protocol) -> Content {
    let behind = l4 + protocol.header_len();
    match frame.head().get(l4..behind) {
        Some(header) if behind <= end => Content::Ports(ports(header, protocol)),
        _ => Content::Unreadable(DropReason::TruncatedHeader),
    }
}

fn ports(header: &[u8], protocol: Protocol) -> Ports {
    let flags = match protocol {
        Protocol::Tcp => header[13],
        Protocol::Udp => 0,
    };
    Ports {
        source: u16::from_be_bytes([header[0], header[1]]),
        destination: u16::from_be_bytes([header[2], header[3]]),
        kind: match protocol {
            Protocol::Tcp => segment(flags),
            Protocol::Udp => Kind::Datagram,
        },
        fin: flags & 0x01 != 0,
        rst: flags & 0x04 != 0,
    }
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

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

pub(super) fn v4(bytes: &[u8]) -> IpAddr {
    <[u8; 4]>::try_from(bytes).map(Ipv4Addr::from).expect("four bytes").into()
}

pub(super) fn v6(bytes: &[u8]) -> IpAddr {
    <[u8; 16]>::try_from(bytes).map(Ipv6Addr::from).expect("sixteen bytes").into()
}
