//! Tunnels of every kind, with backends of both families.

use anyhow::{Result, ensure};
use lb_common::abi::DropReason;
use lb_tests::model::Protocol::{self, Tcp};
use lb_tests::model::{Verdict, decide};
use lb_tests::packet::fixture::{Family, Host, MTU, SMALL_MTU, packet, world};
use lb_tests::packet::modes::Mode;
use lb_tests::packet::{Case, Expect, PLAIN, Packet, SYN, run_table};
use lb_tests::require_root;

#[test]
fn packets_leave_in_the_tunnel_of_their_service() -> Result<()> {
    require_root!(Ok(()));
    let variants = run_table(&mut world()?, TUNNELLED)?;
    println!("{variants} variants of {} cases", TUNNELLED.len());
    Ok(())
}

#[test]
fn packets_that_a_tunnel_does_not_take_are_answered() -> Result<()> {
    require_root!(Ok(()));
    let variants = run_table(&mut world()?, ANSWERED)?;
    println!("{variants} variants of {} cases", ANSWERED.len());
    Ok(())
}

/// Every flow of a client has its own source port, and keeps it.
#[test]
fn the_source_port_of_gue_tells_flows_apart() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for mode in [Mode::Gue, Mode::GueByFlow, Mode::GueMixed] {
            let mut ports = std::collections::BTreeSet::new();
            for source_port in 0..500 {
                let mut packet = packet(family, Tcp, Host::Vip, mode.port());
                packet.source_port = source_port;
                let Verdict::Transmit(first) = world.check(&packet.build())?.verdict else {
                    anyhow::bail!("{mode:?}: not sent");
                };
                packet.payload.clear();
                let Verdict::Transmit(second) = world.check(&packet.build())?.verdict else {
                    anyhow::bail!("{mode:?}: not sent");
                };
                let at = 14 + if mode.backend_family(family) == Family::V4 { 20 } else { 40 };
                let port = u16::from_be_bytes([first[at], first[at + 1]]);
                ensure!(port >= 0xc000, "{port} is no dynamic port");
                ensure!(first[at..at + 2] == second[at..at + 2], "a flow's packets go different ways");
                ports.insert(port);
            }
            // Of 16,384 ports 500 flows have about 492.
            ensure!(ports.len() > 470, "{mode:?}: {} ports", ports.len());
        }
    }
    world.audit()
}

/// The inner header checksum is mended by the TTL, and the outer one is made: right for every value that they may have.
#[test]
fn header_checksums_are_right_for_every_value() -> Result<()> {
    require_root!(Ok(()));
    let world = world()?;
    for mode in [Mode::Gue, Mode::GueMixed, Mode::IpipMixed] {
        for identification in 0..=u16::MAX {
            let mut packet = packet(Family::V4, Tcp, Host::Vip, mode.port());
            packet.identification = identification;
            packet.payload.clear();
            let frame = packet.build();
            let out = world.run(&frame)?.frame;
            let outer = match mode.backend_family(Family::V4) {
                Family::V4 => {
                    ensure!(lb_tests::model::checksum(&out[14..34]) == 0, "outer, {identification:#x}");
                    20
                }
                Family::V6 => 40,
            };
            let inner =
                14 + outer + if mode.forwarding() == lb_tests::model::Forwarding::Gue { 8 } else { 0 };
            let sent = Packet { ttl: packet.ttl - 1, ..packet };
            ensure!(out[inner..] == sent.ip()[..], "inner, {identification:#x}");
        }
    }
    Ok(())
}

#[test]
fn a_frame_without_headroom_for_gue_is_dropped_by_name() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for mode in [Mode::Gue, Mode::GueMixed, Mode::IpipMixed] {
            let frame = packet(family, Protocol::Tcp, Host::Vip, mode.port()).build();
            let mut decision = decide(&world.state, &frame);
            // Of 256 bytes the kernel keeps 40 to itself, so 4 are left.
            decision.verdict = Verdict::Drop(DropReason::NoHeadroom);
            decision.counted = None;
            world.expect(&frame, 256 - 40 - 4, &decision)?;
        }
    }
    world.audit()
}

