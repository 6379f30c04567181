//! The maps, and what the data plane does with a packet.

use std::sync::atomic::{AtomicU64, Ordering};

use ballast::dataplane::scan::Words;
use ballast::dataplane::track;
use lb_common::abi::{
    FLOW_CONFIRMED, FLOW_EMPTY, FLOW_UNCONFIRMED, FlowEntry, STATE_EXISTING_FLOWS, STATE_NEW_FLOWS, Slot,
};
use lb_common::flow::{
    self, Followed, Kind, Memory, NOTE_EVICTED, NOTE_EXCEPTION, NOTE_INSERTED, NOTE_REFUSED,
};

use super::mutation::Mutation;
use super::scenario::Scenario;
use super::{START, Simulation};

/// Slots of the one service.
pub(super) const SLOTS: usize = 256;
/// Backend indices, none included.
pub(super) const INDICES: usize = 24;

pub(super) struct Tables {
    slots: Vec<AtomicU64>,
    stamps: Vec<AtomicU64>,
    flows: Vec<AtomicU64>,
    loads: Vec<AtomicU64>,
    /// `STATE_*` bits by index.
    pub(super) states: [u32; INDICES],
}

impl Tables {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            slots: zeros(SLOTS),
            stamps: zeros(SLOTS / 2),
            flows: zeros(scenario.flow_entries),
            loads: zeros(2 * INDICES),
            states: [0; INDICES],
        }
    }

    pub(super) fn words(&self) -> Words<'_> {
        Words { slots: &self.slots, stamps: &self.stamps, flows: &self.flows, loads: &self.loads }
    }

    pub(super) fn slot(&self, number: usize) -> Slot {
        Slot::from_word(self.slots[number].load(Ordering::Acquire))
    }

    pub(super) fn store_slot(&self, number: usize, slot: Slot) {
        self.slots[number].store(slot.word(), Ordering::Release);
    }

    pub(super) fn tracked_slots(&self) -> u64 {
        (0..SLOTS).filter(|&number| self.slot(number).is_tracked()).count() as u64
    }

    pub(super) fn flow_words(&self) -> Vec<u64> {
        self.flows.iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }

    /// Puts entries back that are gone.
    pub(super) fn put_back(&self, before: &[u64]) {
        for (word, &before) in self.flows.iter().zip(before) {
            if word.load(Ordering::Relaxed) == 0 {
                word.store(before, Ordering::Relaxed);
            }
        }
    }

    fn buckets(&self) -> u32 {
        self.flows.len() as u32 / 8
    }
}

/// Where a packet arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    /// Backend index, 0 for none.
    pub(super) index: u32,
    pub(super) refused: bool,
}

impl Simulation<'_> {
    /// A packet's way through the data plane.
    pub(super) fn packet(&mut self, hash: u64, kind: Kind) -> Arrived {
        self.outcome.packets += 1;
        // The clock cell lags behind by a second now and then.
        let now = START + self.now / 1000 - u64::from(self.rng.u8(..8) == 0);
        let number = (hash >> 56) as usize;
        let slot = self.tables.slot(number);
        if !slot.is_tracked() {
            return Arrived { index: slot.current(), refused: false };
        }
        let at = flow::bucket(hash, self.tables.buckets() - 1) as usize * 8;
        let bucket = Bucket {
            entries: &self.tables.flows[at..at + 8],
            states: &self.tables.states,
            mutation: self.mutation,
            kind,
            tag: flow::tag(hash),
        };
        bucket.before();
        let mut followed = flow::follow(&bucket, slot, bucket.tag, kind, now, |_| slot.current());
        bucket.after(&followed);
        let refused = followed.notes & NOTE_REFUSED != 0;
        if refused && self.mutation == Some(Mutation::RefusedGoToCurrent) {
            followed.index = slot.current();
            followed.notes &= !NOTE_EXCEPTION;
        }
        self.note(number as u32, followed, now);
        Arrived { index: followed.index, refused }
    }

    /// Stamps the slot as the data plane does.
    fn note(&mut self, slot: u32, followed: Followed, now: u64) {
        let has = |note| followed.notes & note != 0;
        self.outcome.refused += u64::from(has(NOTE_REFUSED));
        self.outcome.evicted += u64::from(has(NOTE_EVICTED));
        self.outcome.exceptions += u64::from(has(NOTE_EXCEPTION));
        let exception = has(NOTE_EXCEPTION) && !self.is(Mutation::ExceptionsNotStamped);
        let failed = has(NOTE_REFUSED) && !self.is(Mutation::FailuresNotStamped);
        let old = track::stamps(&self.tables.stamps, slot);
        let stamp = |is_due, old| if is_due { now as u16 } else { old };
        // Halves of a pair of slots: exception and failure of the even one first.
        let stamps = [stamp(exception, old.exception), stamp(failed, old.failed)];
        let half = u64::from(stamps[0]) | u64::from(stamps[1]) << 16;
        let shift = 32 * (slot % 2);
        let word = &self.tables.stamps[slot as usize / 2];
        let other = word.load(Ordering::Relaxed) & !(0xffff_ffff << shift);
        word.store(other | half << shift, Ordering::Relaxed);
    }
}

