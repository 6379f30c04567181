//! Checksums, against what they are when a packet is made from scratch, for every value they may have.

use anyhow::{Context, Result, ensure};
use lb_tests::model::Protocol;
use lb_tests::packet::fixture::{Family, Host, MTU, Way, packet, world};
use lb_tests::packet::modes::Mode;
use lb_tests::packet::nat_story::NatStory;
use lb_tests::packet::{Packet, SYN, World, answer, fuzz};
use lb_tests::require_root;

/// Values of a 16-bit word, so that the checksum over it takes all values that it can have.
fn words() -> Result<impl Iterator<Item = [u8; 2]>> {
    let count = fuzz::packets(65_536)?;
    // Where not all are wanted, they are spread.
    let step = 65_536 / count.max(1);
    Ok((0..65_536).step_by(step.max(1) as usize).map(|word| (word as u16).to_be_bytes()))
}

#[test]
fn new_addresses_and_ports_mend_every_checksum() -> Result<()> {
    require_root!(Ok(()));
    for mode in [Mode::Dnat, Mode::Nat] {
        for protocol in Protocol::BOTH {
            for family in Family::BOTH {
                let mut s = NatStory::within(world()?, mode, family, protocol);
                let flow = s.reaches(&s.sends(SYN))?;
                let mut there = s.sends(SYN);
                let mut back = s.answers(SYN)?;
                for word in words()? {
                    there.payload = word.to_vec();
                    back.payload = word.to_vec();
                    there.identification = u16::from_be_bytes(word);
                    back.identification = u16::from_be_bytes(word);
                    let (_, wanted) = s.made(&there, &flow)?;
                    let out = s.world.run(&there.build())?.frame;
                    ensure!(out[14..] == wanted.ip()[..], "{mode:?} {protocol:?} {family:?} {word:x?}");
                    let wanted = s.made_for_client(&back);
                    let out = s.world.run(&back.build())?.frame;
                    ensure!(out[14..] == wanted.ip()[..], "back: {mode:?} {protocol:?} {family:?} {word:x?}");
                }
            }
        }
    }
    Ok(())
}

/// No checksum stays none, whatever the others are.
#[test]
fn a_datagram_without_a_checksum_gets_none() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for mode in [Mode::Dnat, Mode::Nat] {
        for family in Family::BOTH {
            let mut s = NatStory::within(world, mode, family, Protocol::Udp);
            s.reaches(&s.sends(0))?;
            for packet in [s.sends(0), s.answers(0)?] {
                let mut frame = packet.build();
                let at = packet.l4() + 6;
                frame[at..at + 2].fill(0);
                let out = s.world.check(&frame)?;
                let lb_tests::model::Verdict::Transmit(out) = out.verdict else {
                    anyhow::bail!("{:?}", out.verdict);
                };
                ensure!(out[at..at + 2] == [0, 0]);
            }
            world = s.end()?;
        }
    }
    Ok(())
}

#[test]
fn one_hop_less_mends_every_header_checksum() -> Result<()> {
    require_root!(Ok(()));
    let world = world()?;
    for word in words()? {
        let mut packet = packet(Family::V4, Protocol::Tcp, Host::Vip, Way::Ipip.port());
        packet.identification = u16::from_be_bytes(word);
        let out = world.run(&packet.build())?.frame;
        let wanted = Packet { ttl: packet.ttl - 1, ..packet };
        ensure!(out[34..] == wanted.ip()[..], "{word:x?}");
    }
    Ok(())
}

/// Errors quote the packet, so their checksum is as its bytes are.
#[test]
fn errors_that_are_made_have_right_checksums() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    world.set_time(1);
    for family in Family::BOTH {
        let mut expired = packet(family, Protocol::Udp, Host::Vip, Way::Ipip.port());
        expired.ttl = 1;
        let mut too_big = packet(family, Protocol::Udp, Host::Vip, Mode::L2DsrSmall.port());
        too_big.payload = vec![0; 1200];
        for (number, word) in words()?.enumerate() {
            if number % 300 == 0 {
                world.set_time(world.state.now + 1);
            }
            expired.payload = word.to_vec();
            too_big.payload[..2].copy_from_slice(&word);
            told(&world, &expired, answer::Answer::TimeExceeded)?;
            told(&world, &too_big, answer::Answer::TooBig(lb_tests::packet::fixture::SMALL_MTU))?;
        }
    }
    ensure!(MTU > 1280, "IPv6 is told nothing less");
    Ok(())
}

fn told(world: &World, packet: &Packet, wanted: answer::Answer) -> Result<()> {
    let frame = packet.build();
    let wanted = answer::frame(packet, &frame, wanted).context("make the answer")?;
    let out = world.run(&frame)?.frame;
    ensure!(out == wanted, "{:?} from {}", packet.protocol, packet.source);
    Ok(())
}
