//! Fragments, rule by rule (docs/packet-path.md, section 2), for both families. What NAT does to them is in
//! `packet_nat.rs`.

use anyhow::{Context, Result, ensure};
use lb_common::abi::{DropReason, FRAGMENT_ENTRIES};
use lb_tests::model::{Protocol, Verdict};
use lb_tests::packet::fixture::{Family, Host, SMALL_MTU, Way, client, packet, world};
use lb_tests::packet::message::Message;
use lb_tests::packet::modes::Mode;
use lb_tests::packet::pieces::{self, Extension};
use lb_tests::packet::{Packet, World};
use lb_tests::require_root;

/// A datagram in parts of 512 bytes.
fn parts(family: Family, host: Host, port: u16, identification: u32) -> Vec<Vec<u8>> {
    let packet = long(family, host, port);
    pieces::fragments(&packet.build(), packet.l3(), identification, 512)
}

fn long(family: Family, host: Host, port: u16) -> Packet {
    let mut long = packet(family, Protocol::Udp, host, port);
    long.payload = (0..1900_u16).map(|byte| byte as u8).collect();
    long
}

fn verdict(world: &mut World, frame: &[u8]) -> Result<Verdict> {
    Ok(world.check(frame)?.verdict)
}

const DROPPED: Verdict = Verdict::Drop(DropReason::Fragment);

/// Every forwarding mode that leaves the packet alone.
const PORTS: [u16; 8] = [
    Way::L2Dsr.port(),
    Way::Ipip.port(),
    Way::IpipElsewhere.port(),
    Mode::Gue.port(),
    Mode::GueByFlow.port(),
    Mode::GueTracked.port(),
    Mode::GueMixed.port(),
    Mode::IpipMixed.port(),
];

/// They arrive at one backend, with outer headers of one flow.
#[test]
fn all_fragments_follow_the_first() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for (number, port) in PORTS.into_iter().enumerate() {
            let mut heads = Vec::new();
            for frame in parts(family, Host::Vip, port, 100 + number as u32) {
                let out = match verdict(&mut world, &frame)? {
                    Verdict::Transmit(out) | Verdict::Redirect(out) => out,
                    other => anyhow::bail!("{port}: {other:?}"),
                };
                // MAC addresses, and of IPv6 the flow label.
                heads.push((out[..14].to_vec(), out[14] >> 4 == 6, out[14..18].to_vec()));
            }
            ensure!(heads.len() == 4);
            let same =
                |head: &(Vec<u8>, bool, Vec<u8>)| head.0 == heads[0].0 && (!head.1 || head.2 == heads[0].2);
            ensure!(heads.iter().all(same), "{family:?} {port}: {heads:x?}");
        }
    }
    world.audit()
}

#[test]
fn fragments_before_the_first_are_dropped_and_counted() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for port in PORTS {
            let mut frames = parts(family, Host::Vip, port, u32::from(port));
            frames.reverse();
            let (first, others) = frames.split_last().context("there are some")?;
            for other in others {
                ensure!(verdict(&mut world, other)? == DROPPED, "{family:?} {port}");
            }
            ensure!(verdict(&mut world, first)? != DROPPED);
            for other in others {
                ensure!(verdict(&mut world, other)? != DROPPED, "{family:?} {port}");
            }
        }
    }
    world.audit()
}

#[test]
fn the_first_fragment_is_remembered_for_five_seconds() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        world.set_time(100);
        let frames = parts(family, Host::Vip, Way::L2Dsr.port(), 7);
        ensure!(matches!(verdict(&mut world, &frames[0])?, Verdict::Transmit(_)));
        world.set_time(105);
        ensure!(matches!(verdict(&mut world, &frames[1])?, Verdict::Transmit(_)));
        world.set_time(106);
        ensure!(verdict(&mut world, &frames[2])? == DROPPED, "{family:?}");
    }
    world.audit()
}

#[test]
fn fragments_of_what_passed_pass_and_so_do_those_for_others() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        // A port of a VIP that has no service.
        for frame in parts(family, Host::Vip, 22, 8) {
            ensure!(verdict(&mut world, &frame)? == Verdict::Pass, "{family:?}");
        }
        for frame in parts(family, Host::NotVip, Way::L2Dsr.port(), 9).iter().rev() {
            ensure!(verdict(&mut world, frame)? == Verdict::Pass, "{family:?}");
        }
    }
    world.audit()
}

