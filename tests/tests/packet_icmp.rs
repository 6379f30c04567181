//! ICMP, rule by rule (docs/packet-path.md, section 4), for both families.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use lb_common::abi::DropReason;
use lb_tests::model::{Egress, Event, Pool, Protocol, Verdict};
use lb_tests::packet::fixture::{Exit, Family, Host, MTU, Way, client, packet, world};
use lb_tests::packet::message::Message;
use lb_tests::packet::modes::{self, Mode};
use lb_tests::packet::nat_story::NatStory;
use lb_tests::packet::pieces::{self, Extension};
use lb_tests::packet::tunnel::error_about;
use lb_tests::packet::{ACK, Packet, SYN, fuzz};
use lb_tests::require_root;

fn identifiers() -> Result<impl Iterator<Item = u16>> {
    let count = fuzz::packets(65_536)?.max(1);
    Ok((0..=u16::MAX).step_by((65_536 / count) as usize))
}

/// Back to where the message came from, with other bytes.
fn back(message: &Message, ip: &[u8]) -> Vec<u8> {
    let frame = message.build();
    [&frame[6..12], &frame[..6], &frame[12..message.l3()], ip].concat()
}

#[test]
fn echo_requests_to_a_vip_are_answered_for_every_identifier() -> Result<()> {
    require_root!(Ok(()));
    let world = world()?;
    for family in Family::BOTH {
        let vip = Host::Vip.address(family);
        for identifier in identifiers()? {
            let request = Message::echo(client(family, 3), vip, identifier, false);
            let reply = Message { ttl: 64, ..Message::echo(vip, client(family, 3), identifier, true) };
            let out = world.run(&request.build())?.frame;
            ensure!(out == back(&request, &reply.ip()), "{family:?} {identifier:#x}");
        }
    }
    Ok(())
}

#[test]
fn echo_keeps_tags_and_counts() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for host in [Host::Vip, Host::EveryPort, Host::TcpOnly, Host::NatEveryPort] {
            for tags in 0..=2 {
                let mut request = Message::echo(client(family, 3), host.address(family), 1, false);
                request.tags = packet(family, Protocol::Udp, host, 1).with_tags(tags).tags;
                request.ttl = 1;
                let decision = world.check(&request.build())?;
                ensure!(decision.effects.events == [Event::EchoReply], "{:?}", decision.verdict);
            }
        }
    }
    world.audit()
}

#[test]
fn other_icmp_passes() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        let of = |host: Host| Message::echo(client(family, 3), host.address(family), 1, false);
        let vip = of(Host::Vip);
        let reply = if family == Family::V4 { 0 } else { 129 };
        // Neighbour discovery, timestamps, queries.
        let kinds = if family == Family::V4 { [5, 13, 17, 4, 10] } else { [133, 135, 136, 137, 130] };
        let mut others = vec![of(Host::NotVip), Message { kind: reply, ..vip.clone() }];
        others.push(Message { code: 1, ..vip.clone() });
        others.extend(kinds.map(|kind| Message { kind, ..vip.clone() }));
        for other in others {
            let verdict = world.check(&other.build())?.verdict;
            ensure!(verdict == Verdict::Pass, "{other:?}: {verdict:?}");
        }
    }
    world.audit()
}

/// Addresses that are no single host's, and their neighbours that are.
const SOURCES: [(&str, bool); 18] = [
    ("0.0.0.0", false),
    ("0.255.255.255", false),
    ("1.0.0.0", true),
    ("126.255.255.255", true),
    ("127.0.0.1", false),
    ("127.255.255.255", false),
    ("128.0.0.0", true),
    ("223.255.255.255", true),
    ("224.0.0.1", false),
    ("240.0.0.1", false),
    ("255.255.255.255", false),
    ("::", false),
    ("::1", false),
    ("::2", true),
    ("1::1", true),
    ("feff:ffff::1", true),
    ("ff00::", false),
    ("ff02::1", false),
];

#[test]
fn nobody_is_answered_who_is_no_single_host() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for (source, is_answered) in SOURCES {
        let source: IpAddr = source.parse()?;
        let family = if source.is_ipv4() { Family::V4 } else { Family::V6 };
        let echo = Message::echo(source, Host::Vip.address(family), 1, false);
        let answered = world.check(&echo.build())?.verdict != Verdict::Pass;
        ensure!(answered == is_answered, "echo to {source}");
        let mut expired = packet(family, Protocol::Udp, Host::Vip, Way::Ipip.port());
        (expired.source, expired.ttl) = (source, 1);
        let dropped = world.check(&expired.build())?.verdict == Verdict::Drop(DropReason::TtlExpired);
        ensure!(dropped != is_answered, "time exceeded to {source}");
        let mut large = packet(family, Protocol::Udp, Host::Vip, Way::SmallMtu.port());
        (large.source, large.payload) = (source, vec![0; 1200]);
        let dropped = world.check(&large.build())?.verdict == Verdict::Drop(DropReason::PacketTooBig);
        ensure!(dropped != is_answered, "too big to {source}");
    }
    world.audit()
}

