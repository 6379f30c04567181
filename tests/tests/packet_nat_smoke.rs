//! Clients and backends that talk through NAT at random, while time goes by and backends come and go: every packet,
//! every counter and every entry is as the model has it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use lb_common::abi::DropReason;
use lb_tests::model::{NatReplyKey, Protocol, Verdict};
use lb_tests::packet::fixture::{self, Family};
use lb_tests::packet::modes::Mode;
use lb_tests::packet::{ACK, FIN, Packet, RST, SYN, World, hex, seal_v4};
use lb_tests::require_root;

const PACKETS: usize = 40_000;

#[test]
fn clients_and_backends_talk_through_nat() -> Result<()> {
    require_root!(Ok(()));
    let mut world = fixture::world()?;
    let mut rng = Rng::with_seed(4);
    let mut met = BTreeSet::new();
    for number in 0..PACKETS {
        if rng.u8(..200) == 0 {
            change(&mut world, &mut rng)?;
        }
        let frame = frame(&world, &mut rng);
        let decision = world.check(&frame).with_context(|| format!("packet {number}\n{}", hex(&frame)))?;
        met.insert(match decision.verdict {
            Verdict::Pass => "pass",
            Verdict::Transmit(_) => "tx",
            Verdict::Redirect(_) => "redirect",
            Verdict::Drop(reason) => reason.name(),
        });
    }
    world.audit()?;
    for wanted in ["pass", "tx", "redirect"].into_iter().chain(REASONS.map(DropReason::name)) {
        ensure!(met.contains(wanted), "no packet met {wanted}: {met:?}");
    }
    Ok(())
}

/// What a packet through NAT may be dropped for, but for its size and TTL.
const REASONS: [DropReason; 7] = [
    DropReason::BackendDisabled,
    DropReason::NextHopUnresolved,
    DropReason::NatExhausted,
    DropReason::NoNatFlow,
    DropReason::NoBackend,
    DropReason::SourceDenied,
    DropReason::NewFlowLimit,
];

fn frame(world: &World, rng: &mut Rng) -> Vec<u8> {
    let replies: Vec<_> = world.state.nat.replies.keys().copied().collect();
    let from_backend = !replies.is_empty() && rng.u8(..3) == 0;
    let mut packet = if from_backend { reply(rng, &replies) } else { request(world, rng) };
    let flags = [SYN, SYN, SYN, ACK, ACK, ACK | FIN, SYN | ACK, RST, RST | ACK, FIN | RST];
    packet.tcp_flags = flags[rng.usize(..flags.len())];
    packet.payload = (0..rng.usize(..64)).map(|_| rng.u8(..)).collect();
    packet.identification = rng.u16(..4);
    if rng.u8(..4) == 0 {
        packet.options = vec![1; 4 * rng.usize(..=10)];
    }
    packet = packet.with_tags(rng.usize(..3));
    let mut frame = packet.build();
    // The client moves.
    frame[11] = rng.u8(..2);
    if packet.protocol == Protocol::Udp && rng.u8(..4) == 0 {
        frame[packet.l4() + 6..packet.l4() + 8].fill(0);
    }
    if packet.source.is_ipv4() && rng.u8(..4) == 0 {
        let header = &mut frame[packet.l3()..packet.l4()];
        // The first of several fragments, or one behind it.
        header[6] = if rng.bool() { 0x20 } else { 0 };
        header[7] = if header[6] == 0 { 1 + rng.u8(..2) } else { 0 };
        seal_v4(header);
    }
    frame
}

fn request(world: &World, rng: &mut Rng) -> Packet {
    let modes: Vec<_> = Mode::ALL.into_iter().filter(|mode| mode.translates()).collect();
    let mode = modes[rng.usize(..modes.len())];
    let family = Family::BOTH[rng.usize(..2)];
    let protocol = Protocol::BOTH[rng.usize(..2)];
    let service = &world.state.services[mode.place(world, family, protocol)];
    let client = (fixture::client(family, rng.u16(..8)), 1024 + rng.u16(..8));
    Packet::new(protocol, client, (service.address, service.port.unwrap_or(5000 + rng.u16(..3))))
}

fn reply(rng: &mut Rng, replies: &[NatReplyKey]) -> Packet {
    let key = replies[rng.usize(..replies.len())];
    let wrong = u16::from(rng.u8(..16) == 0);
    Packet::new(key.protocol, (key.backend, key.backend_port ^ wrong), (key.our_address, key.our_port))
}

fn change(world: &mut World, rng: &mut Rng) -> Result<()> {
    if rng.bool() {
        let step = [1, 1, 2, 3, 5, 6, 61, 200][rng.usize(..8)];
        world.set_time(world.state.now + step);
        return Ok(());
    }
    let indexes: Vec<_> = world.state.backends.keys().copied().collect();
    for _ in 0..8 {
        let hop = rng.u8(..4) == 0;
        world.change_backend(indexes[rng.usize(..indexes.len())], |backend| {
            backend.accepts_new_flows = rng.u8(..4) > 0;
            backend.accepts_existing_flows = backend.accepts_new_flows || rng.bool();
            if hop {
                backend.next_hop = backend.next_hop.filter(|_| rng.bool());
            }
        })?;
    }
    Ok(())
}