/// IPv4 says in each fragment what protocol it is of; in IPv6 nobody can tell.
#[test]
fn of_a_vips_other_protocol_only_ipv6_fragments_are_dropped() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        let frames = parts(family, Host::TcpOnly, 5353, 10);
        let wanted = if family == Family::V4 { Verdict::Pass } else { DROPPED };
        ensure!(verdict(&mut world, &frames[1])? == wanted, "{family:?}");
        ensure!(verdict(&mut world, &frames[0])? == Verdict::Pass);
        ensure!(verdict(&mut world, &frames[1])? == Verdict::Pass, "{family:?}: the first passed");
    }
    world.audit()
}

#[test]
fn what_became_of_the_first_becomes_of_the_others() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for port in [Way::NoBackend.port(), Way::Disabled.port(), Way::Unresolved.port(), Way::Hole.port()] {
            let frames = parts(family, Host::Vip, port, u32::from(port));
            ensure!(matches!(verdict(&mut world, &frames[0])?, Verdict::Drop(_)));
            ensure!(verdict(&mut world, &frames[1])? == DROPPED, "{family:?} {port}");
        }
    }
    world.audit()
}

/// Or they would go where the earlier packet went.
#[test]
fn a_first_fragment_that_is_lost_ends_what_is_known_of_an_earlier_packet() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        let lost = |port: u16| parts(family, Host::Vip, port, 21);
        // Too short for its ports, and of another kind altogether.
        let truncated = {
            let short = packet(family, Protocol::Udp, Host::Vip, Way::L2Dsr.port());
            let mut frame = pieces::fragments(&short.build(), short.l3(), 21, 8).remove(0);
            frame.truncate(frame.len() - 1);
            frame
        };
        let firsts = [
            lost(Way::NoBackend.port()).remove(0),
            lost(Way::Disabled.port()).remove(0),
            lost(Way::Hole.port()).remove(0),
            truncated,
        ];
        for (number, first) in firsts.iter().enumerate() {
            let earlier = parts(family, Host::Vip, Way::L2Dsr.port(), 21);
            ensure!(matches!(verdict(&mut world, &earlier[0])?, Verdict::Transmit(_)));
            ensure!(matches!(verdict(&mut world, &earlier[1])?, Verdict::Transmit(_)));
            ensure!(matches!(verdict(&mut world, first)?, Verdict::Drop(_)), "{family:?} {number}");
            ensure!(verdict(&mut world, &earlier[2])? == DROPPED, "{family:?} {number}");
        }
    }
    world.audit()
}

#[test]
fn a_backend_that_was_disabled_meanwhile_gets_no_more_of_them() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for port in [Way::L2Dsr.port(), Mode::Gue.port()] {
            let frames = parts(family, Host::Vip, port, u32::from(port));
            let counted = world.check(&frames[0])?.counted.context("it was forwarded")?;
            let change = |world: &mut World, open| {
                world.change_backend(counted.backend, |backend| backend.accepts_existing_flows = open)
            };
            change(&mut world, false)?;
            let disabled = Verdict::Drop(DropReason::BackendDisabled);
            ensure!(verdict(&mut world, &frames[1])? == disabled, "{family:?} {port}");
            change(&mut world, true)?;
        }
    }
    world.audit()
}

/// TTL and size are checked of each, and nobody is told.
#[test]
fn a_later_fragment_is_never_answered() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        let mut frames = parts(family, Host::Vip, Way::Ipip.port(), 12);
        ensure!(matches!(verdict(&mut world, &frames[0])?, Verdict::Transmit(_)));
        frames[1][14 + if family == Family::V4 { 8 } else { 7 }] = 1;
        ensure!(verdict(&mut world, &frames[1])? == Verdict::Drop(DropReason::TtlExpired), "{family:?}");

        let packet = long(family, Host::Vip, Way::SmallMtu.port());
        let small = pieces::fragments(&packet.build(), packet.l3(), 13, 512);
        let large = pieces::fragments(&packet.build(), packet.l3(), 13, SMALL_MTU as usize / 8 * 8);
        ensure!(matches!(verdict(&mut world, &small[0])?, Verdict::Transmit(_)));
        let wanted = Verdict::Drop(DropReason::PacketTooBig);
        ensure!(verdict(&mut world, &large[1][..])? != DROPPED);
        let mut padded = large[1].clone();
        // As long as it has to be: the second part of the large ones is too short.
        let missing = SMALL_MTU as usize + 14 - padded.len().min(SMALL_MTU as usize + 14);
        padded.extend(std::iter::repeat_n(0, missing));
        let (at, less) = if family == Family::V4 { (16, 14) } else { (18, 54) };
        let len = (padded.len() - less) as u16;
        padded[at..at + 2].copy_from_slice(&len.to_be_bytes());
        ensure!(verdict(&mut world, &padded)? == wanted, "{family:?}");
    }
    world.audit()
}

