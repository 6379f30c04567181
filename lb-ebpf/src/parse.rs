//! From a frame to what the later steps need of it. Decides nothing but "this can't be for a VIP".

use lb_common::{
    abi::{DropReason, PASSED_MAC, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP},
    hash::{self, HashKey},
    wire::{
        ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        extension,
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        transport::{self, TCP_HEADER_LEN, UDP_HEADER_LEN},
    },
};

use crate::{cursor::Cursor, own_macs, select::Subject, settings, trace};

/// A packet of either family. Whoever handles one is compiled for each of them, so that nothing asks again.
pub enum Parsed {
    V4(Packet<V4>),
    V6(Packet<V6>),
    /// Perhaps for a VIP, and not on the straight path: a fragment, ICMP, IPv6 extension headers, or a packet that does not
    /// end in the frame's first buffer.
    Uncommon,
}

/// An IPv4 address: its bytes in memory order.
pub type V4 = u32;
/// An IPv6 address: two words in memory order.
pub type V6 = [u64; 2];

/// What the steps before forwarding need of an address.
pub trait Address: Copy {
    /// Of the IP header.
    const VERSION: u8;
    /// Without options.
    const HEADER_LEN: usize;
    /// As a service key has it: IPv4 as `::ffff:a.b.c.d`.
    fn service_words(self) -> [u64; 2];
    fn source_hash(key: HashKey, source: Self) -> u64;
    fn flow_hash(key: HashKey, source: Self, destination: Self, ports: u32, protocol: u8) -> u64;
}

impl Address for V4 {
    const VERSION: u8 = 4;
    const HEADER_LEN: usize = ipv4::HEADER_LEN;

    #[inline(always)]
    fn service_words(self) -> [u64; 2] {
        [0, MAPPED_PREFIX | ((self as u64) << 32)]
    }

    #[inline(always)]
    fn source_hash(key: HashKey, source: Self) -> u64 {
        hash::source_v4(key, source)
    }

    #[inline(always)]
    fn flow_hash(key: HashKey, source: Self, destination: Self, ports: u32, protocol: u8) -> u64 {
        hash::flow_v4(key, source, destination, ports, protocol)
    }
}

impl Address for V6 {
    const VERSION: u8 = 6;
    const HEADER_LEN: usize = ipv6::HEADER_LEN;

    #[inline(always)]
    fn service_words(self) -> [u64; 2] {
        self
    }

    #[inline(always)]
    fn source_hash(key: HashKey, source: Self) -> u64 {
        hash::source_v6(key, source)
    }

    #[inline(always)]
    fn flow_hash(key: HashKey, source: Self, destination: Self, ports: u32, protocol: u8) -> u64 {
        hash::flow_v6(key, source, destination, ports, protocol)
    }
}

/// A frame with an IP packet that may be for a VIP.
pub struct Packet<A> {
    /// Length of the frame as received, without FCS; of its first buffer, if there are several.
    pub frame_len: usize,
    /// Where the IP header starts: after the Ethernet header and its VLAN tags.
    pub l3: usize,
    /// Where the transport header starts.
    pub l4: usize,
    pub source: A,
    pub destination: A,
    /// Header and payload in bytes.
    pub total_len: u32,
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4's, 0 in IPv6.
    pub identification: u16,
    /// IPv4's flag, a bit of 16; 0 in IPv6, which needs none.
    pub dont_fragment: u16,
    /// IP protocol of the transport header.
    pub protocol: u8,
    pub transport: Transport,
}

pub enum Transport {
    Ports {
        /// Source and destination port, four bytes in memory order.
        ports: u32,
        /// Of a TCP header; 0 for UDP.
        tcp_flags: u8,
    },
    /// For the given reason; a packet like this is dropped if it is for a VIP.
    Unreadable(DropReason),
}

impl Parsed {
    /// `None`: not TCP, UDP or ICMP over IP, for a group of hosts or another host, or too short to say whom it is for. Such
    /// frames are the host's.
    #[inline(always)]
    pub fn of(cursor: &Cursor<'_>) -> Option<Self> {
        let destination = ethernet::destination(cursor.at(0)?);
        if ethernet::is_group(destination) || !own_macs::contain(destination) {
            trace::passed(PASSED_MAC);
            return None;
        }
        let (l3, ethertype) = behind_tags(cursor)?;
        match ethertype {
            ETHERTYPE_IPV4 => Packet::<V4>::parse(cursor, l3),
            ETHERTYPE_IPV6 => Packet::<V6>::parse(cursor, l3),
            _ => None,
        }
    }
}

