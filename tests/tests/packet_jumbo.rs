//! Every forwarding mode that keeps its packet whole, with frames of one buffer and of several.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use lb_common::abi::{FORWARDING_GUE, FORWARDING_IPIP, FORWARDING_L2_DSR};
use lb_tests::model::{
    Backend, Egress, Event, Forwarding, Protocol, Selection, Service, Slot, SlotHash, Tracking, Verdict,
};
use lb_tests::packet::message::Message;
use lb_tests::packet::modes::Mode;
use lb_tests::packet::nat_story::NatStory;
use lb_tests::packet::tunnel::{Tunnel, error_about, hash, outer};
use lb_tests::packet::{ACK, FIRST_BUFFER, Packet, SYN, World, fixture};
use lb_tests::require_root;

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

/// Through NAT both ways, and in ICMP; the model says how, and the maps what it leaves.
#[test]
fn frames_of_several_buffers_go_through_nat_and_icmp() -> Result<()> {
    require_root!(Ok(()));
    let mut world = fixture::world()?;
    for family in fixture::Family::BOTH {
        let number = fixture::Exit::Same.number(family);
        let egress = world.state.egress[&number];
        world.set_egress(number, Egress { mtu: MTU, ..egress })?;
    }
    for mode in [Mode::Dnat, Mode::Nat, Mode::NatEveryPort] {
        for protocol in Protocol::BOTH {
            for family in fixture::Family::BOTH {
                let mut s = NatStory::within(world, mode, family, protocol);
                for len in [FIRST_BUFFER - 100, FIRST_BUFFER, 2 * FIRST_BUFFER, MTU as usize - 60] {
                    for tags in 0..=2 {
                        jumbo_through_nat(&mut s, len, tags)
                            .with_context(|| format!("{mode:?}, {family:?}, {protocol:?}, {len}, {tags}"))?;
                    }
                }
                world = s.end()?;
            }
        }
    }
    for family in fixture::Family::BOTH {
        let vip = fixture::Host::Vip.address(family);
        let mut echo = Message::echo(fixture::client(family, 3), vip, 1, false);
        echo.body = vec![0x5a; 8_000];
        let told = world.check(&echo.build())?;
        ensure!(told.effects.events == [Event::EchoReply], "{family:?}: {:?}", told.verdict);
        // Errors that are made of them quote what lies in the first buffer, and nothing is left of the others.
        for (way, ttl, wanted) in [
            (fixture::Way::Ipip, 1, Event::TimeExceededSent),
            (fixture::Way::SmallMtu, 57, Event::TooBigSent),
        ] {
            let mut lost = fixture::packet(family, Protocol::Udp, fixture::Host::Vip, way.port());
            (lost.ttl, lost.payload) = (ttl, vec![0x5a; 8_000]);
            let told = world.check(&lost.build())?;
            ensure!(told.effects.events == [wanted], "{family:?}: {:?}", told.verdict);
        }
        // Nobody sends errors as long as that. They are handed on all the same.
        let lost = fixture::packet(family, Protocol::Udp, fixture::Host::Vip, fixture::Way::Ipip.port());
        let kind = if family == fixture::Family::V4 { (3, 1) } else { (1, 3) };
        let (mut about_tunnel, _) = error_about(&mut world, &lost, kind, 0)?;
        let mut reply = lost.clone();
        (reply.source, reply.destination) = (lost.destination, lost.source);
        (reply.source_port, reply.destination_port) = (lost.destination_port, lost.source_port);
        reply.payload = vec![0x5a; 8_000];
        about_tunnel.body.extend(vec![0x5a; 8_000]);
        for message in [Message::new(lost.source, vip, kind, reply.ip()), about_tunnel] {
            let told = world.check(&message.build())?;
            ensure!(told.effects.events == [Event::ErrorRelayed], "{family:?}: {:?}", told.verdict);
        }
    }
    world.audit()
}

fn jumbo_through_nat(s: &mut NatStory, len: usize, tags: usize) -> Result<()> {
    let long = |packet: Packet| {
        let headers = packet.l4() + Protocol::Tcp.header_len();
        let payload = (0..len - headers).map(|at| (at / 7) as u8).collect();
        Packet { payload, ..packet.with_tags(tags) }
    };
    let sent = long(s.sends(SYN));
    let flow = s.reaches(&sent)?;
    let (_, made) = s.made(&sent, &flow)?;
    let answer = long(s.answers(ACK)?);
    let Verdict::Transmit(back) = s.world.check(&answer.build())?.verdict else { anyhow::bail!("no reply") };
    let got = s.made_for_client(&answer);
    ensure!(back[answer.l3()..] == got.ip()[..], "another reply");
    // Errors about them, with all that there is of them.
    let router = fixture::client(s.family, 0x4444);
    let kind = if s.family == fixture::Family::V4 { (3, 1) } else { (1, 3) };
    for quoted in [made, got] {
        let message = Message::new(router, quoted.source, kind, quoted.ip()[..len - 100].to_vec());
        let told = s.world.check(&message.build())?;
        ensure!(told.effects.events == [Event::ErrorRelayed], "{:?}", told.verdict);
    }
    Ok(())
}

fn check(world: &World, way: Way, number: u16, tags: usize, len: usize) -> Result<()> {
    let packet = packet(way, number, tags, len);
    ensure!(packet.ip().len() == len, "the test's packet is {} bytes long", packet.ip().len());
    let wanted = if way.forwarding == FORWARDING_L2_DSR {
        [packet.l2(MAC, SOURCE_MAC), packet.ip()].concat()
    } else {
        let inner = Packet { ttl: packet.ttl - 1, ..packet.clone() }.ip();
        let (tunnel, covers) = match way.forwarding {
            FORWARDING_GUE => (Tunnel::Gue, SlotHash::Flow),
            _ => (Tunnel::Ipip, SlotHash::Source),
        };
        let ends = (source(way), backend(way, number));
        let outer = outer(&packet, ends, tunnel, hash(world, &packet, covers))?;
        [l2(&packet, way), outer, inner].concat()
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
        rejects: false,
    })
}

const SLOTS: u32 = 1024;

fn source(way: Way) -> IpAddr {
    way.backends.address(1)
}

fn backend(way: Way, number: u16) -> IpAddr {
    way.backends.address(0x200 + number)
}