/// Of so many that they don't all fit, the later ones are remembered.
#[test]
fn the_oldest_packets_are_forgotten_first() -> Result<()> {
    require_root!(Ok(()));
    const XDP_DROP: u32 = 1;
    const XDP_TX: u32 = 3;
    let world = world()?;
    let known = FRAGMENT_ENTRIES as usize;
    for family in Family::BOTH {
        let packets: Vec<_> = (0..2 * known as u32)
            .map(|number| {
                // Not more than there are identifications, and not all of one client.
                let mut long = long(family, Host::Vip, Way::L2Dsr.port());
                long.source = client(family, (number % 64) as u16);
                let mut frames = pieces::fragments(&long.build(), long.l3(), number / 64, 1024);
                (frames.remove(0), frames.remove(0))
            })
            .collect();
        for (first, _) in &packets {
            ensure!(world.run(first)?.code == XDP_TX);
        }
        let mut found = 0;
        for (number, (_, other)) in packets.iter().enumerate() {
            let code = world.run(other)?.code;
            ensure!(code == XDP_TX || code == XDP_DROP, "verdict {code}");
            found += usize::from(code == XDP_TX);
            // The kernel evicts some at a time, on each CPU.
            ensure!(code == XDP_DROP || number >= known / 2, "{family:?}: number {number} was remembered");
            let is_late = number >= packets.len() - known / 2;
            ensure!(code == XDP_TX || !is_late, "{family:?}: number {number} was forgotten");
        }
        ensure!(found <= known, "{family:?}: {found} are remembered");
        println!("{family:?}: {found} of {} are remembered", packets.len());
    }
    Ok(())
}

#[test]
fn fragments_of_two_packets_are_not_mixed_up() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        let frames = parts(family, Host::Vip, Way::L2Dsr.port(), 0x0001_0014);
        ensure!(matches!(verdict(&mut world, &frames[0])?, Verdict::Transmit(_)));
        // Another identification, another client.
        let others = [parts(family, Host::Vip, Way::L2Dsr.port(), 0x0001_0015), {
            let mut other = long(family, Host::Vip, Way::L2Dsr.port());
            other.source = client(family, 1234);
            pieces::fragments(&other.build(), other.l3(), 0x0001_0014, 512)
        }];
        for other in others {
            ensure!(verdict(&mut world, &other[1])? == DROPPED, "{family:?}");
        }
    }
    world.audit()
}

#[test]
fn a_first_fragment_without_its_header_is_truncated() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        let mut tcp = packet(family, Protocol::Tcp, Host::Vip, Way::L2Dsr.port());
        tcp.payload = vec![1; 64];
        let frames = pieces::fragments(&tcp.build(), tcp.l3(), 30, 16);
        let wanted = Verdict::Drop(DropReason::TruncatedHeader);
        ensure!(verdict(&mut world, &frames[0])? == wanted, "{family:?}");
        ensure!(verdict(&mut world, &frames[1])? == DROPPED, "{family:?}");
    }
    world.audit()
}

#[test]
fn fragments_of_icmp_are_dropped_if_they_are_for_a_vip() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for (host, wanted) in [(Host::Vip, DROPPED), (Host::NotVip, Verdict::Pass)] {
            let mut echo = Message::echo(client(family, 1), host.address(family), 1, false);
            echo.body = vec![7; 1000];
            for frame in pieces::fragments(&echo.build(), echo.l3(), 31, 512) {
                ensure!(verdict(&mut world, &frame)? == wanted, "{family:?} {host:?}");
            }
        }
    }
    world.audit()
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for port in PORTS {
        let packet = packet(Family::V6, Protocol::Udp, Host::Vip, port);
        let mut frame = packet.build();
        pieces::extend(&mut frame, packet.l3(), &[Extension::fragment(40, 0, false)]);
        let decision = world.check(&frame)?;
        ensure!(decision.counted.is_some() && decision.effects.note.is_none(), "{port}");
    }
    world.audit()
}
