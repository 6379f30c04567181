//! The program as the kernel sees it.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use ballast::dataplane::loader;
use lb_common::abi::{CLOCK_REFRESH_PACKETS, names};
use lb_common::hash::HashKey;
use lb_tests::model::Protocol;
use lb_tests::packet::budget::{Budget, CEILING, Measured};
use lb_tests::packet::kernel::Series;
use lb_tests::packet::{LIMITS, Packet, World};
use lb_tests::require_root;

/// Set to write the running kernel's figures into the budget.
const UPDATE: &str = "BALLAST_UPDATE_SNAPSHOT";

#[test]
fn the_verifier_accepts_the_programs_within_their_budget() -> Result<()> {
    require_root!(Ok(()));
    let series = Series::running()?.to_string();
    let (linear, _maps) = loader::load_linear_for_test(LIMITS, HashKey::default(), true, true)?;
    let traced = |side_effects| -> Result<u32> {
        let (program, _maps) = loader::load_traced_for_test(LIMITS, HashKey::default(), side_effects)?;
        verified_instructions(&program)
    };
    let measured = Measured::from_iter([
        (format!("{}, tracing", names::PROGRAM), traced(true)?),
        (format!("{}, tracing, without side effects", names::PROGRAM), traced(false)?),
        (names::PROGRAM_LINEAR.into(), verified_instructions(&linear)?),
        (names::PROGRAM_PROBE.into(), World::new()?.verified_probe()?),
        walked(&World::with_a_clock_of_its_own()?, ""),
        walked(&World::new()?, ", its clock held"),
        walked(&World::without_side_effects()?, ", without side effects"),
        walked(&World::replicating()?, ", replicating"),
        walked(&World::capturing(false)?.0, ", capturing"),
        walked(&World::capturing(true)?.0, ", capturing"),
    ]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifier_budget.toml");
    let committed = fs::read_to_string(&path).context("read the verifier's budget")?;
    let mut budget = Budget::parse(&committed)?;
    if env::var_os(UPDATE).is_some() {
        budget.set(&series, &measured);
        let comment =
            committed.lines().take_while(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n");
        return fs::write(&path, format!("{comment}\n\n{}", budget.text())).context("write the budget");
    }
    let objections = budget.objections(&series, &measured);
    ensure!(
        objections.is_empty(),
        "on Linux {series} the verifier's budget is not kept:\n  {}\nIf it has to be so, and stays below {CEILING}, put \
         this into tests/tests/verifier_budget.toml ({UPDATE}=1 does, on a kernel that is not emulated):\n\n{}",
        objections.join("\n  "),
        Budget::table(&series, &measured),
    );
    Ok(())
}

fn walked(world: &World, how: &str) -> (String, u32) {
    let (name, walked) = world.verified();
    (format!("{name}{how}"), walked)
}

/// Of a program that no world runs.
fn verified_instructions(program: &OwnedFd) -> Result<u32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("verified_insns:"));
    Ok(line.context("the kernel does not say how much it walked")?.trim().parse()?)
}

#[test]
fn time_goes_on_without_the_controller() -> Result<()> {
    require_root!(Ok(()));
    let mut world = World::with_a_clock_of_its_own()?;
    let frame = Packet::new(Protocol::Tcp, (client(), 1024), (client(), 80)).build();
    let packets = |world: &World, count: u64| -> Result<()> {
        for _ in 0..count {
            world.run(&frame)?;
        }
        Ok(())
    };
    packets(&world, CLOCK_REFRESH_PACKETS - 1)?;
    assert_eq!(world.clock(), 0, "not every packet looks at the clock");
    let before = monotonic()?;
    packets(&world, 1)?;
    // The kernel's coarse clock is a few milliseconds behind.
    assert!((before.saturating_sub(1)..=monotonic()?).contains(&world.clock()), "{}", world.clock());
    assert_eq!(world.clock_jump(), (0, 0), "a new clock has not stood still");
    // Either of those who keep it says for how long nobody did.
    world.dataplane().store_clock(1);
    packets(&world, CLOCK_REFRESH_PACKETS)?;
    let now = world.clock() as u32;
    assert_eq!(world.clock_jump(), (now, now - 1));
    for (step, wanted) in [(5, (now, now - 1)), (20_000_000, (now + 20_000_005, 20_000_000))] {
        let next = world.clock() + step;
        world.dataplane().store_clock(next);
        assert_eq!(world.clock_jump(), wanted);
    }
    Ok(())
}

fn client() -> IpAddr {
    Ipv4Addr::new(198, 18, 0, 1).into()
}

fn monotonic() -> Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())?)
}
