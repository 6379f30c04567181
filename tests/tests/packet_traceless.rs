//! NAT by a program without side effects, as `explain` loads it: it decides as the other one does, and leaves no trace.

use anyhow::{Context, Result, ensure};
use lb_tests::model::{NatChange, Pool, Protocol, Verdict};
use lb_tests::packet::fixture::{Family, world, world_without_side_effects};
use lb_tests::packet::message::Message;
use lb_tests::packet::modes::{self, IDLE, Mode};
use lb_tests::packet::nat_story::NatStory;
use lb_tests::packet::pieces;
use lb_tests::packet::{ACK, FIN, Packet, RST, SYN};
use lb_tests::require_root;

const MODES: [Mode; 2] = [Mode::Dnat, Mode::Nat];

/// Tells a story of each mode, in a world with its first flow and one without.
fn tell(story: impl Fn(&mut NatStory, Option<&Packet>) -> Result<()>) -> Result<()> {
    require_root!(Ok(()));
    let (mut real, mut traceless) = (world()?, world_without_side_effects()?);
    // A program that leaves no trace always tries the first port.
    traceless.set_pool(Pool { addresses: modes::pool().addresses[..1].to_vec(), ..modes::pool() })?;
    for mode in MODES {
        for protocol in Protocol::BOTH {
            for family in Family::BOTH {
                let mut s = NatStory::within(real, mode, family, protocol);
                s.reaches(&s.sends(SYN))?;
                s.returns(&s.answers(SYN | ACK)?)?;
                s.reaches(&s.sends(ACK))?;
                let answer = s.answers(ACK)?;
                let (key, flow) = (s.flow_key(), s.flow().context("a flow")?);
                let (reply_key, reply) = s.reply().context("its other side")?;
                real = s.end()?;
                for known in [false, true] {
                    let mut s = NatStory::within(traceless, mode, family, protocol);
                    if known {
                        s.world.plant_nat(&NatChange::Flow(key, Some(flow)))?;
                        s.world.plant_nat(&NatChange::Reply(reply_key, Some(reply)))?;
                    }
                    story(&mut s, known.then_some(&answer))
                        .with_context(|| format!("{mode:?}, {family:?}, {protocol:?}, {known}"))?;
                    traceless = s.end()?;
                }
            }
        }
    }
    Ok(())
}

fn leaves(frame: &[u8], s: &mut NatStory) -> Result<()> {
    let verdict = s.world.check(frame)?.verdict;
    ensure!(matches!(verdict, Verdict::Transmit(_) | Verdict::Redirect(_)), "{verdict:?}");
    Ok(())
}

#[test]
fn packets_of_a_flow_go_their_way_and_change_nothing() -> Result<()> {
    tell(|s, answer| {
        let Some(answer) = answer else { return Ok(()) };
        for flags in [ACK, SYN, FIN | ACK, RST, ACK] {
            s.wait(1);
            leaves(&s.sends(flags).build(), s)?;
            leaves(&Packet { tcp_flags: flags, ..answer.clone() }.build(), s)?;
        }
        let mut moved = s.sends(ACK).build();
        moved[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
        leaves(&moved, s)?;
        // One whose backend takes no more: the old flow stays where it is.
        s.accepts(false, true)?;
        leaves(&s.sends(SYN).build(), s)?;
        s.accepts(true, true)
    })
}

#[test]
fn a_new_flow_is_none() -> Result<()> {
    tell(|s, answer| {
        if answer.is_some() {
            return Ok(());
        }
        for _ in 0..3 {
            leaves(&s.sends(SYN).build(), s)?;
        }
        ensure!(s.flow().is_none());
        Ok(())
    })
}

#[test]
fn a_port_of_a_flow_that_is_over_stays_with_it() -> Result<()> {
    tell(|s, answer| {
        if answer.is_none() {
            return Ok(());
        }
        s.wait(u64::from(IDLE) + 1);
        s.client = 99;
        leaves(&s.sends(SYN).build(), s)
    })
}

#[test]
fn fragments_leave_no_note() -> Result<()> {
    tell(|s, answer| {
        let (Some(answer), Protocol::Udp) = (answer, s.protocol) else { return Ok(()) };
        let parts = |packet: &Packet| {
            let long = Packet { payload: vec![7; 1500], ..packet.clone() };
            pieces::fragments(&long.build(), long.l3(), 0x1_2345, 512)
        };
        for (frames, wanted) in [
            (parts(&s.sends(0)), Verdict::Drop(lb_common::abi::DropReason::Fragment)),
            (parts(answer), Verdict::Pass),
        ] {
            leaves(&frames[0], s)?;
            ensure!(s.world.check(&frames[1])?.verdict == wanted);
        }
        Ok(())
    })
}

#[test]
fn errors_are_handed_on_and_not_counted() -> Result<()> {
    tell(|s, answer| {
        let Some(answer) = answer else { return Ok(()) };
        let kind = if s.family == Family::V4 { (3, 4) } else { (2, 0) };
        let router = lb_tests::packet::fixture::client(s.family, 0x4444);
        let flow = s.flow().context("a flow")?;
        let (_, sent) = s.made(&s.sends(ACK), &flow)?;
        for quoted in [sent, s.made_for_client(answer)] {
            leaves(&Message::new(router, quoted.source, kind, quoted.ip()).build(), s)?;
        }
        Ok(())
    })
}
