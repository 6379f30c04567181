//! The maps in which packets leave traces: flow entries, stamps, loads and rotations, in the kernel's memory and as the
//! model has them.

use std::mem::offset_of;

use anyhow::{Result, ensure};
use lb_common::abi::{BackendValue, ClockCell, names};

use super::encode;
use super::sys::{ProgramInfo, Words};
use crate::model::{Effects, Flow, State, flow};

#[derive(Debug)]
pub(super) struct FlowMaps {
    clock: Words,
    lookup: Words,
    flows: Words,
    stamps: Words,
    loads: Words,
    placed: Words,
    backends: Words,
}

/// Words an entry of each map.
const BUCKET: usize = 8;
const LOAD: usize = 2;
const ROTATION: usize = 8;
/// Where it stands in the clock's cell.
const JUMP: usize = offset_of!(ClockCell, jump) / 8;
const BACKEND: usize = size_of::<BackendValue>() / 8;

impl FlowMaps {
    pub(super) fn open(info: &ProgramInfo) -> Result<Self> {
        Ok(Self {
            clock: Words::open(info, names::CLOCK)?,
            lookup: Words::open(info, names::LOOKUP)?,
            flows: Words::open(info, names::FLOWS)?,
            stamps: Words::open(info, names::SLOT_STAMPS)?,
            loads: Words::open(info, names::FLOW_LOAD)?,
            placed: Words::open(info, names::ROTATION)?,
            backends: Words::open(info, names::BACKENDS)?,
        })
    }

    pub(super) fn clock(&self) -> u64 {
        self.clock.load(0)
    }

    pub(super) fn store_clock(&self, now: u64) {
        self.clock.store(0, now);
    }

    pub(super) fn clock_jump(&self) -> (u32, u32) {
        let word = self.clock.load(JUMP);
        (word as u32, (word >> 32) as u32)
    }

    pub(super) fn store_clock_jump(&self, (at, length): (u32, u32)) {
        self.clock.store(JUMP, u64::from(at) | u64::from(length) << 32);
    }

    /// Writes a slot, and its stamps not.
    pub(super) fn store_slot(&self, place: u32, word: u64) {
        self.lookup.store(place as usize, word);
    }

    pub(super) fn store_entry(&self, bucket: usize, place: usize, word: u64) {
        self.flows.store(bucket * BUCKET + place, word);
    }

    pub(super) fn store_stamps(&self, state: &State, slot: u32) {
        self.stamps.store(slot as usize / 2, stamps(state, slot / 2));
    }

    pub(super) fn store_load(&self, state: &State, index: u32) {
        let load = state.loads.get(&index).copied().unwrap_or_default();
        self.loads.store(index as usize * LOAD, load.base);
        self.loads.store(index as usize * LOAD + 1, load.changes);
    }

    pub(super) fn store_placed(&self, state: &State, service: u32) {
        let placed = state.placed.get(&service).copied().unwrap_or_default();
        self.placed.store(service as usize * ROTATION, placed);
    }

    pub(super) fn store_weight(&self, index: u32, weight: u16) {
        let at = offset_of!(BackendValue, weight);
        let word = index as usize * BACKEND + at / 8;
        let mut bytes = self.backends.load(word).to_ne_bytes();
        bytes[at % 8..at % 8 + 2].copy_from_slice(&weight.to_ne_bytes());
        self.backends.store(word, u64::from_ne_bytes(bytes));
    }

    /// Makes the kernel's maps what the model's are.
    pub(super) fn write(&self, state: &State) {
        for (bucket, words) in state.flows.iter().enumerate() {
            for (place, &word) in words.iter().enumerate() {
                self.store_entry(bucket, place, word);
            }
        }
        for pair in 0..state.lookup_limit / 2 {
            self.store_stamps(state, 2 * pair);
        }
        for index in 0..state.backend_limit {
            self.store_load(state, index);
        }
        for service in 0..(self.placed.all().len() / ROTATION) as u32 {
            self.store_placed(state, service);
        }
    }

    /// Compares what a packet may have touched with `before` and its effects.
    pub(super) fn compare(&self, before: &State, effects: &Effects) -> Result<()> {
        let Some(looked) = effects.looked_at else { return Ok(()) };
        let mut wanted = before.flows[looked.bucket];
        if let Some((place, word)) = effects.entry {
            wanted[place] = word;
        }
        self.compare_bucket(looked.bucket, &wanted)?;

        let slot = looked.slot;
        let old = |slot| before.stamps.get(&slot).copied().unwrap_or_default();
        let mut pair = [old(slot & !1), old(slot | 1)];
        pair[slot as usize % 2] = effects.stamps(before);
        same(&format!("stamps of slot {slot}"), self.stamps.load(slot as usize / 2), encode::stamps(pair))?;

        for &(index, _) in &effects.loads {
            let change = effects.loads.iter().filter(|(other, _)| *other == index).map(|(_, change)| change);
            let load = before.loads.get(&index).copied().unwrap_or_default();
            let changes = load.changes.wrapping_add_signed(change.sum());
            let found = self.loads.all().get(index as usize * LOAD + 1);
            if let Some(found) = found {
                let found = found.load(std::sync::atomic::Ordering::Acquire);
                same(&format!("load of backend {index}"), found, changes)?;
            }
        }
        if let Some(service) = effects.rotated {
            let placed = before.placed.get(&service).copied().unwrap_or_default();
            let found = self.placed.load(service as usize * ROTATION);
            same(&format!("rotation of service {service}"), found, placed.wrapping_add(1))?;
        }
        Ok(())
    }

    /// Compares all there is.
    pub(super) fn audit(&self, state: &State) -> Result<()> {
        same("the clock", self.clock.load(0), state.now)?;
        for (bucket, wanted) in state.flows.iter().enumerate() {
            self.compare_bucket(bucket, wanted)?;
        }
        for pair in 0..state.lookup_limit / 2 {
            let found = self.stamps.load(pair as usize);
            same(&format!("stamps of slots {} and its neighbour", 2 * pair), found, stamps(state, pair))?;
        }
        for index in 0..state.backend_limit {
            let load = state.loads.get(&index).copied().unwrap_or_default();
            let at = index as usize * LOAD;
            same(&format!("base of backend {index}"), self.loads.load(at), load.base)?;
            same(&format!("load of backend {index}"), self.loads.load(at + 1), load.changes)?;
        }
        for service in 0..self.placed.all().len() / ROTATION {
            let placed = state.placed.get(&(service as u32)).copied().unwrap_or_default();
            same(&format!("rotation of service {service}"), self.placed.load(service * ROTATION), placed)?;
        }
        Ok(())
    }

    fn compare_bucket(&self, bucket: usize, wanted: &flow::Bucket) -> Result<()> {
        for (place, &wanted) in wanted.iter().enumerate() {
            let found = self.flows.load(bucket * BUCKET + place);
            let flows = (Flow::from_word(wanted), Flow::from_word(found));
            ensure!(
                found == wanted,
                "entry {place} of bucket {bucket}\n  expected: {wanted:#x} {:?}\n  observed: {found:#x} {:?}",
                flows.0,
                flows.1,
            );
        }
        Ok(())
    }
}

/// Word of slots `2 * pair` and the one behind it.
fn stamps(state: &State, pair: u32) -> u64 {
    let of = |slot| state.stamps.get(&slot).copied().unwrap_or_default();
    encode::stamps([of(2 * pair), of(2 * pair + 1)])
}

fn same(what: &str, found: u64, wanted: u64) -> Result<()> {
    ensure!(found == wanted, "{what}\n  expected: {wanted:#x}\n  observed: {found:#x}");
    Ok(())
}
