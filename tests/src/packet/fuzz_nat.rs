//! What a fuzz run does to NAT, to notes and to limits.

use std::collections::BTreeSet;

use anyhow::Result;
use fastrand::Rng;

use super::fixture::OTHER_MAC;
use super::frame::BALANCER_MAC;
use super::modes;
use super::world::World;
use crate::model::{NatChange, NatReply, Pool};

/// Another pool, a limit that is nearly reached, flows that the controller takes away, clients that move.
pub(super) fn change(world: &mut World, rng: &mut Rng) -> Result<()> {
    match rng.u8(..32) {
        0 if rng.bool() => world.set_pool(pool(rng))?,
        2 => remove(world, rng, 1)?,
        3 => world.forget_notes()?,
        5 => {
            let now = world.state.now as u32;
            world.set_jump(now.wrapping_sub(rng.u32(..200)), rng.u32(..200.min(now.max(1))));
        }
        4 => world.set_errors_made(999)?,
        10..=18 => {
            let limited = world.state.services.iter().filter(|service| service.new_flow_limit > 0);
            let limited: Vec<_> = limited.map(|service| service.number).collect();
            if !limited.is_empty() {
                let second = (world.state.now as u32).wrapping_sub(rng.u32(..2));
                let flows = rng.u32(modes::LIMIT - 2..=modes::LIMIT);
                world.set_opened(limited[rng.usize(..limited.len())], (second, flows));
            }
        }
        6 if rng.bool() => change_own_macs(world, rng)?,
        8 | 9 => lead_elsewhere(world, rng)?,
        _ => {}
    }
    // Full tables are met, and don't stay so.
    if world.state.nat.replies.len() == world.state.nat.limit && rng.u8(..4) == 0 {
        remove(world, rng, 2)?;
    }
    Ok(())
}

/// Most frames are for the first.
fn change_own_macs(world: &mut World, rng: &mut Rng) -> Result<()> {
    let mut macs: BTreeSet<_> = [BALANCER_MAC, OTHER_MAC].into();
    match rng.u8(..16) {
        0 => drop(macs.remove(&BALANCER_MAC)),
        1..4 => return world.set_own_macs(None),
        _ => macs.extend((0..rng.u8(..62)).map(|number| [0x02, rng.u8(..), 0, 0, 0, number])),
    }
    world.set_own_macs(Some(macs))
}

fn pool(rng: &mut Rng) -> Pool {
    let mut pool = modes::pool();
    let first = 40_000 + if rng.bool() { 0 } else { rng.u16(..64) };
    // Mostly few, so that they are used up and change hands.
    let ports = [1, 1, 1, 2, 2, 3, 3, 8, 15, 16, 17, 64, 1000];
    pool.first_port = first;
    pool.last_port = first + ports[rng.usize(..ports.len())] - 1;
    match rng.u8(..4) {
        // The source addresses of the ways out.
        0 => pool.addresses.clear(),
        1 => drop(pool.addresses.drain(1..3)),
        _ => {}
    }
    pool
}

/// Takes a part of all flows away.
fn remove(world: &mut World, rng: &mut Rng, part: usize) -> Result<()> {
    let keys: Vec<_> = world.state.nat.replies.keys().copied().collect();
    for key in keys {
        if rng.usize(..4) < part {
            world.remove_nat(&key)?;
        }
    }
    Ok(())
}

/// Replies of a flow go out of another interface, or of one that is gone.
fn lead_elsewhere(world: &mut World, rng: &mut Rng) -> Result<()> {
    let count = world.state.nat.replies.len();
    if count == 0 {
        return Ok(());
    }
    let Some((&key, &reply)) = world.state.nat.replies.iter().nth(rng.usize(..count)) else { return Ok(()) };
    let interface = if rng.u8(..8) == 0 { GONE } else { world.other_interface() };
    world.plant_nat(&NatChange::Reply(key, Some(NatReply { interface, ..reply })))
}

/// An interface that nobody has.
const GONE: u32 = 9_999;
