//! `dnat` and `nat`, rule by rule (docs/packet-path.md, "NAT"), for both families and protocols.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, Result, ensure};
use lb_common::abi::DropReason;
use lb_tests::model::{Event, NatChange, NatFlow, NatReply, Pool, Protocol, Seen, Verdict};
use lb_tests::packet::fixture::{Family, client, world, world_with_nat_flows};
use lb_tests::packet::fuzz;
use lb_tests::packet::modes::{self, IDLE, Mode};
use lb_tests::packet::nat_story::NatStory;
use lb_tests::packet::pieces::{self, Extension};
use lb_tests::packet::{ACK, FIN, Packet, RST, SYN};
use lb_tests::require_root;

const MODES: [Mode; 2] = [Mode::Dnat, Mode::Nat];

/// Tells a story of each mode for both families and protocols, and audits every map at its end.
fn tell(modes: &[Mode], protocols: &[Protocol], story: impl Fn(&mut NatStory) -> Result<()>) -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for &mode in modes {
        for &protocol in protocols {
            for family in Family::BOTH {
                let mut teller = NatStory::within(world, mode, family, protocol);
                story(&mut teller).with_context(|| format!("{mode:?}, {family:?}, {protocol:?}"))?;
                world = teller.end()?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_flow_reaches_its_backend_and_replies_come_back() -> Result<()> {
    let all = [
        Mode::Dnat,
        Mode::DnatTwin,
        Mode::DnatElsewhere,
        Mode::Nat,
        Mode::NatTwin,
        Mode::NatElsewhere,
        Mode::NatRoundRobin,
        Mode::NatLeastConnections,
        Mode::NatEveryPort,
    ];
    tell(&all, &Protocol::BOTH, |s| {
        let flow = s.reaches(&s.sends(SYN))?;
        s.returns(&s.answers(SYN | ACK)?)?;
        ensure!(s.reaches(&s.sends(ACK))? == NatFlow { seen: s.flow().context("a flow")?.seen, ..flow });
        s.returns(&s.answers(ACK)?)?;
        match s.mode.forwarding() {
            lb_tests::model::Forwarding::Dnat => {
                ensure!((flow.our_address, flow.our_port) == (client(s.family, s.client), s.port));
            }
            _ => {
                let pool = modes::pool();
                ensure!(pool.addresses.contains(&flow.our_address));
                ensure!((pool.first_port..=pool.last_port).contains(&flow.our_port));
            }
        }
        Ok(())
    })
}

#[test]
fn without_addresses_of_our_own_the_way_out_lends_its() -> Result<()> {
    tell(&[Mode::Nat, Mode::NatElsewhere], &Protocol::BOTH, |s| {
        s.world.set_pool(Pool { addresses: Vec::new(), ..modes::pool() })?;
        let flow = s.reaches(&s.sends(SYN))?;
        let (_, number) = s.world.state.backends[&flow.backend].next_hop.context("a next hop")?;
        ensure!(flow.our_address == s.world.state.egress[&number].source);
        s.returns(&s.answers(ACK)?)?;
        s.world.set_pool(modes::pool())
    })
}

#[test]
fn a_segment_that_opens_nothing_and_belongs_nowhere_is_dropped_by_name() -> Result<()> {
    tell(&MODES, &[Protocol::Tcp], |s| {
        for flags in [ACK, FIN | ACK, RST, SYN | ACK, 0] {
            s.loses(&s.sends(flags), DropReason::NoNatFlow)?;
        }
        ensure!(s.flow().is_none());
        Ok(())
    })
}

#[test]
fn a_reply_without_a_flow_passes_to_the_host() -> Result<()> {
    tell(&MODES, &Protocol::BOTH, |s| {
        s.reaches(&s.sends(SYN))?;
        let reply = s.answers(ACK)?;
        let others = [
            Packet { source_port: reply.source_port ^ 1, ..reply.clone() },
            Packet { destination_port: reply.destination_port ^ 1, ..reply.clone() },
            Packet { source: client(s.family, 99), ..reply.clone() },
            Packet { destination: client(s.family, 98), ..reply.clone() },
        ];
        others.iter().try_for_each(|other| s.passes(other))
    })
}

#[test]
fn an_expired_packet_is_answered_before_its_flow_is_looked_for() -> Result<()> {
    tell(&MODES, &Protocol::BOTH, |s| {
        for ttl in [0, 1] {
            let verdict = s.world.check(&Packet { ttl, ..s.sends(ACK) }.build())?;
            ensure!(verdict.effects.events == [Event::TimeExceededSent], "{:?}", verdict.verdict);
        }
        ensure!(s.flow().is_none(), "it left a flow");
        s.reaches(&s.sends(SYN))?;
        let before = s.reply();
        let late = s.world.check(&Packet { ttl: 1, ..s.answers(ACK)? }.build())?;
        ensure!(late.effects.events == [Event::TimeExceededSent] && s.reply() == before);
        Ok(())
    })
}

#[test]
fn backends_that_cannot_be_reached_get_no_flows() -> Result<()> {
    tell(&[Mode::NatUnresolved], &Protocol::BOTH, |s| {
        s.loses(&s.sends(SYN), DropReason::NextHopUnresolved)?;
        ensure!(s.flow().is_none());
        Ok(())
    })?;
    tell(&[Mode::NatNoBackend], &Protocol::BOTH, |s| s.loses(&s.sends(SYN), DropReason::NoBackend))?;
    tell(&MODES, &Protocol::BOTH, |s| {
        s.accepts(false, false)?;
        s.loses(&s.sends(SYN), DropReason::BackendDisabled)?;
        s.accepts(true, true)
    })
}

#[test]
fn an_established_connection_stays_with_a_draining_backend_and_a_syn_does_not() -> Result<()> {
    tell(&MODES, &[Protocol::Tcp], |s| {
        let old = s.reaches(&s.sends(SYN))?;
        s.returns(&s.answers(SYN | ACK)?)?;
        let change = |s: &mut NatStory, open| {
            s.world.change_backend(old.backend, |backend| backend.accepts_new_flows = open)
        };
        change(s, false)?;
        ensure!(s.reaches(&s.sends(ACK))?.backend == old.backend);
        s.returns(&s.answers(ACK)?)?;
        // The slot still names it: what a controller would have changed before.
        let anew = s.world.check(&s.sends(SYN).build())?;
        ensure!(anew.effects.events == [Event::NatCreated], "the old flow was kept");
        change(s, true)
    })
}

#[test]
fn a_backend_that_is_gone_keeps_nobody() -> Result<()> {
    tell(&MODES, &[Protocol::Tcp], |s| {
        s.reaches(&s.sends(SYN))?;
        let reply = s.answers(ACK)?;
        s.accepts(false, false)?;
        s.loses(&s.sends(ACK), DropReason::BackendDisabled)?;
        s.loses(&reply, DropReason::BackendDisabled)?;
        ensure!(s.flow().is_some());
        s.loses(&s.sends(SYN), DropReason::BackendDisabled)?;
        ensure!(s.flow().is_none(), "a SYN ends what can't go on");
        s.accepts(true, true)
    })?;
    tell(&MODES, &[Protocol::Udp], |s| {
        s.reaches(&s.sends(0))?;
        s.accepts(false, false)?;
        s.loses(&s.sends(0), DropReason::BackendDisabled)?;
        ensure!(s.flow().is_none());
        s.accepts(true, true)
    })
}

#[test]
fn a_closed_flow_starts_anew_with_the_same_translation() -> Result<()> {
    tell(&MODES, &[Protocol::Tcp], |s| {
        type End = fn(&mut NatStory) -> Result<()>;
        let ends: [End; 3] = [
            |s| s.returns(&s.answers(RST)?),
            |s| {
                s.returns(&s.answers(FIN | ACK)?)?;
                s.reaches(&s.sends(FIN | ACK)).map(drop)
            },
            |s| s.reaches(&s.sends(RST)).map(drop),
        ];
        let first = s.reaches(&s.sends(SYN))?;
        for end in ends {
            s.returns(&s.answers(SYN | ACK)?)?;
            s.reaches(&s.sends(ACK))?;
            end(s)?;
            s.wait(1);
            let again = s.reaches(&s.sends(SYN))?;
            let (_, reply) = s.reply().context("an entry")?;
            let anew = Seen::at(s.world.state.now);
            ensure!((again.seen, reply.seen) == (anew, anew), "{:?} {:?}", again.seen, reply.seen);
            ensure!(NatFlow { seen: first.seen, ..again } == first, "another translation");
        }
        Ok(())
    })
}

#[test]
fn replies_go_the_way_by_which_the_client_came_last() -> Result<()> {
    tell(&MODES, &Protocol::BOTH, |s| {
        s.reaches(&s.sends(SYN))?;
        let mut moved = s.sends(ACK).build();
        moved[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
        s.world.check(&moved)?;
        let Verdict::Transmit(back) = s.world.check(&s.answers(ACK)?.build())?.verdict else {
            anyhow::bail!("no reply");
        };
        ensure!(back[..6] == [2, 9, 9, 9, 9, 9], "sent to {:x?}", &back[..6]);
        Ok(())
    })
}

/// Somebody else got the port while the client was on its way here.
#[test]
fn nothing_a_client_does_changes_another_flows_side() -> Result<()> {
    type Act = fn(&mut NatStory) -> Result<()>;
    let acts: [(&str, Act); 3] = [
        ("it comes by another way", |s| {
            let mut moved = s.sends(ACK).build();
            moved[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
            s.world.check(&moved).map(drop)
        }),
        ("it connects again", |s| s.world.check(&s.sends(SYN).build()).map(drop)),
        ("its backend takes no more flows", |s| {
            s.accepts(false, true)?;
            s.world.check(&s.sends(SYN).build())?;
            s.accepts(true, true)
        }),
    ];
    for (name, act) in acts {
        tell(&MODES, &[Protocol::Tcp], |s| {
            s.reaches(&s.sends(SYN))?;
            let (key, reply) = s.reply().context("an entry")?;
            let seen = Seen { confirmed: true, rst: true, ..reply.seen };
            let others = NatReply { client: client(s.family, 77), seen, ..reply };
            s.world.plant_nat(&NatChange::Reply(key, Some(others)))?;
            act(s).context(name)?;
            s.world.audit()?;
            ensure!(s.world.state.nat.replies[&key] == others, "{name}");
            let own = NatChange::Flow(s.flow_key(), None);
            s.world.plant_nat(&own)
        })?;
    }
    Ok(())
}

#[test]
fn a_reply_leaves_by_the_clients_interface_if_that_takes_it() -> Result<()> {
    tell(&MODES, &Protocol::BOTH, |s| {
        s.reaches(&s.sends(SYN))?;
        let (key, reply) = s.reply().context("an entry")?;
        let interface = s.world.other_interface();
        s.world.plant_nat(&NatChange::Reply(key, Some(NatReply { interface, ..reply })))?;
        let mut answer = s.answers(ACK)?;
        answer.payload.clear();
        let headers = answer.ip().len();
        answer.payload = vec![0x5a; 1500 - headers];
        s.returns(&answer)?;
        answer.payload.push(0);
        let told = s.world.check(&answer.build())?;
        ensure!(told.effects.events == [Event::TooBigSent], "{:?}", told.verdict);
        Ok(())
    })
}

/// Two services of one address, and one backend behind both: the client's port can't tell its flows apart.
#[test]
fn two_services_on_one_backend_take_the_same_client_port() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for (one, other) in [(Mode::Dnat, Mode::DnatTwin), (Mode::Nat, Mode::NatTwin)] {
        for protocol in Protocol::BOTH {
            for family in Family::BOTH {
                for number in 0..12 {
                    let mut s = NatStory::within(world, one, family, protocol);
                    s.client = number;
                    let first = s.reaches(&s.sends(SYN))?;
                    s.mode = other;
                    let second = s.reaches(&s.sends(SYN))?;
                    let address = |index| s.world.state.backends[&index].address;
                    if address(first.backend) == address(second.backend) {
                        let ours = |flow: NatFlow| (flow.our_address, flow.our_port);
                        ensure!(ours(first) != ours(second), "two flows have {:?}", ours(first));
                    }
                    s.returns(&s.answers(ACK)?)?;
                    s.mode = one;
                    s.returns(&s.answers(ACK)?)?;
                    world = s.world;
                }
                world = NatStory::within(world, one, family, protocol).end()?;
            }
        }
    }
    Ok(())
}

/// How old a flow has to be until another may have its port.
#[test]
fn a_port_changes_hands_when_its_flow_is_over_and_not_before() -> Result<()> {
    type Life = fn(&mut NatStory) -> Result<()>;
    let lives: [(&str, Protocol, Life, u64); 9] = [
        ("a SYN", Protocol::Tcp, |_| Ok(()), 5),
        ("half a handshake", Protocol::Tcp, |s| s.returns(&s.answers(SYN | ACK)?), 5),
        ("an open connection", Protocol::Tcp, open, IDLE.into()),
        (
            "one FIN",
            Protocol::Tcp,
            |s| {
                open(s)?;
                s.reaches(&s.sends(FIN | ACK)).map(drop)
            },
            IDLE.into(),
        ),
        (
            "the backend's FIN",
            Protocol::Tcp,
            |s| {
                open(s)?;
                s.returns(&s.answers(FIN | ACK)?)
            },
            IDLE.into(),
        ),
        (
            "both",
            Protocol::Tcp,
            |s| {
                open(s)?;
                s.reaches(&s.sends(FIN | ACK))?;
                s.returns(&s.answers(FIN | ACK)?)
            },
            5,
        ),
        (
            "a reset by the backend",
            Protocol::Tcp,
            |s| {
                open(s)?;
                s.returns(&s.answers(RST)?)
            },
            5,
        ),
        (
            "a reset by the client",
            Protocol::Tcp,
            |s| {
                open(s)?;
                s.reaches(&s.sends(RST)).map(drop)
            },
            60,
        ),
        ("one datagram", Protocol::Udp, |s| s.returns(&s.answers(0)?), 5),
    ];
    require_root!(Ok(()));
    let mut world = world()?;
    for (name, protocol, life, age) in lives {
        for family in Family::BOTH {
            let mut s = NatStory::within(world, Mode::Nat, family, protocol);
            s.world.set_pool(Pool { first_port: 50_000, last_port: 50_000, addresses: Vec::new() })?;
            let held = s.reaches(&s.sends(SYN))?;
            life(&mut s)?;
            s.wait(age);
            // Others of whom one is sent to the same backend.
            let refused = rivals(&mut s, held.backend)?;
            ensure!(refused == Some(DropReason::NatExhausted), "{name}: after {age} s {refused:?}");
            s.wait(1);
            let refused = rivals(&mut s, held.backend)?;
            ensure!(refused.is_none() && s.flow().is_none(), "{name}: after {} s {refused:?}", age + 1);
            s.world.set_pool(modes::pool())?;
            world = s.end()?;
        }
    }
    Ok(())
}

fn open(s: &mut NatStory) -> Result<()> {
    s.returns(&s.answers(SYN | ACK)?)?;
    s.reaches(&s.sends(ACK)).map(drop)
}

/// What becomes of the first of other clients whom the service would send to `backend`.
fn rivals(s: &mut NatStory, backend: u32) -> Result<Option<DropReason>> {
    let place = s.mode.place(&s.world, s.family, s.protocol);
    for number in 1000..2000 {
        let mut packet = s.sends(SYN);
        packet.source = client(s.family, number);
        let slot = lb_tests::model::decide(&s.world.state, &packet.build()).effects.slot.context("a slot")?;
        let service = &s.world.state.services[place];
        if service.slots[(slot - service.base) as usize].current == backend {
            return Ok(match s.world.check(&packet.build())?.verdict {
                Verdict::Drop(reason) => Some(reason),
                _ => None,
            });
        }
    }
    anyhow::bail!("nobody is sent to backend {backend}")
}

#[test]
fn full_tables_are_a_refusal_and_a_counter() -> Result<()> {
    require_root!(Ok(()));
    let mut s = NatStory::within(world_with_nat_flows(256)?, Mode::Dnat, Family::V4, Protocol::Udp);
    for number in 0..300 {
        s.client = number;
        let packet = s.sends(0);
        if number < 256 {
            s.reaches(&packet)?;
        } else {
            s.loses(&packet, DropReason::NatExhausted)?;
        }
    }
    s.end().map(drop)
}

/// 50,000 flows in 1,000 ports of each of three backends.
#[test]
fn fifty_thousand_flows_share_a_thousand_ports() -> Result<()> {
    require_root!(Ok(()));
    let flows = fuzz::packets(50_000)? as u32;
    let world = world_with_nat_flows(4096)?;
    let mut s = NatStory::within(world, Mode::Nat, Family::V4, Protocol::Tcp);
    let addresses = vec![modes::pool().addresses[0]];
    s.world.set_pool(Pool { first_port: 20_000, last_port: 20_999, addresses })?;
    let (mut opened, mut refused, mut in_a_row, mut number) = (0, 0, 0, 0_u32);
    // Clients by what tells their flows apart for a backend.
    let mut holders: BTreeMap<(u32, u16), (u16, u16)> = BTreeMap::new();
    let mut in_their_order = VecDeque::new();
    while opened < flows {
        (s.client, s.port) = ((number % 1000) as u16, 1024 + (number / 1000) as u16);
        number += 1;
        match s.world.check(&s.sends(SYN).build())?.verdict {
            Verdict::Drop(DropReason::NatExhausted) => (refused, in_a_row) = (refused + 1, in_a_row + 1),
            Verdict::Transmit(_) => {
                let flow = s.flow().context("a flow")?;
                let held = holders.insert((flow.backend, flow.our_port), (s.client, s.port));
                ensure!(held.is_none(), "{held:?} still has port {} of {}", flow.our_port, flow.backend);
                in_their_order.push_back((flow.backend, flow.our_port));
                opened += 1;
                s.returns(&s.answers(SYN | ACK)?)?;
                s.reaches(&s.sends(ACK))?;
            }
            other => anyhow::bail!("{other:?}"),
        }
        if in_a_row == 50 {
            // The older half of them end, so that none is ever idle for too long.
            in_a_row = 0;
            for place in in_their_order.drain(..holders.len() / 2) {
                (s.client, s.port) = holders.remove(&place).context("a flow that nobody ended")?;
                s.returns(&s.answers(RST)?)?;
            }
            s.wait(6);
        }
    }
    println!("{opened} flows opened, {refused} refused");
    ensure!(flows < 50_000 || refused > 0, "the ports were never exhausted");
    s.end().map(drop)
}

/// What the first fragment gets, the others get.
#[test]
fn all_fragments_of_a_packet_go_the_same_way() -> Result<()> {
    tell(&MODES, &[Protocol::Udp], |s| {
        let mut packet = s.sends(0);
        packet.payload = (0..2000_u16).map(|byte| byte as u8).collect();
        let parts = |packet: &Packet| pieces::fragments(&packet.build(), packet.l3(), 0x1_2345, 512);
        let frames = parts(&packet);
        ensure!(frames.len() == 4);
        let mut whole = Vec::new();
        for frame in &frames {
            match s.world.check(frame)?.verdict {
                Verdict::Transmit(out) => whole.push(out),
                other => anyhow::bail!("{other:?}"),
            }
        }
        let flow = s.flow().context("a flow")?;
        let (l2, made) = s.made(&packet, &flow)?;
        for (out, wanted) in whole.iter().zip(parts(&made)) {
            let l3 = made.l3();
            ensure!(out[..l3] == l2[..], "other addresses");
            let payload = if s.family == Family::V4 { l3 + 20 } else { l3 + 48 };
            ensure!(out[payload..] == wanted[payload..], "another payload");
        }
        let at = if s.family == Family::V4 { 14 + 4..14 + 6 } else { 14 + 44..14 + 48 };
        let identifications: BTreeSet<_> = whole.iter().map(|out| out[at.clone()].to_vec()).collect();
        ensure!(identifications.len() == 1, "{identifications:x?}");
        let kept = identifications.contains(&frames[0][at]);
        ensure!(kept == (s.mode == Mode::Dnat), "several clients have one address now");

        let mut answer = s.answers(0)?;
        answer.payload = vec![7; 1200];
        for (frame, wanted) in parts(&answer).iter().zip(parts(&s.made_for_client(&answer))) {
            let Verdict::Transmit(out) = s.world.check(frame)?.verdict else { anyhow::bail!("no reply") };
            ensure!(out[14..] == wanted[14..], "a fragment of a reply differs");
        }
        Ok(())
    })
}

/// A backend uses an identification again, for a packet that is none of the flow's.
#[test]
fn fragments_of_what_is_no_reply_do_not_follow_a_reply() -> Result<()> {
    tell(&MODES, &[Protocol::Udp], |s| {
        s.reaches(&s.sends(0))?;
        let parts = |packet: &Packet| pieces::fragments(&packet.build(), packet.l3(), 0x1_2345, 512);
        let mut answer = s.answers(0)?;
        answer.payload = vec![7; 1500];
        let mut stray = answer.clone();
        stray.destination_port ^= 1;
        let (answer, stray) = (parts(&answer), parts(&stray));
        for frame in &answer[..2] {
            ensure!(matches!(s.world.check(frame)?.verdict, Verdict::Transmit(_)));
        }
        for frame in &stray {
            ensure!(s.world.check(frame)?.verdict == Verdict::Pass, "it went to the flow's client");
        }
        // Nor those of a reply that its backend may not send any more.
        for frame in &answer[..2] {
            ensure!(matches!(s.world.check(frame)?.verdict, Verdict::Transmit(_)));
        }
        s.accepts(false, false)?;
        let disabled = Verdict::Drop(DropReason::BackendDisabled);
        ensure!(s.world.check(&answer[0])?.verdict == disabled);
        s.accepts(true, true)?;
        ensure!(s.world.check(&answer[1])?.verdict == Verdict::Pass);
        Ok(())
    })
}

/// The backend gives the next client's packet the same identification, and its first fragment is lost.
#[test]
fn what_follows_a_complete_reply_is_none_of_its_fragments() -> Result<()> {
    tell(&MODES, &[Protocol::Udp], |s| {
        s.reaches(&s.sends(0))?;
        let mut answer = s.answers(0)?;
        answer.payload = vec![7; 1500];
        let frames = pieces::fragments(&answer.build(), answer.l3(), 0x1_2345, 512);
        ensure!(frames.len() == 3);
        for order in [[0, 1, 2], [0, 2, 1]] {
            for number in order {
                ensure!(matches!(s.world.check(&frames[number])?.verdict, Verdict::Transmit(_)));
            }
            for late in &frames[1..] {
                ensure!(s.world.check(late)?.verdict == Verdict::Pass, "{order:?}: it went on");
            }
        }
        // While one is missing the others find the way, for a second.
        ensure!(matches!(s.world.check(&frames[0])?.verdict, Verdict::Transmit(_)));
        ensure!(matches!(s.world.check(&frames[2])?.verdict, Verdict::Transmit(_)));
        s.wait(1);
        ensure!(matches!(s.world.check(&frames[2])?.verdict, Verdict::Transmit(_)), "one that came twice");
        s.wait(1);
        ensure!(s.world.check(&frames[1])?.verdict == Verdict::Pass, "too late");
        Ok(())
    })
}

/// The host gets what it can do nothing with, and the client nothing of what it could not put together.
#[test]
fn fragments_of_a_reply_before_the_first_are_the_hosts() -> Result<()> {
    tell(&MODES, &[Protocol::Udp], |s| {
        s.reaches(&s.sends(0))?;
        let mut answer = s.answers(0)?;
        answer.payload = (0..1500_u16).map(|byte| byte as u8).collect();
        let parts = |packet: &Packet| pieces::fragments(&packet.build(), packet.l3(), 0x1_2345, 512);
        let (frames, wanted) = (parts(&answer), parts(&s.made_for_client(&answer)));
        for order in [[2, 1, 0], [1, 0, 2], [2, 0, 1]] {
            let mut noted = false;
            for number in order {
                noted |= number == 0;
                match s.world.check(&frames[number])?.verdict {
                    Verdict::Pass if !noted => {}
                    Verdict::Transmit(out) if noted => {
                        ensure!(out[14..] == wanted[number][14..], "{order:?}")
                    }
                    other => anyhow::bail!("{order:?}, {number}: {other:?}"),
                }
            }
            s.wait(2);
        }
        Ok(())
    })
}

#[test]
fn an_authentication_header_does_not_survive_new_addresses() -> Result<()> {
    tell(&MODES, &Protocol::BOTH, |s| {
        if s.family == Family::V4 {
            return Ok(());
        }
        let sealed = |packet: &Packet| {
            let mut frame = packet.build();
            pieces::extend(&mut frame, packet.l3(), &[Extension::authentication()]);
            frame
        };
        let lost = Verdict::Drop(DropReason::ExtensionHeader);
        ensure!(s.world.check(&sealed(&s.sends(SYN)))?.verdict == lost);
        s.reaches(&s.sends(SYN))?;
        ensure!(s.world.check(&sealed(&s.answers(ACK)?))?.verdict == lost);
        Ok(())
    })
}
