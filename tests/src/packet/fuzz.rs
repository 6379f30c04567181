//! Differential fuzzing: frames made from well-formed ones by damaging them, and the maps changed in between, with
//! program and model asked the same about each.

use std::collections::BTreeMap;
use std::env;

use anyhow::{Context, Result, bail};
use fastrand::Rng;

use super::fixture::{BACKENDS, Exit, Family, SLOTS, backend_mac};
use super::frame::hex;
use super::world::World;
use super::{fuzz_flows, fuzz_frames};
use crate::model::{Decision, Fate, Kind, Selection, Service, Slot, Verdict, decide};

/// What a run met, so that a test can tell that it met everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    pub packets: u64,
    pub passed: u64,
    pub transmitted: u64,
    pub redirected: u64,
    /// By drop reason.
    pub drops: [u64; 12],
    pub state_changes: u64,
    /// Of tracked packets.
    pub fates: BTreeMap<(Selection, Kind, Fate), u64>,
    pub exceptions: u64,
    pub failures: u64,
    pub new_flows: u64,
}

impl Coverage {
    fn add(&mut self, decision: &Decision) {
        self.packets += 1;
        match &decision.verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Transmit(_) => self.transmitted += 1,
            Verdict::Redirect(_) => self.redirected += 1,
            Verdict::Drop(reason) => self.drops[*reason as usize] += 1,
        }
        let effects = &decision.effects;
        if let Some(looked) = effects.looked_at {
            *self.fates.entry((looked.selection, looked.kind, looked.fate)).or_default() += 1;
        }
        self.exceptions += u64::from(effects.exception);
        self.failures += u64::from(effects.failed);
        self.new_flows += u64::from(decision.counted.is_some_and(|counted| counted.new_flow));
    }
}

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

/// Runs `packets` frames; the same seed gives the same frames and changes.
///
/// # Errors
///
/// The first frame about which program and model disagree, cut down as far as they still do.
pub fn run(world: &mut World, seed: u64, packets: u64) -> Result<Coverage> {
    let mut rng = Rng::with_seed(seed);
    let mut coverage = Coverage::default();
    let furnished = world.state.services.clone();
    world.set_time(rng.u64(..1 << 20));
    for number in 0..packets {
        if number % CHANGE_EVERY == 0 {
            change(world, &mut rng).context("change the maps")?;
            fuzz_flows::change(world, &mut rng).context("change what is known of flows")?;
            coverage.state_changes += 1;
        }
        if number % PUBLISH_EVERY == 0 {
            republish(world, &mut rng, &furnished).context("publish services")?;
        }
        if number % MOVE_EVERY == 0 {
            let cpu = world.cpus()[rng.usize(..world.cpus().len())];
            world.run_on_cpu(cpu)?;
        }
        let (story, frame) = fuzz_frames::frame(&mut rng);
        match rng.u8(..16) {
            0 => fuzz_flows::plant(world, &mut rng, &frame),
            1 => change_its_slot(world, &mut rng, &frame)?,
            _ => {}
        }
        match world.check(&frame) {
            Ok(decision) => coverage.add(&decision),
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

/// Changes one thing in the maps, as a controller does while packets flow.
fn change(world: &mut World, rng: &mut Rng) -> Result<()> {
    let service = rng.usize(..world.state.services.len());
    let family = if world.state.services[service].address.is_ipv4() { Family::V4 } else { Family::V6 };
    // A service keeps to its own three indexes, which follow from its number.
    let first = 1 + world.state.services[service].number * BACKENDS;
    let index = first + rng.u32(..BACKENDS);
    let number = rng.usize(..SLOTS);
    match rng.u8(..8) {
        0..=3 => {
            if world.state.services[service].base < world.state.lookup_limit {
                change_slot(world, rng, service, number)?;
            }
        }
        4 => {
            let (new, existing, weight) = (rng.u8(..4) != 0, rng.u8(..8) != 0, rng.u16(..5));
            world.change_backend(index, |backend| {
                backend.accepts_new_flows = new;
                backend.accepts_existing_flows = existing;
                backend.weight = weight;
            })?;
        }
        _ => {
            let exits = [Exit::Same, Exit::Same, Exit::Elsewhere, Exit::Hole, Exit::Small, Exit::BeyondMap];
            let mut mac = backend_mac(index);
            mac[1] = rng.u8(..);
            let hop = match rng.u8(..8) {
                0 => None,
                // A number in range that was never written.
                1 => Some((mac, 777)),
                _ => Some((mac, exits[rng.usize(..exits.len())].number(family))),
            };
            world.change_backend(index, |backend| backend.next_hop = hop)?;
        }
    }
    Ok(())
}

/// Changes the slot that a frame looks at.
fn change_its_slot(world: &mut World, rng: &mut Rng, frame: &[u8]) -> Result<()> {
    let Some(slot) = decide(&world.state, frame).effects.slot else { return Ok(()) };
    let of = |service: &Service| (service.base..service.base + SLOTS as u32).contains(&slot);
    let service = world.state.services.iter().position(of).context("a slot of no service")?;
    let Service { base, number, selection, rotation, .. } = world.state.services[service];
    let next = world.state.placed.get(&number).copied().unwrap_or_default();
    let slot = match selection {
        // The one that the next new flow gets.
        Selection::RoundRobin if rng.bool() => (next % u64::from(rotation)) as usize,
        _ => (slot - base) as usize,
    };
    change_slot(world, rng, service, slot)
}

fn change_slot(world: &mut World, rng: &mut Rng, service: usize, number: usize) -> Result<()> {
    let first = 1 + world.state.services[service].number * BACKENDS;
    let (limit, selection) = (world.state.backend_limit, world.state.services[service].selection);
    let mut any = || match rng.u8(..24) {
        0 | 1 => 0,
        // What least-connections makes of a weight that isn't there is nobody's business.
        2 if selection != Selection::LeastConnections => limit + rng.u32(..100),
        // An index that was never written.
        3 => limit - 1,
        // Another service's.
        4 => 1 + rng.u32(..100),
        _ => first + rng.u32(..BACKENDS),
    };
    let (current, previous) = (any(), any());
    let opened = rng.u16(..);
    let slot = match rng.u8(..4) {
        0 => Slot::steady(current),
        1 => Slot { current, previous: 0, opened, tracked: true },
        _ => Slot { current, previous, opened, tracked: true },
    };
    world.change_slot(service, number, slot)
}

/// Makes another choice of services live. Those that stay keep their slots.
fn republish(world: &mut World, rng: &mut Rng, furnished: &[Service]) -> Result<()> {
    let live = std::mem::take(&mut world.state.services);
    for service in furnished {
        if rng.u8(..8) == 0 {
            continue;
        }
        match live.iter().find(|known| known.number == service.number) {
            Some(known) => world.state.services.push(known.clone()),
            // It comes back with the slots it was furnished with.
            None => world.add_service(service.clone())?,
        }
    }
    if world.state.services.is_empty() {
        bail!("no service was left");
    }
    world.publish()
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