impl Packet<V4> {
    #[inline(always)]
    fn parse(cursor: &Cursor<'_>, l3: usize) -> Option<Parsed> {
        let header = Ipv4(cursor.at(l3)?);
        if header.version() != 4 {
            return None;
        }
        if !is_balanced(header.protocol()) || header.is_fragment() {
            let may_matter = is_balanced(header.protocol()) || header.protocol() == PROTOCOL_ICMP;
            return may_matter.then_some(Parsed::Uncommon);
        }
        let (header_len, total_len) = (header.header_len(), header.total_len() as usize);
        let frame_len = cursor.first_len();
        if l3 + total_len > frame_len {
            return Some(Parsed::Uncommon);
        }
        let transport = if header_len < ipv4::HEADER_LEN || total_len < header_len {
            Transport::Unreadable(DropReason::BadIpHeader)
        } else {
            read_transport(cursor, l3 + header_len, total_len - header_len, header.protocol())
        };
        Some(Parsed::V4(Self {
            frame_len,
            l3,
            l4: l3 + header_len,
            source: header.source(),
            destination: header.destination(),
            total_len: total_len as u32,
            traffic_class: header.traffic_class(),
            ttl: header.ttl(),
            identification: header.identification(),
            dont_fragment: header.dont_fragment(),
            protocol: header.protocol(),
            transport,
        }))
    }
}

impl Packet<V6> {
    #[inline(always)]
    fn parse(cursor: &Cursor<'_>, l3: usize) -> Option<Parsed> {
        let header = Ipv6(cursor.at(l3)?);
        let next_header = header.next_header();
        let destination = header.destination();
        // An IPv4-mapped destination is a service key's way to write IPv4, and on the wire nobody's address.
        if header.version() != 6 || is_mapped(destination) {
            return None;
        }
        if !is_balanced(next_header) {
            let may_matter = extension::is_extension(next_header) || next_header == PROTOCOL_ICMPV6;
            return may_matter.then_some(Parsed::Uncommon);
        }
        let payload_len = header.payload_len() as usize;
        let frame_len = cursor.first_len();
        if l3 + ipv6::HEADER_LEN + payload_len > frame_len {
            return Some(Parsed::Uncommon);
        }
        let transport = read_transport(cursor, l3 + ipv6::HEADER_LEN, payload_len, next_header);
        Some(Parsed::V6(Self {
            frame_len,
            l3,
            l4: l3 + ipv6::HEADER_LEN,
            source: header.source(),
            destination,
            total_len: (ipv6::HEADER_LEN + payload_len) as u32,
            traffic_class: header.traffic_class(),
            ttl: header.hop_limit(),
            identification: 0,
            dont_fragment: 0,
            protocol: next_header,
            transport,
        }))
    }
}

impl<A: Address> Subject for Packet<A> {
    #[inline(always)]
    fn source_hash(&self) -> u64 {
        A::source_hash(settings::hash_key(), self.source)
    }

    #[inline(always)]
    fn flow_hash(&self) -> u64 {
        A::flow_hash(settings::hash_key(), self.source, self.destination, self.ports(), self.protocol)
    }

    #[inline(always)]
    fn tcp_flags(&self) -> u8 {
        match self.transport {
            Transport::Ports { tcp_flags, .. } => tcp_flags,
            Transport::Unreadable(_) => 0,
        }
    }

    #[inline(always)]
    fn is_datagram(&self) -> bool {
        self.protocol != PROTOCOL_TCP
    }
}

impl<A: Address> Packet<A> {
    /// Source and destination port, 0 where they can't be read.
    #[inline(always)]
    pub fn ports(&self) -> u32 {
        match self.transport {
            Transport::Ports { ports, .. } => ports,
            Transport::Unreadable(_) => 0,
        }
    }
}

/// Where the header behind Ethernet's and its tags starts, and what it is.
#[inline(always)]
pub fn behind_tags(cursor: &Cursor<'_>) -> Option<(usize, u16)> {
    let mut l3 = ethernet::HEADER_LEN;
    let mut ethertype = u16::from_be_bytes(*cursor.at::<2>(l3 - 2)?);
    for _ in 0..ethernet::MAX_TAGS {
        if !ethernet::is_tag(ethertype) {
            break;
        }
        l3 += ethernet::TAG_LEN;
        ethertype = u16::from_be_bytes(*cursor.at::<2>(l3 - 2)?);
    }
    Some((l3, ethertype))
}

/// Bytes 8 to 11 of an IPv4-mapped address, in memory order.
const MAPPED_PREFIX: u64 = 0xffff_0000;

#[inline(always)]
pub fn is_mapped([high, low]: [u64; 2]) -> bool {
    // One comparison: with two, the verifier walks all that follows twice.
    high | (low as u32 as u64 ^ MAPPED_PREFIX) == 0
}

/// Of a TCP or UDP packet whose `payload_len` bytes behind the IP header start at `l4`.
#[inline(always)]
pub fn read_transport(cursor: &Cursor<'_>, l4: usize, payload_len: usize, protocol: u8) -> Transport {
    if protocol == PROTOCOL_TCP {
        match cursor.at::<TCP_HEADER_LEN>(l4) {
            Some(header) if payload_len >= TCP_HEADER_LEN => {
                Transport::Ports { ports: transport::ports(header), tcp_flags: transport::flags(header) }
            }
            _ => Transport::Unreadable(DropReason::TruncatedHeader),
        }
    } else {
        match cursor.at::<UDP_HEADER_LEN>(l4) {
            Some(header) if payload_len >= UDP_HEADER_LEN => {
                Transport::Ports { ports: transport::ports(header), tcp_flags: 0 }
            }
            _ => Transport::Unreadable(DropReason::TruncatedHeader),
        }
    }
}

#[inline(always)]
pub fn is_balanced(protocol: u8) -> bool {
    protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP
}
