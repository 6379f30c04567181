//! The program that runs during a capture: it decides as the other one, and what it copies is what came and what left.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ballast::dataplane::encode::mapped;
use ballast::dataplane::{CaptureProgram, Captured};
use lb_common::abi::{
    CAPTURE_ANY_SERVICE, CHOSEN_NAT_FLOW, CaptureSettings, MAX_SNAPLEN, TRACE_REPLY, TRACE_SERVICE,
    TRACE_SLOT,
};
use lb_tests::model::{Protocol, Verdict};
use lb_tests::packet::fixture::{self, Family, Host, Way, packet};
use lb_tests::packet::modes::Mode;
use lb_tests::packet::nat_story::NatStory;
use lb_tests::packet::{ACK, SYN, World, fuzz};
use lb_tests::require_root;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// Every packet, as fast as it comes.
const EVERYTHING: CaptureSettings = CaptureSettings {
    deadline: u64::MAX,
    interval: 0,
    burst: 0,
    client: [0; 16],
    client_mask: [0; 16],
    ifindex: 0,
    service: CAPTURE_ANY_SERVICE,
    actions: 1 << XDP_DROP | 1 << XDP_PASS | 1 << XDP_TX | 1 << XDP_REDIRECT,
    snaplen: MAX_SNAPLEN,
};

#[test]
fn what_is_captured_is_what_came_and_what_left_in_every_mode_and_of_every_drop() -> Result<()> {
    require_root!(Ok(()));
    for linear in [false, true] {
        let (mut world, mut capture) = fixture::world_capturing(linear)?;
        world.set_time(1_000);
        capture.set(&EVERYTHING)?;
        let mut seen = [0; 5];
        for family in Family::BOTH {
            for protocol in Protocol::BOTH {
                let ports = Way::ALL.map(Way::port).into_iter().chain(Mode::ALL.map(Mode::port));
                for port in ports.chain([Way::Rejects.port(), 1]) {
                    for tags in [0, 1] {
                        let frame = packet(family, protocol, Host::Vip, port).with_tags(tags).build();
                        let captured = check(&mut world, &mut capture, &frame).with_context(|| {
                            format!("{family:?} {protocol:?} port {port}, linear: {linear}")
                        })?;
                        seen[captured.packet.action as usize] += 1;
                    }
                }
            }
        }
        assert!(seen[1..].iter().all(|count| *count > 0), "some verdict was never met: {seen:?}");
        // Nothing was copied that nobody asked for.
        assert_eq!(capture.missed()?, Default::default());
        world.audit()?;
    }
    Ok(())
}

#[test]
fn frames_of_several_buffers_are_captured_whole_or_as_far_as_is_asked_for() -> Result<()> {
    require_root!(Ok(()));
    let (mut world, mut capture) = fixture::world_capturing(false)?;
    world.set_time(1_000);
    for family in Family::BOTH {
        for len in [3_600, 8_000] {
            let mut jumbo = packet(family, Protocol::Udp, Host::Vip, Way::L2Dsr.port());
            jumbo.payload = vec![0x5a; len];
            let frame = jumbo.build();
            capture.set(&EVERYTHING)?;
            check(&mut world, &mut capture, &frame).with_context(|| format!("{family:?}, {len} bytes"))?;
            for snaplen in [64, 4_000] {
                capture.set(&CaptureSettings { snaplen, ..EVERYTHING })?;
                world.check(&frame)?;
                let captured = capture.fetch()?.context("not captured")?;
                let kept = frame.len().min(snaplen as usize);
                ensure!(captured.frame == frame[..kept], "{} bytes", captured.frame.len());
                assert_eq!(captured.packet.length as usize, frame.len());
            }
        }
    }
    Ok(())
}

#[test]
fn a_program_that_copies_decides_as_one_that_does_not() -> Result<()> {
    require_root!(Ok(()));
    let (mut world, mut capture) = fixture::world_capturing(false)?;
    capture.set(&EVERYTHING)?;
    fuzz::run(&mut world, 0xca97, fuzz::packets(20_000)?)?;
    // Nobody fetched anything meanwhile, and what there was no room for was counted.
    let mut fetched = 0;
    while capture.fetch()?.is_some() {
        fetched += 1;
    }
    let missed = capture.missed()?;
    ensure!(fetched > 1_000 && missed.no_room > 1_000, "{fetched} fetched, {missed:?}");
    assert_eq!(missed.beyond_rate, 0);
    Ok(())
}

#[test]
fn only_what_is_asked_for_is_captured() -> Result<()> {
    require_root!(Ok(()));
    let (mut world, mut capture) = fixture::world_capturing(false)?;
    world.set_time(1_000);
    for family in Family::BOTH {
        let of = |port| packet(family, Protocol::Tcp, Host::Vip, port).build();
        let (sent, dropped, passed) = (of(Way::L2Dsr.port()), of(Way::NoBackend.port()), of(1));
        let service = number(&world, family, Way::L2Dsr.port());
        let client = Host::Client.address(family);
        let wanted: [(&str, CaptureSettings, [bool; 3]); 12] = [
            ("everything", EVERYTHING, [true, true, true]),
            (
                "what is dropped",
                CaptureSettings { actions: 1 << XDP_DROP, ..EVERYTHING },
                [false, true, false],
            ),
            ("what is handled", CaptureSettings { actions: 0b11010, ..EVERYTHING }, [true, true, false]),
            ("a service", CaptureSettings { service, ..EVERYTHING }, [true, false, false]),
            ("another one", CaptureSettings { service: 7_777, ..EVERYTHING }, [false; 3]),
            ("the interface", CaptureSettings { ifindex: world.state.ingress, ..EVERYTHING }, [true; 3]),
            ("another one", CaptureSettings { ifindex: world.other_interface(), ..EVERYTHING }, [false; 3]),
            ("the client", from(client, 128), [true; 3]),
            ("its network", from(client, 112), [true; 3]),
            ("another client", from(fixture::client(family, 8), 128), [false; 3]),
            ("the VIP's packets", from(Host::Vip.address(family), 128), [false; 3]),
            ("nothing, because nobody listens", CaptureSettings { deadline: 1, ..EVERYTHING }, [false; 3]),
        ];
        for (what, settings, expected) in wanted {
            capture.set(&settings)?;
            let mut caught = [false; 3];
            for (frame, caught) in [&sent, &dropped, &passed].into_iter().zip(&mut caught) {
                world.check(frame)?;
                *caught = capture.fetch()?.is_some();
            }
            assert_eq!(caught, expected, "{family:?}: {what}");
        }
    }
    assert_eq!(capture.missed()?, Default::default(), "what is not wanted is not missed");
    Ok(())
}

