//! Every forwarding mode that keeps its packet whole, with frames of one buffer and of several.

use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header};
use lb_common::abi::{FORWARDING_GUE, FORWARDING_IPIP, FORWARDING_L2_DSR};
use lb_tests::model::{Backend, Egress, Forwarding, Protocol, Selection, Service, Slot, SlotHash, Tracking};
use lb_tests::packet::{Packet, World};
use lb_tests::require_root;
use siphasher::sip::SipHasher13;

const XDP_DROP: u32 = 1;
const XDP_TX: u32 = 3;
const MTU: u32 = 9100;
const MAC: [u8; 6] = [0x02, 0xbb, 0, 0, 0, 1];
const SOURCE_MAC: [u8; 6] = [0x02, 0xe6, 0, 0, 0, 1];

/// A service with one backend.
#[derive(Clone, Copy, Debug)]
struct Way {
    forwarding: u8,
    clients: Family,
    backends: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn address(self, host: u16) -> IpAddr {
        let [high, low] = host.to_be_bytes();
        match self {
            Self::V4 => Ipv4Addr::new(198, 18, high, low).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host).into(),
        }
    }
}

fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for clients in [Family::V4, Family::V6] {
        ways.push(Way { forwarding: FORWARDING_L2_DSR, clients, backends: clients });
        for backends in [Family::V4, Family::V6] {
            for forwarding in [FORWARDING_IPIP, FORWARDING_GUE] {
                ways.push(Way { forwarding, clients, backends });
            }
        }
    }
    ways
}