const TUNNELLED: &[Case] = &[
    Case { description: "gue", port: Mode::Gue.port(), expect: Expect::Gue, ..PLAIN },
    Case { description: "gue by flow hash", port: Mode::GueByFlow.port(), expect: Expect::Gue, ..PLAIN },
    Case { description: "gue, tracked", port: Mode::GueTracked.port(), expect: Expect::Gue, ..PLAIN },
    Case {
        description: "gue over another interface redirects",
        port: Mode::GueElsewhere.port(),
        expect: Expect::GueElsewhere,
        ..PLAIN
    },
    Case {
        description: "gue to backends of the other family",
        port: Mode::GueMixed.port(),
        expect: Expect::Gue,
        ..PLAIN
    },
    Case {
        description: "ipip to backends of the other family",
        port: Mode::IpipMixed.port(),
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "DSCP and ECN go outwards",
        port: Mode::Gue.port(),
        shape: |packet| packet.traffic_class = 0xbb,
        expect: Expect::Gue,
        ..PLAIN
    },
    Case {
        description: "DSCP and ECN go outwards into the other family",
        port: Mode::IpipMixed.port(),
        shape: |packet| packet.traffic_class = 0xbb,
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "a packet that may be fragmented keeps that",
        port: Mode::Gue.port(),
        shape: may_be_fragmented,
        expect: Expect::Gue,
        ..PLAIN
    },
    Case {
        description: "what may be fragmented inside has no place to say so outside",
        port: Mode::GueMixed.port(),
        shape: may_be_fragmented,
        expect: Expect::Gue,
        ..PLAIN
    },
    Case {
        description: "IP options go inside",
        port: Mode::GueMixed.port(),
        families: &[Family::V4],
        shape: |packet| packet.options = vec![1; 40],
        expect: Expect::Gue,
        ..PLAIN
    },
    Case {
        description: "Ethernet padding stays behind and counts nowhere",
        port: Mode::GueMixed.port(),
        shape: |packet| packet.padding = 17,
        expect: Expect::Gue,
        ..PLAIN
    },
    Case {
        description: "no payload at all, and a SYN",
        port: Mode::IpipMixed.port(),
        shape: |packet| {
            packet.payload.clear();
            packet.tcp_flags = SYN;
        },
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "the last TTL that can be forwarded",
        port: Mode::GueMixed.port(),
        shape: |packet| packet.ttl = 2,
        expect: Expect::Gue,
        ..PLAIN
    },
    Case {
        description: "the largest packet that fits into gue",
        port: Mode::GueSmall.port(),
        shape: |packet| fill(packet, fits(packet, false, 8)),
        expect: Expect::Gue,
        ..PLAIN
    },
    Case {
        description: "the largest packet that fits into gue of the other family",
        port: Mode::GueMixedSmall.port(),
        shape: |packet| fill(packet, fits(packet, true, 8)),
        expect: Expect::Gue,
        ..PLAIN
    },
    Case {
        description: "the largest packet that fits into ipip of the other family",
        port: Mode::IpipMixedSmall.port(),
        shape: |packet| fill(packet, fits(packet, true, 0)),
        expect: Expect::Ipip,
        ..PLAIN
    },
];

const ANSWERED: &[Case] = &[
    Case {
        description: "one byte more than fits into gue",
        port: Mode::GueSmall.port(),
        shape: |packet| fill(packet, fits(packet, false, 8) + 1),
        expect: Expect::TooBig(|packet| fits(packet, false, 8)),
        ..PLAIN
    },
    Case {
        description: "one byte more than fits into gue of the other family",
        port: Mode::GueMixedSmall.port(),
        shape: |packet| fill(packet, fits(packet, true, 8) + 1),
        expect: Expect::TooBig(|packet| fits(packet, true, 8)),
        ..PLAIN
    },
    Case {
        description: "one byte more than fits into ipip of the other family",
        port: Mode::IpipMixedSmall.port(),
        shape: |packet| fill(packet, fits(packet, true, 0) + 1),
        expect: Expect::TooBig(|packet| fits(packet, true, 0)),
        ..PLAIN
    },
    Case {
        description: "a packet that may be fragmented is not fragmented here",
        port: Mode::GueSmall.port(),
        shape: |packet| {
            may_be_fragmented(packet);
            fill(packet, 1400);
        },
        expect: Expect::TooBig(|packet| fits(packet, false, 8)),
        ..PLAIN
    },
    Case {
        description: "a link that takes less than the packet has, without a tunnel",
        port: Mode::L2DsrSmall.port(),
        shape: |packet| fill(packet, SMALL_MTU + 1),
        expect: Expect::TooBig(|_| SMALL_MTU),
        ..PLAIN
    },
    Case {
        description: "IPv6 is told what it can do something with",
        families: &[Family::V6],
        port: Mode::Gue.port(),
        shape: |packet| fill(packet, MTU),
        expect: Expect::TooBig(|_| MTU - 48),
        ..PLAIN
    },
    Case {
        description: "an expired packet for gue",
        port: Mode::Gue.port(),
        shape: |packet| packet.ttl = 1,
        expect: Expect::TimeExceeded,
        ..PLAIN
    },
    Case {
        description: "an expired packet that would not fit either",
        port: Mode::GueMixedSmall.port(),
        shape: |packet| {
            packet.ttl = 0;
            fill(packet, 1400);
        },
        expect: Expect::TimeExceeded,
        ..PLAIN
    },
];

fn may_be_fragmented(packet: &mut Packet) {
    (packet.dont_fragment, packet.identification) = (false, 0xbeef);
}

/// The largest packet that the small link takes.
fn fits(packet: &Packet, is_mixed: bool, udp: u32) -> u32 {
    let outer = if packet.source.is_ipv4() != is_mixed { 20 } else { 40 };
    SMALL_MTU - outer - udp
}

/// Makes the packet so long.
fn fill(packet: &mut Packet, len: u32) {
    packet.payload.clear();
    let headers = packet.ip().len() - packet.padding;
    packet.payload = vec![0x5a; len as usize - headers];
}