#[test]
fn a_cpu_makes_a_thousand_errors_a_second() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    world.set_time(100);
    let mut expired = packet(Family::V4, Protocol::Udp, Host::Vip, Way::Ipip.port());
    expired.ttl = 1;
    let frame = expired.build();
    for cpu in world.cpus().to_vec() {
        world.run_on_cpu(cpu)?;
        for number in 0..1005 {
            let events = world.check(&frame)?.effects.events;
            let wanted = if number < 1000 { Event::TimeExceededSent } else { Event::ErrorLimited };
            ensure!(events == [wanted], "CPU {cpu}, {number}: {events:?}");
        }
    }
    world.set_time(101);
    ensure!(world.check(&frame)?.effects.events == [Event::TimeExceededSent]);
    world.audit()
}

/// Errors of every kind, about a reply that the client never got.
fn errors_about(reply: &Packet, from: IpAddr, quoted: usize) -> Vec<Message> {
    let mut quote = reply.ip();
    quote.truncate(quoted);
    let kinds: &[(u8, u8)] = if from.is_ipv4() {
        &[(3, 1), (3, 3), (3, 4), (11, 0), (11, 1), (12, 0)]
    } else {
        &[(1, 0), (1, 4), (2, 0), (3, 0), (4, 0)]
    };
    let to = reply.source;
    kinds
        .iter()
        .map(|&kind| Message { rest: [0, 0, 5, 0x78], ..Message::new(from, to, kind, quote.clone()) })
        .collect()
}

/// The packet of the backend's that the client would get.
fn reply_to(packet: &Packet) -> Packet {
    Packet {
        source: packet.destination,
        source_port: packet.destination_port,
        destination: packet.source,
        destination_port: packet.source_port,
        ..packet.clone()
    }
}

#[test]
fn an_error_about_a_flow_goes_to_its_backend_as_it_is() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    let ports = [
        Way::L2Dsr.port(),
        Way::L2DsrByFlow.port(),
        Way::Ipip.port(),
        Way::IpipByFlow.port(),
        Mode::Gue.port(),
        Mode::GueMixed.port(),
        Mode::IpipMixed.port(),
    ];
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for port in ports {
                for number in 0..20 {
                    let mut packet = packet(family, protocol, Host::Vip, port);
                    packet.source = client(family, number);
                    packet.tcp_flags = SYN;
                    let opened = world.check(&packet.build())?.counted.context("it is forwarded")?;
                    let reply = reply_to(&packet);
                    let least = if family == Family::V4 { 28 } else { 48 };
                    for message in errors_about(&reply, client(family, 0x7777), least) {
                        let told = world.check(&message.build())?;
                        let counted =
                            told.counted.with_context(|| format!("{message:?}: {:?}", told.verdict))?;
                        ensure!(counted.backend == opened.backend, "{message:?} reached another backend");
                        ensure!(!counted.new_flow && told.effects.events == [Event::ErrorRelayed]);
                        // All of it is at the end of what left, but for the TTL of tunnels.
                        let (Verdict::Transmit(out) | Verdict::Redirect(out)) = told.verdict else {
                            anyhow::bail!("not sent");
                        };
                        ensure!(out.ends_with(&message.icmp()), "{message:?} was changed");
                    }
                }
            }
        }
    }
    world.audit()
}

#[test]
fn what_cannot_be_read_of_a_quote_passes() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        let packet = packet(family, Protocol::Udp, Host::Vip, Way::L2Dsr.port());
        let whole = reply_to(&packet);
        let least = if family == Family::V4 { 28 } else { 48 };
        for quoted in 0..least {
            for message in errors_about(&whole, client(family, 0x7777), quoted) {
                ensure!(world.check(&message.build())?.verdict == Verdict::Pass, "{quoted} bytes");
            }
        }
        let others: [fn(&mut Packet); 3] = [
            |reply| reply.source_port = 22,
            |reply| reply.options = if reply.source.is_ipv4() { vec![1; 8] } else { vec![] },
            |reply| reply.source = client(if reply.source.is_ipv4() { Family::V4 } else { Family::V6 }, 5),
        ];
        // A port without a service; options, whose length counts; a packet that is not the VIP's.
        for (number, change) in others.into_iter().enumerate() {
            let mut reply = whole.clone();
            change(&mut reply);
            for mut message in errors_about(&reply, client(family, 0x7777), least) {
                message.destination = whole.source;
                let passed = world.check(&message.build())?.verdict == Verdict::Pass;
                ensure!(passed || number == 1 && family == Family::V6, "{number} {message:?}");
            }
        }
        // Of a later fragment.
        if family == Family::V4 {
            for mut message in errors_about(&whole, client(family, 0x7777), least) {
                message.body[7] = 9;
                ensure!(world.check(&message.build())?.verdict == Verdict::Pass);
            }
        }
    }
    world.audit()
}

