//! Who may send to a service, and how many flows it opens a second.

use anyhow::{Result, ensure};
use lb_common::abi::DropReason;
use lb_tests::model::{Prefix, Protocol, Verdict, mapped};
use lb_tests::packet::fixture::{Family, Host, client, packet, world};
use lb_tests::packet::modes::{LIMIT, LIST, Mode};
use lb_tests::packet::{ACK, FIN, Packet, RST, SYN, World};
use lb_tests::require_root;

fn send(world: &mut World, packet: &Packet) -> Result<Option<DropReason>> {
    Ok(match world.check(&packet.build())?.verdict {
        Verdict::Drop(reason) => Some(reason),
        Verdict::Pass => anyhow::bail!("a packet for a service passed"),
        _ => None,
    })
}

#[test]
fn the_longest_prefix_that_covers_a_client_decides() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for mode in [Mode::Guarded, Mode::NatGuarded] {
                // The last one denies all, a longer one allows four, the longest denies one of them.
                for (number, wanted) in
                    [(0, true), (1, true), (2, false), (3, true), (4, false), (900, false)]
                {
                    let mut packet = packet(family, protocol, Host::Vip, mode.port());
                    packet.source = client(family, number);
                    packet.tcp_flags = SYN;
                    let refused = send(&mut world, &packet)?;
                    let denied = Some(DropReason::SourceDenied).filter(|_| !wanted);
                    ensure!(refused == denied, "{family:?} {protocol:?} {mode:?} {number}: {refused:?}");
                }
            }
        }
    }
    world.audit()
}

#[test]
fn every_packet_of_a_denied_client_is_dropped_and_not_just_the_first() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for flags in [SYN, ACK, FIN | ACK, RST, 0] {
            let mut packet = packet(family, Protocol::Tcp, Host::Vip, Mode::Guarded.port());
            packet.source = client(family, 77);
            packet.tcp_flags = flags;
            ensure!(send(&mut world, &packet)? == Some(DropReason::SourceDenied), "flags {flags:#x}");
        }
    }
    world.audit()
}

#[test]
fn a_client_that_no_prefix_covers_is_allowed() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    let list = LIST + 5;
    let guarded = Mode::Guarded.port();
    for service in &mut world.state.services {
        if service.port == Some(guarded) {
            service.source_list = list;
        }
    }
    world.publish()?;
    for family in Family::BOTH {
        let (address, bits) = (mapped(client(family, 5)), 128);
        world.add_prefix(Prefix { list, address, bits, allows: false })?;
        for (number, wanted) in [(4, None), (5, Some(DropReason::SourceDenied)), (6, None)] {
            let mut packet = packet(family, Protocol::Udp, Host::Vip, guarded);
            packet.source = client(family, number);
            ensure!(send(&mut world, &packet)? == wanted, "{family:?} {number}");
        }
    }
    world.audit()
}

/// Of every length there is, one bit inside and one outside.
#[test]
fn prefixes_of_every_length_end_where_they_say() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    let guarded = Mode::Guarded.port();
    for family in Family::BOTH {
        let base = u128::from(mapped(client(family, 0x5555)));
        let (shortest, last) = if family == Family::V4 { (97, 128) } else { (1, 128) };
        for bits in shortest..=last {
            let list = 1000 * (1 + family as u32) + bits;
            for service in &mut world.state.services {
                if service.port == Some(guarded) {
                    service.source_list = list;
                }
            }
            world.publish()?;
            let address = std::net::Ipv6Addr::from(base >> (128 - bits) << (128 - bits));
            world.add_prefix(Prefix { list, address, bits, allows: false })?;
            let inside = if bits == 128 { base } else { base ^ 1 };
            let outside = base ^ 1 << (128 - bits);
            for (source, wanted) in [(inside, Some(DropReason::SourceDenied)), (outside, None)] {
                let mut packet = packet(family, Protocol::Udp, Host::Vip, guarded);
                let source = std::net::Ipv6Addr::from(source);
                packet.source = match family {
                    Family::V4 => source.to_ipv4_mapped().expect("an IPv4 address").into(),
                    Family::V6 => source.into(),
                };
                ensure!(send(&mut world, &packet)? == wanted, "{family:?} {source}/{bits}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_service_opens_so_many_flows_a_second_and_no_more() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    world.set_time(1000);
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for mode in [Mode::Limited, Mode::NatLimited] {
                for _ in 0..3 {
                    world.set_time(world.state.now + 1);
                    let mut packet = packet(family, protocol, Host::Vip, mode.port());
                    packet.tcp_flags = SYN;
                    for number in 0..LIMIT as u16 + 3 {
                        packet.source_port = number + 100 * (world.state.now - 1000) as u16;
                        let refused = send(&mut world, &packet)?;
                        let limit = Some(DropReason::NewFlowLimit).filter(|_| number >= LIMIT as u16);
                        ensure!(refused == limit, "{family:?} {protocol:?} {mode:?} {number}: {refused:?}");
                    }
                }
            }
        }
    }
    world.audit()
}

#[test]
fn packets_of_open_flows_need_no_leave() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    world.set_time(1000);
    for family in Family::BOTH {
        for mode in [Mode::Limited, Mode::NatLimited] {
            for protocol in Protocol::BOTH {
                let mut packet = packet(family, protocol, Host::Vip, mode.port());
                packet.tcp_flags = SYN;
                for number in 0..LIMIT as u16 {
                    packet.source_port = number;
                    ensure!(send(&mut world, &packet)?.is_none());
                }
                for number in 0..LIMIT as u16 {
                    packet.source_port = number;
                    packet.tcp_flags = ACK;
                    ensure!(send(&mut world, &packet)?.is_none(), "{protocol:?} {mode:?}");
                }
                packet.tcp_flags = SYN;
                packet.source_port = 0;
                let again = send(&mut world, &packet)?;
                // A SYN opens, even where it did before; the datagram belongs to a flow.
                let wanted = Some(DropReason::NewFlowLimit).filter(|_| protocol == Protocol::Tcp);
                ensure!(again == wanted, "{protocol:?} {mode:?}: {again:?}");
            }
        }
    }
    world.audit()
}

#[test]
fn the_limit_of_one_service_is_not_anothers() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    world.set_time(1000);
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for mode in [Mode::Limited, Mode::NatLimited] {
                let mut packet = packet(family, protocol, Host::Vip, mode.port());
                packet.tcp_flags = SYN;
                ensure!(send(&mut world, &packet)?.is_none(), "{family:?} {protocol:?} {mode:?}");
            }
        }
    }
    world.audit()
}
