//! The program as the kernel sees it.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use lb_common::abi::CLOCK_REFRESH_PACKETS;
use lb_tests::model::Protocol;
use lb_tests::packet::{Packet, World};
use lb_tests::require_root;

/// The verifier gives up at a million instructions, walked on all paths together; what adds a door must leave room for
/// the next.
const ENOUGH: u32 = 250_000;

#[test]
fn the_verifier_accepts_the_program_with_room_to_spare() -> Result<()> {
    require_root!(Ok(()));
    for world in [World::new()?, World::without_side_effects()?] {
        let (instructions, verified) = world.instructions();
        println!("{instructions} instructions, the verifier walked {verified}");
        assert!(verified < ENOUGH, "{verified}");
    }
    Ok(())
}

#[test]
fn time_goes_on_without_the_controller() -> Result<()> {
    require_root!(Ok(()));
    let world = World::with_a_clock_of_its_own()?;
    let frame = Packet::new(Protocol::Tcp, (client(), 1024), (client(), 80)).build();
    let packets = |count: u64| -> Result<()> {
        for _ in 0..count {
            world.run(&frame)?;
        }
        Ok(())
    };
    packets(CLOCK_REFRESH_PACKETS - 1)?;
    assert_eq!(world.clock(), 0, "not every packet looks at the clock");
    let before = monotonic()?;
    packets(1)?;
    // The kernel's coarse clock is a few milliseconds behind.
    assert!((before.saturating_sub(1)..=monotonic()?).contains(&world.clock()), "{}", world.clock());
    Ok(())
}

fn client() -> IpAddr {
    Ipv4Addr::new(198, 18, 0, 1).into()
}

fn monotonic() -> Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())?)
}