#[test]
fn an_error_is_dropped_for_the_reasons_of_its_service() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    let reasons = [
        (Way::NoBackend, DropReason::NoBackend),
        (Way::Disabled, DropReason::BackendDisabled),
        (Way::Unresolved, DropReason::NextHopUnresolved),
        (Way::Hole, DropReason::NoEgress),
    ];
    for family in Family::BOTH {
        for (way, reason) in reasons {
            let reply = reply_to(&packet(family, Protocol::Tcp, Host::Vip, way.port()));
            for message in errors_about(&reply, client(family, 0x7777), 64) {
                let verdict = world.check(&message.build())?.verdict;
                ensure!(verdict == Verdict::Drop(reason), "{way:?}: {verdict:?}");
            }
        }
        // Errors are not answered.
        let reply = reply_to(&packet(family, Protocol::Tcp, Host::Vip, Way::Ipip.port()));
        for message in errors_about(&reply, client(family, 0x7777), 64) {
            let verdict = world.check(&Message { ttl: 1, ..message }.build())?.verdict;
            ensure!(verdict == Verdict::Drop(DropReason::TtlExpired), "{verdict:?}");
        }
    }
    world.audit()
}

/// What the quoted packets of these tests look like, as far as the reader at the end knows them.
fn quote_of(packet: &Packet, len: usize) -> Vec<u8> {
    let mut quote = packet.ip();
    quote.truncate(len);
    quote
}

#[test]
fn errors_about_replies_reach_the_backend_through_nat() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for mode in [Mode::Dnat, Mode::Nat, Mode::NatEveryPort] {
        for protocol in Protocol::BOTH {
            for family in Family::BOTH {
                let mut s = NatStory::within(world, mode, family, protocol);
                let flow = s.reaches(&s.sends(SYN))?;
                let answer = s.answers(ACK)?;
                for len in [28, 40, 44, 48, 60, 1000] {
                    // What the client got, and what its backend sent.
                    let got = quote_of(&s.made_for_client(&answer), len);
                    let mut sent = s.made_for_client(&answer);
                    sent.source = answer.source;
                    sent.source_port = answer.source_port;
                    (sent.destination, sent.destination_port) = (flow.our_address, flow.our_port);
                    let sent = quote_of(&sent, len);
                    let kind = if family == Family::V4 { (3, 3) } else { (1, 4) };
                    let from = client(family, 0x4444);
                    let vip = mode.host().address(family);
                    let message = Message::new(from, vip, kind, got);
                    let verdict = s.world.check(&message.build())?.verdict;
                    if len < if family == Family::V4 { 28 } else { 48 } {
                        ensure!(verdict == Verdict::Pass);
                        continue;
                    }
                    let (Verdict::Transmit(out) | Verdict::Redirect(out)) = verdict else {
                        anyhow::bail!("{mode:?}: {verdict:?}");
                    };
                    let wanted =
                        Message { ttl: message.ttl - 1, ..Message::new(from, answer.source, kind, sent) };
                    ensure!(out[14..] == wanted.ip()[..], "{mode:?} {protocol:?} {family:?} {len}");
                }
                world = s.end()?;
            }
        }
    }
    Ok(())
}