#[test]
fn frames_of_any_size_are_carried_whole_in_every_mode() -> Result<()> {
    require_root!(Ok(()));
    let mut world = World::new()?;
    let ways = ways();
    for (&way, number) in ways.iter().zip(0..) {
        add(&mut world, way, number)?;
    }
    world.publish()?;
    for (&way, number) in ways.iter().zip(0..) {
        for tags in 0..=2 {
            // One buffer, small and full; a little more than one; the largest that fits.
            for len in [75, 3_500, 3_600, MTU as usize - overhead(way)] {
                check(&world, way, number, tags, len)
                    .with_context(|| format!("{way:?}, {tags} VLAN tags, {len} bytes"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_frame_of_several_buffers_that_ends_too_early_is_dropped() -> Result<()> {
    require_root!(Ok(()));
    let mut world = World::new()?;
    let way = Way { forwarding: FORWARDING_IPIP, clients: Family::V4, backends: Family::V4 };
    add(&mut world, way, 0)?;
    world.publish()?;
    let frame = packet(way, 0, 0, 8_000).build();
    assert_eq!(world.run(&frame)?.code, XDP_TX);
    let cut = &frame[..frame.len() - 1];
    let observed = world.run(cut)?;
    assert_eq!((observed.code, &observed.frame[..]), (XDP_DROP, cut));
    Ok(())
}

fn check(world: &World, way: Way, number: u16, tags: usize, len: usize) -> Result<()> {
    let packet = packet(way, number, tags, len);
    ensure!(packet.ip().len() == len, "the test's packet is {} bytes long", packet.ip().len());
    let wanted = if way.forwarding == FORWARDING_L2_DSR {
        [packet.l2(MAC, SOURCE_MAC), packet.ip()].concat()
    } else {
        let inner = Packet { ttl: packet.ttl - 1, ..packet.clone() }.ip();
        [l2(&packet, way), outer(world, &packet, way, number)?, inner].concat()
    };
    let observed = world.run(&packet.build())?;
    ensure!(observed.code == XDP_TX, "verdict {}", observed.code);
    let front = wanted.len().min(120);
    ensure!(
        observed.frame[..front] == wanted[..front],
        "{:02x?}\n{:02x?}",
        &observed.frame[..front],
        &wanted[..front]
    );
    ensure!(
        observed.frame == wanted,
        "{} bytes left, and {} should have",
        observed.frame.len(),
        wanted.len()
    );
    Ok(())
}

/// Of this many bytes from its IP header on.
fn packet(way: Way, number: u16, tags: usize, len: usize) -> Packet {
    let (client, vip) = (way.clients.address(7), way.clients.address(0x100 + number));
    let mut packet = Packet::new(Protocol::Tcp, (client, 40_123), (vip, 80)).with_tags(tags);
    packet.traffic_class = 0xb9;
    let headers = packet.l4() - packet.l3() + Protocol::Tcp.header_len();
    packet.payload = (0..len.saturating_sub(headers)).map(|at| (at / 7) as u8).collect();
    packet
}

/// Everything before the outer header.
fn l2(packet: &Packet, way: Way) -> Vec<u8> {
    let ethertype = if way.backends == Family::V4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&MAC[..], &SOURCE_MAC, packet.tags.as_flattened(), &ethertype].concat()
}

/// The outer header as a library writes it.
fn outer(world: &World, packet: &Packet, way: Way, number: u16) -> Result<Vec<u8>> {
    let is_gue = way.forwarding == FORWARDING_GUE;
    let (entropy, len) = (hash(world, packet, is_gue), packet.ip().len());
    let udp_len = u16::try_from(len + 8)?;
    let udp = [0xc000 | (entropy & 0x3fff) as u16, 6080, udp_len, 0].map(u16::to_be_bytes).concat();
    let (udp, protocol) = match way.clients {
        _ if is_gue => (udp, IpNumber::UDP),
        Family::V4 => (Vec::new(), IpNumber::IPV4),
        Family::V6 => (Vec::new(), IpNumber::IPV6),
    };
    let payload_len = u16::try_from(len + udp.len())?;
    let ip = match (source(way), backend(way, number)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header =
                Ipv4Header::new(payload_len, 64, protocol, source.octets(), destination.octets())?;
            header.dscp = (packet.traffic_class >> 2).try_into()?;
            header.ecn = (packet.traffic_class & 3).try_into()?;
            let is_v4 = way.clients == Family::V4;
            header.identification = if is_v4 { packet.identification } else { 0 };
            header.dont_fragment = packet.dont_fragment || !is_v4;
            header.header_checksum = header.calc_header_checksum();
            header.to_bytes().to_vec()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => Ipv6Header {
            traffic_class: packet.traffic_class,
            flow_label: Ipv6FlowLabel::try_new((entropy & 0xf_ffff) as u32)?,
            payload_length: payload_len,
            next_header: protocol,
            hop_limit: 64,
            source: source.octets(),
            destination: destination.octets(),
        }
        .to_bytes()
        .to_vec(),
        (source, destination) => anyhow::bail!("a tunnel from {source} to {destination}"),
    };
    Ok([ip, udp].concat())
}

/// SipHash-1-3 of the flow, or of the client alone.
fn hash(world: &World, packet: &Packet, of_flow: bool) -> u64 {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut input = octets(packet.source);
    if of_flow {
        input.extend(octets(packet.destination));
        input.extend([packet.source_port, packet.destination_port].map(u16::to_be_bytes).as_flattened());
        input.push(packet.protocol.number());
    }
    let key = world.state.hash_key;
    let mut hasher = SipHasher13::new_with_keys(key.k0, key.k1);
    hasher.write(&input);
    hasher.finish()
}

fn overhead(way: Way) -> usize {
    let ip = if way.backends == Family::V4 { 20 } else { 40 };
    match way.forwarding {
        FORWARDING_L2_DSR => 0,
        FORWARDING_GUE => ip + 8,
        _ => ip,
    }
}

/// Adds the service with its backend, and a way out that takes jumbo frames.
fn add(world: &mut World, way: Way, number: u16) -> Result<()> {
    let (index, egress) = (u32::from(number) + 1, number + 1);
    world.set_egress(
        egress,
        Egress {
            source_mac: SOURCE_MAC,
            interface: world.state.ingress,
            mtu: MTU,
            source: source(way),
            has_device: true,
        },
    )?;
    world.set_backend(
        index,
        Backend {
            port: 80,
            address: backend(way, number),
            service: number.into(),
            accepts_new_flows: true,
            accepts_existing_flows: true,
            weight: 1,
            next_hop: Some((MAC, egress)),
        },
    )?;
    world.add_service(Service {
        number: number.into(),
        address: way.clients.address(0x100 + number),
        port: Some(80),
        protocol: Protocol::Tcp,
        forwarding: Forwarding::Unknown(way.forwarding),
        hash: SlotHash::Source,
        base: u32::from(number) * SLOTS,
        slots: vec![Slot::steady(index); SLOTS as usize],
        tracking: Tracking::Never,
        selection: Selection::Hash,
        rotation: 0,
        idle_timeout: 60,
        source_list: 0,
        new_flow_limit: 0,
    })
}

const SLOTS: u32 = 1024;

fn source(way: Way) -> IpAddr {
    way.backends.address(1)
}

fn backend(way: Way, number: u16) -> IpAddr {
    way.backends.address(0x200 + number)
}