#[test]
fn replies_through_nat_are_captured_as_their_clients_packets() -> Result<()> {
    require_root!(Ok(()));
    let (mut world, mut capture) = fixture::world_capturing(false)?;
    for mode in [Mode::Dnat, Mode::Nat] {
        for family in Family::BOTH {
            let mut story = NatStory::within(world, mode, family, Protocol::Tcp);
            let client = fixture::client(family, story.client);
            capture.set(&from(client, 128))?;
            let syn = story.sends(SYN);
            story.reaches(&syn)?;
            let came = capture.fetch()?.context("the SYN is not captured")?;
            ensure!(came.packet.trace.knows(TRACE_SERVICE) && came.packet.trace.backend != 0, "{came:?}");
            let answer = story.answers(SYN | ACK)?;
            story.returns(&answer)?;
            let reply = capture.fetch()?.with_context(|| format!("{mode:?} {family:?}: no reply"))?;
            ensure!(reply.packet.trace.knows(TRACE_REPLY), "{:?}", reply.packet);
            assert_eq!(reply.packet.trace.chosen, CHOSEN_NAT_FLOW);
            assert_eq!(reply.frame, answer.build());
            // To another client's eyes there is nothing.
            capture.set(&from(fixture::client(family, 99), 128))?;
            story.returns(&answer)?;
            assert_eq!(capture.fetch()?, None, "{mode:?} {family:?}");
            world = story.end()?;
        }
    }
    Ok(())
}

#[test]
fn what_comes_faster_than_is_allowed_is_counted_and_not_captured() -> Result<()> {
    require_root!(Ok(()));
    let (mut world, mut capture) = fixture::world_capturing(false)?;
    world.set_time(1_000);
    // One in a thousand seconds, and ten at once.
    let interval = 1_000_000_000_000;
    capture.set(&CaptureSettings { interval, burst: 9 * interval, ..EVERYTHING })?;
    let frame = packet(Family::V4, Protocol::Tcp, Host::Vip, Way::L2Dsr.port()).build();
    let mut caught = 0;
    for _ in 0..100 {
        world.check(&frame)?;
        caught += u32::from(capture.fetch()?.is_some());
    }
    assert_eq!((caught, capture.missed()?.beyond_rate), (10, 90));
    assert_eq!(capture.missed()?.no_room, 0);
    world.audit()
}

/// Runs a frame, which has to be captured as the model has it.
fn check(world: &mut World, capture: &mut CaptureProgram, frame: &[u8]) -> Result<Captured> {
    let decision = world.check(frame)?;
    let captured = capture.fetch()?.context("not captured")?;
    ensure!(capture.fetch()?.is_none(), "captured twice");
    let packet = &captured.packet;
    ensure!(
        captured.frame == frame && packet.length as usize == frame.len(),
        "another frame came: {packet:?}"
    );
    let (action, reason, out) = match &decision.verdict {
        Verdict::Pass => (XDP_PASS, 0, &[][..]),
        Verdict::Drop(reason) => (XDP_DROP, *reason as u32, &[][..]),
        Verdict::Transmit(out) => (XDP_TX, 0, &out[..]),
        Verdict::Redirect(out) => (XDP_REDIRECT, 0, &out[..]),
    };
    assert_eq!((packet.action, packet.reason), (action, reason), "{packet:?}");
    ensure!(
        captured.frame_after == out && packet.length_after as usize == out.len(),
        "another frame left: {packet:?}"
    );
    let redirected = if action == XDP_REDIRECT { world.other_interface() } else { 0 };
    assert_eq!((packet.ifindex, packet.trace.ifindex), (world.state.ingress, redirected), "{packet:?}");
    ensure!(packet.received <= packet.decided && packet.received > 0, "{packet:?}");
    ensure!(!packet.trace.knows(TRACE_SLOT) || packet.trace.knows(TRACE_SERVICE), "{packet:?}");
    Ok(captured)
}

fn number(world: &World, family: Family, port: u16) -> u32 {
    let vip = Host::Vip.address(family);
    let mut services = world.state.services.iter();
    let found = services.find(|service| {
        service.address == vip && service.port == Some(port) && service.protocol == Protocol::Tcp
    });
    found.map(|service| service.number).expect("the fixture has it")
}

/// Packets of clients that have so many bits in common with `client`, of an address as the maps have it.
fn from(client: IpAddr, bits: u32) -> CaptureSettings {
    let mask = (u128::MAX << (128 - bits)).to_be_bytes();
    CaptureSettings { client: mapped(client), client_mask: mask, ..EVERYTHING }
}