#[test]
fn errors_about_translated_packets_reach_the_client() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for mode in [Mode::Dnat, Mode::Nat, Mode::NatEveryPort] {
        for protocol in Protocol::BOTH {
            for family in Family::BOTH {
                let mut s = NatStory::within(world, mode, family, protocol);
                let packet = s.sends(SYN);
                let flow = s.reaches(&packet)?;
                let (_, made) = s.made(&packet, &flow)?;
                let vip = mode.host().address(family);
                for router in [client(family, 0x4444), made.destination] {
                    for len in [48, 60, 1000] {
                        let kind = if family == Family::V4 { (3, 4) } else { (2, 0) };
                        let rest = [0, 0, 5, 0];
                        let quote = quote_of(&made, len);
                        let message = Message { rest, ..Message::new(router, made.source, kind, quote) };
                        let verdict = s.world.check(&message.build())?.verdict;
                        let Verdict::Transmit(out) = verdict else { anyhow::bail!("{mode:?}: {verdict:?}") };
                        // As the client knows it, one hop older.
                        let own = quote_of(&Packet { ttl: made.ttl, ..packet.clone() }, len);
                        let from = if router == made.destination { vip } else { router };
                        let wanted = Message::new(from, packet.source, kind, own);
                        let wanted = Message { rest, ttl: message.ttl - 1, ..wanted };
                        ensure!(out[14..] == wanted.ip()[..], "{mode:?} {protocol:?} {family:?} {len}");
                    }
                }
                world = s.end()?;
            }
        }
    }
    Ok(())
}

/// Somebody who routes through here gets an error that quotes one of our packets.
#[test]
fn an_error_for_somebody_else_passes_whatever_it_quotes() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for mode in [Mode::Dnat, Mode::Nat, Mode::NatEveryPort] {
        for protocol in Protocol::BOTH {
            for family in Family::BOTH {
                let mut s = NatStory::within(world, mode, family, protocol);
                let packet = s.sends(SYN);
                let flow = s.reaches(&packet)?;
                let (_, made) = s.made(&packet, &flow)?;
                for message in errors_about(&made, client(family, 0x4444), 64) {
                    let elsewhere = Message { destination: client(family, 0x5555), ..message };
                    let verdict = s.world.check(&elsewhere.build())?.verdict;
                    ensure!(verdict == Verdict::Pass, "{mode:?} {protocol:?} {family:?}: {verdict:?}");
                }
                world = s.end()?;
            }
        }
    }
    Ok(())
}

/// A host with one address has its VIP in `[nat]`, and at the near end of its tunnels.
#[test]
fn a_vip_that_is_one_of_our_own_addresses_is_told_like_any_other() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for protocol in Protocol::BOTH {
        for family in Family::BOTH {
            let vip = Host::Vip.address(family);
            let mut s = NatStory::within(world, Mode::Nat, family, protocol);
            s.world.set_pool(Pool { addresses: vec![vip], ..modes::pool() })?;
            let packet = s.sends(SYN);
            let flow = s.reaches(&packet)?;
            let (_, made) = s.made(&packet, &flow)?;
            ensure!(made.source == vip);
            for message in errors_about(&made, client(family, 0x4444), 64) {
                let told = s.world.check(&message.build())?;
                ensure!(told.effects.events == [Event::ErrorRelayed], "{message:?}: {:?}", told.verdict);
            }
            s.world.set_pool(modes::pool())?;
            world = s.end()?;

            let number = Exit::Same.number(family);
            let own = world.state.egress[&number];
            world.set_egress(number, Egress { source: vip, ..own })?;
            let tunnelled = lb_tests::packet::fixture::packet(family, protocol, Host::Vip, Way::Ipip.port());
            let kind = if family == Family::V4 { (3, 1) } else { (1, 3) };
            let (message, _) = error_about(&mut world, &tunnelled, kind, 0)?;
            ensure!(message.destination == vip);
            let told = world.check(&message.build())?;
            ensure!(told.effects.events == [Event::ErrorRelayed], "a tunnel: {:?}", told.verdict);
            world.set_egress(number, own)?;
        }
    }
    world.audit()
}

#[test]
fn an_authenticated_error_does_not_survive_new_addresses() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for mode in [Mode::Dnat, Mode::Nat, Mode::NatEveryPort] {
        for protocol in Protocol::BOTH {
            let mut s = NatStory::within(world, mode, Family::V6, protocol);
            let packet = s.sends(SYN);
            let flow = s.reaches(&packet)?;
            let (_, sent) = s.made(&packet, &flow)?;
            let got = s.made_for_client(&s.answers(ACK)?);
            for (quoted, ttl) in [(&sent, 57), (&got, 57), (&sent, 1), (&got, 1)] {
                for message in errors_about(quoted, client(Family::V6, 0x4444), 64) {
                    let message = Message { ttl, ..message };
                    let mut frame = message.build();
                    pieces::extend(&mut frame, message.l3(), &[Extension::authentication()]);
                    let verdict = s.world.check(&frame)?.verdict;
                    let lost = verdict == Verdict::Drop(DropReason::ExtensionHeader);
                    ensure!(lost, "{mode:?} {protocol:?} {message:?}: {verdict:?}");
                }
                // About a flow that there is none of it is the host's.
                let stray = Packet { destination_port: quoted.destination_port ^ 1, ..quoted.clone() };
                for message in errors_about(&stray, client(Family::V6, 0x4444), 64) {
                    let mut frame = message.build();
                    pieces::extend(&mut frame, message.l3(), &[Extension::authentication()]);
                    ensure!(s.world.check(&frame)?.verdict == Verdict::Pass, "{mode:?} {protocol:?}");
                }
            }
            world = s.end()?;
        }
    }
    Ok(())
}

