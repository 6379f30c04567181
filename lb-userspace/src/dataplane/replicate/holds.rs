//! Slots that stay tracked for another load balancer's sake.

use std::collections::HashMap;

use crate::{dataplane::scan::MARGIN, peers::wire::CHUNK};

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

impl Hold {
    /// Until the last entries of flows that may be idle for `idle` units and are seen now are gone.
    pub(in crate::dataplane) fn for_entries_of(now: u64, idle: u32) -> Self {
        Self { tracked: now + u64::from(idle + MARGIN) + LINGER, previous: 0 }
    }
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

/// Time units that a slot is held beyond the age at which its last entries go: what a message may be late, and clocks may differ.
const LINGER: u64 = 4;
