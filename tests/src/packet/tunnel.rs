//! What a packet in a tunnel should look like, by other means than the model's.

use std::hash::Hasher as _;
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader};
use siphasher::sip::SipHasher13;

use super::fixture::{Family, client};
use super::frame::Packet;
use super::message::Message;
use super::world::World;
use crate::model::{SlotHash, Verdict};

/// What carries a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    Ipip,
    Gue,
}

/// The outer headers as a library writes them, between two `ends`: source and destination.
///
/// # Errors
///
/// If the packet is too long, or the ends are of two families.
pub fn outer(packet: &Packet, ends: (IpAddr, IpAddr), tunnel: Tunnel, entropy: u64) -> Result<Vec<u8>> {
    let mut len = u16::try_from(packet.ip().len() - packet.padding).context("length of the packet")?;
    let is_v4 = packet.source.is_ipv4();
    let mut protocol = if is_v4 { IpNumber::IPV4 } else { IpNumber::IPV6 };
    let mut carrier = Vec::new();
    if tunnel == Tunnel::Gue {
        let source_port = 0xc000 | (entropy & 0x3fff) as u16;
        len += 8;
        carrier =
            UdpHeader { source_port, destination_port: 6080, length: len, checksum: 0 }.to_bytes().to_vec();
        protocol = IpNumber::UDP;
    }
    let outer = match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = Ipv4Header::new(len, 64, protocol, source.octets(), destination.octets())?;
            header.dscp = (packet.traffic_class >> 2).try_into()?;
            header.ecn = (packet.traffic_class & 3).try_into()?;
            header.identification = if is_v4 { packet.identification } else { 0 };
            header.dont_fragment = packet.dont_fragment || !is_v4;
            header.header_checksum = header.calc_header_checksum();
            header.to_bytes().to_vec()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => Ipv6Header {
            traffic_class: packet.traffic_class,
            flow_label: Ipv6FlowLabel::try_new((entropy % (1 << 20)) as u32)?,
            payload_length: len,
            next_header: protocol,
            hop_limit: 64,
            source: source.octets(),
            destination: destination.octets(),
        }
        .to_bytes()
        .to_vec(),
        (source, destination) => anyhow::bail!("a tunnel from {source} to {destination}"),
    };
    Ok([outer, carrier].concat())
}

/// SipHash-1-3 of the client's address or of the 5-tuple.
pub fn hash(world: &World, packet: &Packet, covers: SlotHash) -> u64 {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let key = world.state.hash_key;
    let mut hasher = SipHasher13::new_with_keys(key.k0, key.k1);
    let mut input = octets(packet.source);
    if covers == SlotHash::Flow {
        input.extend(octets(packet.destination));
        input.extend(packet.source_port.to_be_bytes());
        input.extend(packet.destination_port.to_be_bytes());
        input.push(packet.protocol.number());
    }
    hasher.write(&input);
    hasher.finish()
}

/// Sends a packet into its tunnel, and makes a router's error about that to us; and the packet as it left, from its outer
/// header on.
pub fn error_about(
    world: &mut World,
    packet: &Packet,
    kind: (u8, u8),
    mtu: u32,
) -> Result<(Message, Vec<u8>)> {
    let verdict = world.check(&packet.build())?.verdict;
    let (Verdict::Transmit(out) | Verdict::Redirect(out)) = verdict else { bail!("{verdict:?}") };
    let left = &out[packet.l3()..];
    let (source, from) = if left[0] >> 4 == 4 {
        let source: [u8; 4] = left[12..16].try_into()?;
        (IpAddr::from(source), client(Family::V4, 0x3333))
    } else {
        let source: [u8; 16] = left[8..24].try_into()?;
        (IpAddr::from(source), client(Family::V6, 0x3333))
    };
    let message = Message { rest: mtu.to_be_bytes(), ..Message::new(from, source, kind, left.to_vec()) };
    Ok((message, left.to_vec()))
}