/// Every identifier of a quoted packet, which every checksum around it covers.
#[test]
fn relayed_errors_have_right_checksums_for_every_identifier() -> Result<()> {
    require_root!(Ok(()));
    for protocol in Protocol::BOTH {
        let mut s = NatStory::within(world()?, Mode::Nat, Family::V4, protocol);
        let packet = s.sends(SYN);
        let flow = s.reaches(&packet)?;
        let (_, made) = s.made(&packet, &flow)?;
        let router = client(Family::V4, 0x4444);
        for identification in identifiers()? {
            let quote = quote_of(&Packet { identification, ..made.clone() }, 60);
            let message = Message::new(router, made.source, (11, 0), quote);
            let out = s.world.run(&message.build())?.frame;
            let own = quote_of(&Packet { ttl: made.ttl, identification, ..packet.clone() }, 60);
            let wanted = Message::new(router, packet.source, (11, 0), own);
            let wanted = Message { ttl: message.ttl - 1, ..wanted };
            ensure!(out[14..] == wanted.ip()[..], "{protocol:?} {identification:#x}");
        }
    }
    Ok(())
}

/// Anybody can forge what they are made of.
#[test]
fn errors_about_tunnels_are_as_limited_as_others() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    world.set_time(100);
    for (family, kind) in [(Family::V4, (3, 1)), (Family::V6, (1, 3))] {
        let packet = packet(family, Protocol::Udp, Host::Vip, Way::Ipip.port());
        let (message, _) = error_about(&mut world, &packet, kind, 0)?;
        for (made, wanted) in [(998, &[Event::ErrorRelayed][..]), (1000, &[Event::ErrorLimited])] {
            world.set_errors_made(made)?;
            let told = world.check(&message.build())?;
            ensure!(told.effects.events == wanted, "{family:?} {made}: {:?}", told.effects.events);
            ensure!((told.verdict == Verdict::Pass) == (made == 1000), "{:?}", told.verdict);
        }
        // They count for the others, too.
        world.set_errors_made(999)?;
        world.check(&message.build())?;
        let mut expired = packet.clone();
        expired.ttl = 1;
        let told = world.check(&expired.build())?;
        ensure!(told.effects.events == [Event::ErrorLimited], "{family:?}: {:?}", told.effects.events);
    }
    world.audit()
}

#[test]
fn errors_about_tunnels_are_new_errors_to_the_client() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    let tunnels = [
        (Way::Ipip.port(), false, 0),
        (Mode::Gue.port(), false, 8),
        (Mode::IpipMixed.port(), true, 0),
        (Mode::GueMixed.port(), true, 8),
    ];
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for (port, is_mixed, udp) in tunnels {
                let outer = if is_mixed { family.other() } else { family };
                let packet = packet(family, protocol, Host::Vip, port);
                let overhead = udp + if outer == Family::V4 { 20 } else { 40 };
                let (too_big, unreachable) =
                    if outer == Family::V4 { ((3, 4), (3, 1)) } else { ((2, 0), (1, 3)) };
                for kind in [too_big, unreachable] {
                    let (message, left) = error_about(&mut world, &packet, kind, MTU)?;
                    let told = world.check(&message.build())?;
                    ensure!(told.effects.events == [Event::ErrorRelayed], "{kind:?}: {:?}", told.verdict);
                    let Verdict::Transmit(out) = told.verdict else { anyhow::bail!("not sent") };
                    let inside = &left[overhead as usize..];
                    let vip = Host::Vip.address(family);
                    let (kind, rest) = match (kind == too_big, family) {
                        (true, Family::V4) => ((3, 4), MTU - overhead),
                        (true, Family::V6) => ((2, 0), (MTU - overhead).max(1280)),
                        (false, Family::V4) => ((3, 1), 0),
                        (false, Family::V6) => ((1, 3), 0),
                    };
                    let body = inside[..inside.len() / 4 * 4].to_vec();
                    let wanted = Message::new(vip, packet.source, kind, body);
                    let wanted = Message { rest: rest.to_be_bytes(), ttl: 64, ..wanted }.icmp();
                    ensure!(out.ends_with(&wanted), "{family:?} {port} {kind:?}");
                }
            }
        }
    }
    world.audit()
}
