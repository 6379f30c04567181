//! Slots that stay tracked for another load balancer's sake.

use std::collections::HashMap;

use crate::peers::wire::CHUNK;

/// By slot. Times are coarse, and those that are over are forgotten now and then.
#[derive(Clone, Debug, Default)]
pub struct Holds(HashMap<u32, Box<[Hold; CHUNK]>>);

/// Until when a slot may not be closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    pub tracked: u64,
    /// Nor its previous backend be forgotten.
    pub previous: u64,
}

impl Holds {
    pub fn of(&self, slot: u32) -> Hold {
        let (chunk, place) = place(slot);
        self.0.get(&chunk).and_then(|holds| holds.get(place)).copied().unwrap_or_default()
    }

    /// Holds a slot at least as long as this.
    pub fn extend(&mut self, slot: u32, until: Hold) {
        let (chunk, place) = place(slot);
        if let Some(hold) = self.0.entry(chunk).or_default().get_mut(place) {
            hold.tracked = hold.tracked.max(until.tracked);
            hold.previous = hold.previous.max(until.previous);
        }
    }

    /// Forgets what is over.
    pub fn prune(&mut self, now: u64) {
        self.0.retain(|_, holds| holds.iter().any(|hold| hold.tracked.max(hold.previous) >= now));
    }
}

const fn place(slot: u32) -> (u32, usize) {
    (slot / CHUNK as u32, slot as usize % CHUNK)
}
