//! Services that reject what they have no backend for (docs/packet-path.md, "Rejected packets"), for both families.

use anyhow::{Result, ensure};
use lb_common::abi::DropReason;
use lb_tests::model::{Event, Protocol, Verdict};
use lb_tests::packet::fixture::{Family, Host, Way, packet, world};
use lb_tests::packet::message::Message;
use lb_tests::packet::pieces::{self, Extension};
use lb_tests::packet::{ACK, FIN, Packet, RST, SYN};
use lb_tests::require_root;

fn rejected(family: Family, protocol: Protocol) -> Packet {
    packet(family, protocol, Host::Vip, Way::Rejects.port())
}

#[test]
fn a_segment_gets_one_rst_that_its_sender_believes() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for tags in 0..=2 {
            for flags in [SYN, SYN | ACK, ACK, ACK | FIN, SYN | FIN, 0, FIN] {
                for (payload, padding) in [(0, 0), (1, 0), (1000, 0), (3, 20)] {
                    let mut segment = rejected(family, Protocol::Tcp).with_tags(tags);
                    (segment.tcp_flags, segment.payload, segment.padding) =
                        (flags, vec![7; payload], padding);
                    segment.ttl = 1;
                    let decision = world.check(&segment.build())?;
                    ensure!(
                        decision.effects.events == [Event::ResetSent],
                        "{flags:#x}: {:?}",
                        decision.verdict
                    );
                    let Verdict::Transmit(out) = &decision.verdict else { anyhow::bail!("not sent") };
                    let headers = if family == Family::V4 { 40 } else { 60 };
                    ensure!(out.len() == segment.l3() + headers, "{} bytes", out.len());
                    // What was made is never answered, or two of us would go on for ever.
                    let again = world.check(out)?.verdict;
                    ensure!(again == Verdict::Pass, "{again:?}");
                }
            }
        }
    }
    world.audit()
}

#[test]
fn a_reset_a_fragment_and_nobodys_segment_are_dropped_and_counted() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    let dropped = Verdict::Drop(DropReason::Rejected);
    for family in Family::BOTH {
        for flags in [RST, RST | ACK, RST | SYN] {
            let mut reset = rejected(family, Protocol::Tcp);
            reset.tcp_flags = flags;
            ensure!(world.check(&reset.build())?.verdict == dropped, "{flags:#x}");
        }
        for source in if family == Family::V4 { ["127.0.0.1", "224.0.0.1"] } else { ["::1", "ff02::1"] } {
            let mut nobodys = rejected(family, Protocol::Tcp);
            (nobodys.source, nobodys.tcp_flags) = (source.parse()?, SYN);
            ensure!(world.check(&nobodys.build())?.verdict == dropped, "{source}");
        }
        let mut long = rejected(family, Protocol::Tcp);
        (long.tcp_flags, long.payload) = (SYN, vec![7; 2000]);
        let parts = pieces::fragments(&long.build(), long.l3(), 7, 1000);
        ensure!(world.check(&parts[0])?.verdict == dropped, "a first fragment");
        ensure!(world.check(&parts[1])?.verdict == Verdict::Drop(DropReason::Fragment), "a later one");
    }
    world.audit()
}

#[test]
fn a_datagram_gets_port_unreachable_as_often_as_any_other_error() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        world.set_time(100 + family as u64);
        let mut datagram = rejected(family, Protocol::Udp);
        datagram.payload = vec![7; 700];
        let frame = datagram.build();
        for number in 0..1001 {
            let decision = world.check(&frame)?;
            let wanted = if number < 1000 { Event::PortUnreachableSent } else { Event::ErrorLimited };
            ensure!(decision.effects.events == [wanted], "{number}: {:?}", decision.effects.events);
        }
        // No RST counts towards that.
        let mut segment = rejected(family, Protocol::Tcp);
        segment.tcp_flags = SYN;
        ensure!(world.check(&segment.build())?.effects.events == [Event::ResetSent]);
    }
    world.audit()
}

#[test]
fn extension_headers_and_options_hide_nothing() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for protocol in Protocol::BOTH {
        let wanted = if protocol == Protocol::Tcp { Event::ResetSent } else { Event::PortUnreachableSent };
        let mut optional = rejected(Family::V4, protocol);
        (optional.tcp_flags, optional.options) = (SYN, vec![1; 8]);
        ensure!(world.check(&optional.build())?.effects.events == [wanted]);
        let mut plain = rejected(Family::V6, protocol);
        plain.tcp_flags = SYN;
        let hop_by_hop = Extension::options(0, 1);
        for extensions in [vec![hop_by_hop.clone()], vec![hop_by_hop, Extension::fragment(1, 0, false)]] {
            let mut frame = plain.build();
            pieces::extend(&mut frame, plain.l3(), &extensions);
            ensure!(world.check(&frame)?.effects.events == [wanted], "{protocol:?} {extensions:?}");
        }
    }
    world.audit()
}

#[test]
fn an_error_about_a_flow_without_a_backend_is_not_answered() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let sent = rejected(family, protocol);
            let mut reply = sent.clone();
            (reply.source, reply.destination) = (sent.destination, sent.source);
            (reply.source_port, reply.destination_port) = (sent.destination_port, sent.source_port);
            let kind = if family == Family::V4 { (3, 1) } else { (1, 0) };
            let error = Message::new(sent.source, sent.destination, kind, reply.ip());
            let verdict = world.check(&error.build())?.verdict;
            ensure!(verdict == Verdict::Drop(DropReason::Rejected), "{verdict:?}");
        }
    }
    world.audit()
}