/// A flow's bucket, seen by a packet.
struct Bucket<'a> {
    entries: &'a [AtomicU64],
    states: &'a [u32; INDICES],
    mutation: Option<Mutation>,
    kind: Kind,
    tag: u32,
}

impl Bucket<'_> {
    fn entry(&self, at: usize) -> FlowEntry {
        FlowEntry::from_word(self.entries[at].load(Ordering::Acquire))
    }

    fn own(&self) -> Option<usize> {
        (0..8).find(|&at| self.entry(at).state() != FLOW_EMPTY && self.entry(at).tag() == self.tag)
    }

    fn set(&self, at: usize, state: u32) {
        let entry = self.entry(at);
        let entry = if state == FLOW_EMPTY { FlowEntry::EMPTY } else { entry.seen(state, entry.epoch()) };
        self.entries[at].store(entry.word(), Ordering::Release);
    }

    /// What a rule's absence does before the packet.
    fn before(&self) {
        if self.mutation == Some(Mutation::ConfirmedTakenOver)
            && self.own().is_none()
            && (0..8).all(|at| self.entry(at).state() != FLOW_EMPTY)
        {
            self.set(self.tag as usize % 8, FLOW_EMPTY);
        }
    }

    /// What a rule's absence does after the packet.
    fn after(&self, followed: &Followed) {
        let Some(own) = self.own() else { return };
        let made = followed.notes & NOTE_INSERTED != 0;
        match (self.mutation, self.kind) {
            (Some(Mutation::OldFlowsUnconfirmed), Kind::Continues) if made => self.set(own, FLOW_UNCONFIRMED),
            (Some(Mutation::NothingConfirms), Kind::Continues) if !made => self.set(own, FLOW_UNCONFIRMED),
            (Some(Mutation::FinForgets), Kind::Closes) | (Some(Mutation::ResetForgets), Kind::Observes) => {
                self.set(own, FLOW_EMPTY);
            }
            _ => {}
        }
    }
}

impl Memory for Bucket<'_> {
    fn load(&self, entry: u32) -> u64 {
        let entry = self.entry(entry as usize);
        let is_stuck = self.mutation == Some(Mutation::UnconfirmedNeverTakenOver)
            && entry.state() == FLOW_UNCONFIRMED
            && entry.tag() != self.tag;
        if is_stuck { entry.seen(FLOW_CONFIRMED, entry.epoch()).word() } else { entry.word() }
    }

    fn compare_exchange(&self, entry: u32, old: u64, new: u64) -> bool {
        let word = &self.entries[entry as usize];
        word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn state(&self, index: u32) -> u32 {
        let state = self.states.get(index as usize).copied().unwrap_or_default();
        let keeps = self.mutation == Some(Mutation::SynKeepsEntry) && matches!(self.kind, Kind::Opens);
        let new = if keeps && state & STATE_EXISTING_FLOWS != 0 { STATE_NEW_FLOWS } else { 0 };
        state | new
    }
}
