//! Frames in words, layer by layer.

use std::net::IpAddr;

use etherparse::{
    EtherType, IpNumber, LaxIpPayloadSlice, LaxLinkExtSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice,
    TransportSlice,
};
use lb_common::abi::GUE_PORT;

use crate::digits::mac;

/// A frame as far as it can be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Ethernet and its tags.
    pub(super) link: Vec<Layer>,
    /// What is inside, from the outermost header.
    pub(super) inside: Vec<Layer>,
    /// Of the outermost IP header.
    pub(super) ends: Option<Ends>,
    pub(super) destination_mac: Option<[u8; 6]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) name: &'static str,
    pub(super) text: String,
}

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: IpNumber,
    /// Of TCP and UDP.
    pub(super) ports: Option<(u16, u16)>,
}

impl Reading {
    pub(super) fn of(frame: &[u8]) -> Self {
        let mut reading = Self::default();
        let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else { return reading };
        if let Some(LinkSlice::Ethernet2(header)) = &packet.link {
            let (from, to) = (mac(header.source()), mac(header.destination()));
            reading.destination_mac = Some(header.destination());
            reading.link.push(Layer { name: "ethernet", text: format!("{from} > {to}") });
        }
        for tag in &packet.link_exts {
            if let LaxLinkExtSlice::Vlan(tag) = tag {
                let text = tag.vlan_identifier().value().to_string();
                reading.link.push(Layer { name: "vlan", text });
            }
        }
        reading.ends = ends(&packet);
        add_ip(&packet, &mut reading.inside, MAX_DEPTH);
        reading
    }
}

fn ends(packet: &LaxSlicedPacket<'_>) -> Option<Ends> {
    let (source, destination) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Arp(_) => return None,
    };
    let ports = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        _ => None,
    };
    let protocol = packet.net.as_ref()?.ip_payload_ref()?.ip_number;
    Some(Ends { source, destination, protocol, ports })
}

/// The IP header, what is behind it, and the packet inside if it is a tunnel's.
fn add_ip(packet: &LaxSlicedPacket<'_>, layers: &mut Vec<Layer>, depth: u32) {
    let payload = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let mut text = format!(
                "{} > {}, ttl {}, {}, {} bytes",
                header.source_addr(),
                header.destination_addr(),
                header.ttl(),
                protocol(header.protocol()),
                header.total_len()
            );
            if header.more_fragments() || header.fragments_offset().value() != 0 {
                let at = header.fragments_offset().byte_offset();
                text += &format!(", fragment {:#06x} at {at}", header.identification());
            }
            layers.push(Layer { name: "ipv4", text });
            ip.payload()
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let fragment = if ip.is_payload_fragmented() { ", fragment" } else { "" };
            let text = format!(
                "{} > {}, hop limit {}, {}, {} bytes{fragment}",
                header.source_addr(),
                header.destination_addr(),
                header.hop_limit(),
                protocol(ip.payload().ip_number),
                40 + usize::from(header.payload_length())
            );
            layers.push(Layer { name: "ipv6", text });
            ip.payload()
        }
        _ => return,
    };
    let inner = match &packet.transport {
        Some(transport) => add_transport(transport, layers),
        None => tunnelled(payload),
    };
    if depth > 0
        && let Some(Ok(packet)) = inner.map(LaxSlicedPacket::from_ip)
    {
        add_ip(&packet, layers, depth - 1);
    }
}

/// Returns the packet inside, if it is a tunnel's.
fn add_transport<'a>(transport: &TransportSlice<'a>, layers: &mut Vec<Layer>) -> Option<&'a [u8]> {
    let (name, text, inner) = match transport {
        TransportSlice::Tcp(tcp) => {
            let flags = [(tcp.syn(), "SYN"), (tcp.ack(), "ACK"), (tcp.fin(), "FIN"), (tcp.rst(), "RST")];
            let flags: Vec<_> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
            let flags = if flags.is_empty() { "no flags".to_owned() } else { flags.join(" ") };
            ("tcp", format!("{} > {}, {flags}", tcp.source_port(), tcp.destination_port()), None)
        }
        TransportSlice::Udp(udp) => {
            let text = format!("{} > {}", udp.source_port(), udp.destination_port());
            ("udp", text, (udp.destination_port() == GUE_PORT).then(|| udp.payload()))
        }
        TransportSlice::Icmpv4(icmp) => {
            ("icmp", format!("type {}, code {}", icmp.type_u8(), icmp.code_u8()), None)
        }
        TransportSlice::Icmpv6(icmp) => {
            ("icmpv6", format!("type {}, code {}", icmp.type_u8(), icmp.code_u8()), None)
        }
        TransportSlice::Igmp(_) => return None,
    };
    layers.push(Layer { name, text });
    inner
}

fn tunnelled<'a>(payload: &LaxIpPayloadSlice<'a>) -> Option<&'a [u8]> {
    [IpNumber::IPV4, IpNumber::IPV6].contains(&payload.ip_number).then_some(payload.payload)
}

/// What people call it.
pub(super) fn protocol(number: IpNumber) -> String {
    match number {
        IpNumber::TCP => "tcp".to_owned(),
        IpNumber::UDP => "udp".to_owned(),
        IpNumber::ICMP => "icmp".to_owned(),
        IpNumber::IPV6_ICMP => "icmpv6".to_owned(),
        IpNumber::IPV4 | IpNumber::IPV6 => "ip in ip".to_owned(),
        IpNumber(other) => format!("protocol {other}"),
    }
}

/// Whether the frame's type says that it is IP.
pub(super) fn is_ip(frame: &[u8]) -> bool {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else { return false };
    let kind = |kind: EtherType| [EtherType::IPV4, EtherType::IPV6].contains(&kind);
    let last = packet.link_exts.last().and_then(|tag| match tag {
        LaxLinkExtSlice::Vlan(tag) => Some(tag.ether_type()),
        LaxLinkExtSlice::Macsec(_) => None,
    });
    last.or(match &packet.link {
        Some(LinkSlice::Ethernet2(header)) => Some(header.ether_type()),
        _ => None,
    })
    .is_some_and(kind)
}

/// Tunnels within each other that are read.
const MAX_DEPTH: u32 = 2;
