//! Differential fuzzing: frames made from well-formed ones by damaging them, and the maps changed in between, with
//! program and model asked the same about each.

use std::env;

use anyhow::{Context, Result};
use fastrand::Rng;

use super::frame::hex;
use super::fuzz_changes::{change, change_its_slot, republish};
pub use super::fuzz_coverage::Coverage;
use super::fuzz_frames::{Frame, Frames};
use super::world::World;
use super::{fuzz_flows, fuzz_nat};

/// Packets between two changes of the maps, and between two publications of services.
const CHANGE_EVERY: u64 = 16;
const PUBLISH_EVERY: u64 = 5_000;
/// Packets between two moves to another CPU.
const MOVE_EVERY: u64 = 1_000;

/// The most random frames a test takes, where that is set: emulated machines are slow.
const PACKETS_VARIABLE: &str = "BALLAST_PACKETS";

/// How many random frames to run where `ordinary` are enough on a host.
///
/// # Errors
///
/// If the variable that limits them is set to no number.
pub fn packets(ordinary: u64) -> Result<u64> {
    let Ok(most) = env::var(PACKETS_VARIABLE) else { return Ok(ordinary) };
    let most = most.parse().with_context(|| format!("{PACKETS_VARIABLE}={most:?} is no number"))?;
    Ok(ordinary.min(most))
}

/// Runs `packets` frames; the same seed gives the same frames and changes, but for ports that the program takes by chance.
///
/// # Errors
///
/// The first frame about which program and model disagree, cut down as far as they still do.
pub fn run(world: &mut World, seed: u64, packets: u64) -> Result<Coverage> {
    let mut rng = Rng::with_seed(seed);
    let (mut coverage, mut frames) = (Coverage::default(), Frames::default());
    let furnished = world.state.services.clone();
    world.set_time(rng.u64(..1 << 20));
    for number in 0..packets {
        if number % CHANGE_EVERY == 0 {
            change(world, &mut rng).context("change the maps")?;
            fuzz_flows::change(world, &mut rng).context("change what is known of flows")?;
            fuzz_nat::change(world, &mut rng).context("change what is known of NAT")?;
            coverage.state_changes += 1;
        }
        if number % PUBLISH_EVERY == 0 {
            republish(world, &mut rng, &furnished).context("publish services")?;
            // So that none is forgotten by itself.
            world.forget_notes()?;
        }
        if number % MOVE_EVERY == 0 {
            let cpu = world.cpus()[rng.usize(..world.cpus().len())];
            world.run_on_cpu(cpu)?;
        }
        let Frame { story, bytes: frame } = frames.next(&mut rng, world);
        match rng.u8(..16) {
            0 => fuzz_flows::plant(world, &mut rng, &frame),
            1..=3 => change_its_slot(world, &mut rng, &frame)?,
            _ => {}
        }
        match world.check(&frame) {
            Ok(decision) => {
                frames.saw(&decision);
                coverage.add(&frame, &decision);
            }
            Err(error) => return Err(report(world, &story, &frame, number, &error)),
        }
    }
    world.audit()?;
    Ok(coverage)
}

fn report(
    world: &World,
    story: &[String],
    frame: &[u8],
    number: u64,
    error: &anyhow::Error,
) -> anyhow::Error {
    let minimal = shrink(world, frame);
    let difference = world.differs(&minimal).unwrap_or_default();
    anyhow::anyhow!(
        "packet {number}: {}\n  minimal frame:\n{}\n  {difference}\n  at first:\n{error:#}",
        story.join(", then "),
        hex(&minimal),
    )
}

/// Cuts a frame down as long as program and model still disagree about it.
fn shrink(world: &World, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let mut step = frame.len() / 2;
    while step > 0 {
        let shorter = frame.len().saturating_sub(step);
        if shorter >= 14 && world.differs(&frame[..shorter]).is_some() {
            frame.truncate(shorter);
        } else {
            step /= 2;
        }
    }
    for at in 0..frame.len() {
        let byte = std::mem::take(&mut frame[at]);
        if world.differs(&frame).is_none() {
            frame[at] = byte;
        }
    }
    frame
}
