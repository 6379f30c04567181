//! What a fuzz run does to time and to what is known of flows.

use anyhow::Result;
use fastrand::Rng;

use super::fixture::BACKENDS;
use super::world::World;
use crate::model::{Flow, FlowState, Load, Stamps, decide, flow};

/// Lets time pass, empties parts of the flow table, and writes stamps, loads and rotations, now and then.
pub(super) fn change(world: &mut World, rng: &mut Rng) -> Result<()> {
    let now = world.state.now;
    match rng.u8(..16) {
        0..=3 => world.set_time(now + rng.u64(..3)),
        4 => world.set_time(now + rng.u64(..6000)),
        // One CPU's clock may lag behind another's.
        5 => world.set_time(now.saturating_sub(rng.u64(..3))),
        // Around a wrap of 13 or of 16 bits.
        6 => {
            let wrap = if rng.bool() { 1 << 13 } else { 1 << 16 };
            world.set_time((now / wrap + 1) * wrap - rng.u64(..3));
        }
        7..=9 => {
            let bucket = rng.usize(..world.state.flows.len());
            let keep = rng.usize(..8);
            (keep..8).for_each(|place| world.plant(bucket, place, 0));
        }
        10 => {
            let slot = rng.u32(..world.state.lookup_limit / 4);
            world.set_stamps(slot, Stamps { exception: rng.u16(..), failed: rng.u16(..) });
        }
        11 | 12 => {
            let service = rng.u32(..world.state.services.len() as u32);
            let index = 1 + service * BACKENDS + rng.u32(..BACKENDS);
            let (base, changes) = (rng.u64(..100), rng.u64(..1 << 40));
            // The sum is small; its parts are not.
            world.set_load(index, Load { base: base.wrapping_sub(changes), changes });
        }
        13 => {
            let service = rng.u32(..world.state.services.len() as u32);
            world.set_placed(service, rng.u64(..) >> rng.u32(..64));
        }
        _ => {}
    }
    Ok(())
}

/// Plants an entry in the frame's bucket, often under its tag and often for a backend of its service.
pub(super) fn plant(world: &mut World, rng: &mut Rng, frame: &[u8]) {
    let Some(looked) = decide(&world.state, frame).effects.looked_at else { return };
    let place = rng.usize(..8);
    let own = Some(looked.tag).filter(|_| rng.u8(..3) != 0);
    let first = 1 + looked.service * BACKENDS;
    let now = world.state.now;
    let flow = Flow {
        tag: own.unwrap_or_else(|| rng.u64(..1 << 29)),
        state: [FlowState::Unconfirmed, FlowState::Confirmed, FlowState::Closing][rng.usize(..3)],
        epoch: match rng.u8(..3) {
            0 => now.wrapping_sub(rng.u64(..6)) % flow::EPOCHS,
            1 => (now + 1) % flow::EPOCHS,
            _ => rng.u64(..flow::EPOCHS),
        },
        index: match rng.u8(..12) {
            0 => 1 + rng.u32(..300),
            1 => rng.u32(1..1 << 20),
            _ => first + rng.u32(..BACKENDS),
        },
    };
    // Garbage, but not what nobody writes: an entry of no backend, or an empty one that is not all zeros.
    let written = |word: &u64| Flow::from_word(*word).is_some_and(|flow| flow.index != 0);
    let garbage = Some(rng.u64(..)).filter(written).filter(|_| rng.u8(..16) == 0);
    world.plant(looked.bucket, place, garbage.unwrap_or_else(|| flow.word()));
}
