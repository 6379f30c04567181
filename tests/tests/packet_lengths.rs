//! Frames that end too early, at every length there is, and frames that are too long.

use anyhow::Result;
use lb_common::abi::DropReason;
use lb_tests::lab::skip;
use lb_tests::model::{Protocol, Verdict, decide};
use lb_tests::packet::World;
use lb_tests::packet::fixture::{Family, Host, Way, packet, world};
use lb_tests::packet::kernel::Series;
use lb_tests::require_root;

/// The kernel runs nothing shorter than an Ethernet header.
const SHORTEST: usize = 14;

#[test]
fn a_frame_for_a_vip_cut_at_any_length_is_passed_or_dropped_by_name() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for way in [Way::L2Dsr, Way::Ipip, Way::IpipElsewhere, Way::NoBackend] {
        let (passed, dropped) = cut_everywhere(&mut world, Host::Vip, way)?;
        assert!(passed > 0 && dropped > 0, "{way:?}: {passed} passed, {dropped} dropped");
    }
    world.audit()
}

#[test]
fn a_frame_for_others_cut_at_any_length_passes_untouched() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    let (_, dropped) = cut_everywhere(&mut world, Host::NotVip, Way::L2Dsr)?;
    assert_eq!(dropped, 0);
    world.audit()
}

/// How many were passed and how many dropped.
fn cut_everywhere(world: &mut World, to: Host, way: Way) -> Result<(u32, u32)> {
    let (mut passed, mut dropped) = (0, 0);
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for (tags, options) in [(0, 0), (1, 0), (2, 0), (0, 12), (2, 40)] {
                let mut packet = packet(family, protocol, to, way.port()).with_tags(tags);
                packet.options = vec![1; options];
                let frame = packet.build();
                for len in SHORTEST..frame.len() {
                    match world.check(&frame[..len])?.verdict {
                        Verdict::Pass => passed += 1,
                        Verdict::Drop(DropReason::TruncatedHeader) => dropped += 1,
                        other => panic!("{family:?} {protocol:?}, {len} of {} bytes: {other:?}", frame.len()),
                    }
                }
                world.check(&frame)?;
            }
        }
    }
    Ok((passed, dropped))
}

/// So that the tests above would notice if it did, and somebody lowered their bound.
#[test]
fn the_kernel_runs_no_frame_shorter_than_an_ethernet_header() -> Result<()> {
    require_root!(Ok(()));
    let world = world()?;
    let frame = packet(Family::V4, Protocol::Tcp, Host::Vip, Way::L2Dsr.port()).build();
    for len in 0..SHORTEST {
        assert!(world.run(&frame[..len]).is_err(), "{len} bytes");
    }
    Ok(())
}

/// The first kernel that takes more metadata than 32 bytes ("net, xdp: allow metadata > 32").
const LONG_METADATA: Series = Series { major: 6, minor: 8 };

#[test]
fn a_frame_without_headroom_for_an_outer_header_is_dropped_by_name() -> Result<()> {
    require_root!(Ok(()));
    if Series::running()? < LONG_METADATA {
        skip(
            "before Linux 6.8 metadata is 32 bytes long at most, and nothing else takes up a test run's headroom",
        );
        return Ok(());
    }
    let mut world = world()?;
    for family in Family::BOTH {
        let frame = packet(family, Protocol::Udp, Host::Vip, Way::Ipip.port()).build();
        let mut decision = decide(&world.state, &frame);
        // Of 256 bytes the kernel keeps 40 to itself, so 4 are left.
        let full = 256 - 40 - 4;
        // As far as the model knows the driver has all the room there is.
        decision.verdict = Verdict::Drop(DropReason::NoHeadroom);
        decision.counted = None;
        world.expect(&frame, full, &decision)?;
    }
    world.audit()
}

/// What fits a page besides the reserves that the kernel keeps before and behind a frame.
const LONGEST: usize = 4096 - 256 - 320;

#[test]
fn the_longest_frames_of_one_buffer_are_counted_and_harmless() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for (to, way) in [(Host::Vip, Way::L2Dsr), (Host::Vip, Way::Ipip), (Host::NotVip, Way::L2Dsr)] {
            let mut packet = packet(family, Protocol::Udp, to, way.port());
            for len in (1400..LONGEST).step_by(97).chain([LONGEST]) {
                packet.payload = vec![0x5a; len - packet.l4() - Protocol::Udp.header_len()];
                world.check(&packet.build())?;
            }
        }
    }
    world.audit()
}

/// Its headers lie in the first buffer, and what is asked of its length is asked of all of them.
#[test]
fn a_frame_of_several_buffers_is_judged_as_a_whole() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for (to, way) in [(Host::Vip, Way::L2Dsr), (Host::Vip, Way::Ipip), (Host::NotVip, Way::L2Dsr)] {
            for payload in [3600, 4096, 8900, 20_000] {
                let mut packet = packet(family, Protocol::Udp, to, way.port());
                packet.payload = vec![0x5a; payload];
                let frame = packet.build();
                world.check(&frame)?;
                let verdict = world.check(&frame[..frame.len() - 1])?.verdict;
                let dropped = matches!(verdict, Verdict::Drop(DropReason::TruncatedHeader));
                assert_eq!(dropped, to == Host::Vip, "{verdict:?}");
            }
        }
    }
    world.audit()
}
