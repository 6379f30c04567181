//! The controller's scan: flows that are gone leave the flow table, and slots whose change has aged out become steady
//! again (docs/flow-tracking.md).
//!
//! Works on the maps' words and takes the time as a value, so that the simulation in `lb-tests` runs the same code.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use lb_common::abi::{
    FLOW_BUCKET_ENTRIES, FLOW_CLOSING, FLOW_CONFIRMED, FLOW_EMPTY, FLOW_UNCONFIRMED, FlowEntry, Slot,
    SlotStamp, UNCONFIRMED_AGE,
};

use super::{
    nat::NatCensus,
    replicate::{Hold, Holds},
    track,
};

/// What time it is, on the two clocks that matter. Passed in, so that tests decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// `CLOCK_MONOTONIC`: what the data plane's coarse time counts.
    pub monotonic: Duration,
    /// `CLOCK_BOOTTIME`: goes on while the machine is suspended. Deadlines in the maps count by it.
    pub boot: Duration,
}

impl Moment {
    /// Units of coarse time.
    pub const fn coarse(self) -> u64 {
        self.monotonic.as_secs()
    }

    pub const fn boot_seconds(self) -> u64 {
        self.boot.as_secs()
    }
}

/// The maps' memory.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// `LOOKUP`: a slot a word.
    pub slots: &'a [AtomicU64],
    /// `SLOT_STAMPS`: two slots a word.
    pub stamps: &'a [AtomicU64],
    /// `FLOWS`: eight words a bucket.
    pub flows: &'a [AtomicU64],
    /// `FLOW_LOAD`: two words a backend.
    pub loads: &'a [AtomicU64],
}

/// What the scan has to know of services and backends.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub regions: Vec<Region>,
    /// By index.
    pub backends: Vec<Tracked>,
    /// Slots that peers want to stay tracked.
    pub holds: Holds,
}

/// A service's slots.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    pub base: u32,
    pub slots: u32,
    /// Idle timeout of its flows, in units of coarse time.
    pub idle: u32,
    /// Whether all its flows are tracked whatever the slots say.
    pub always: bool,
    /// Whether any slot may be tracked. The scan finds out; publishing sets it.
    pub open: bool,
}

/// What the scan has to know of a backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tracked {
    /// Idle timeout of its flows, in units of coarse time; 0 for an index whose entries are to go at once.
    pub idle: u32,
    /// Whether it takes packets of existing flows.
    pub accepts_existing: bool,
    /// Whether least-connections asks for its load.
    pub weighed: bool,
}

/// What a whole pass counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// When the pass began.
    pub began: Moment,
    /// When the last pass over NAT's flows began to count them.
    pub nat_began: Moment,
    /// Entries of the flow table that are not empty.
    pub entries: u64,
    /// All there are.
    pub capacity: u64,
    /// Slots of all services in which flows are tracked because of a change; services that track always not included.
    pub tracked_slots: u64,
    /// NAT flows, live or not.
    pub nat_entries: u64,
    /// Live flows by backend index: confirmed ones, and those whose first packet was seen a moment ago.
    pub flows: HashMap<u32, u64>,
    /// Indices that a NAT flow names, a flow entry which is not long closing, or a slot as its previous backend.
    pub held: HashSet<u32>,
    /// Indices that any flow entry names, or any slot as its previous backend.
    pub named: HashSet<u32>,
}

impl Census {
    /// Adds what the last pass over NAT's flows has counted. No backend has flows of both kinds, so whoever asks for one of
    /// them waits for one of the passes alone.
    pub(super) fn join(&mut self, nat: &NatCensus) {
        self.nat_began = nat.began;
        self.nat_entries = nat.entries;
        self.flows.extend(&nat.flows);
        self.held.extend(&nat.named);
    }
}

/// Goes over the tables again and again.
#[derive(Debug, Default)]
pub struct Scanner {
    pass: Option<Pass>,
    last_began: Option<Moment>,
    last_step: Option<Moment>,
    restamped: Option<Moment>,
}

#[derive(Debug)]
struct Pass {
    began: Moment,
    /// Next bucket.
    bucket: usize,
    /// By backend index.
    counts: Vec<Count>,
    entries: u64,
    /// Changes of loads when the pass began, by backend index.
    changes: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    live: u32,
    held: bool,
    named: bool,
}

impl Scanner {
    /// Goes on with the pass under way, or begins one if it is time; at most `budget` flow entries a call. Returns what a
    /// pass that ended here counted.
    pub fn step(
        &mut self,
        words: Words<'_>,
        world: &mut World,
        now: Moment,
        budget: usize,
    ) -> Option<Census> {
        // Whatever was not looked after may be of any age, and so may the data plane's clock have been.
        let last = self.last_step.replace(now);
        let looked_after = last.is_some_and(|last| now.boot.saturating_sub(last.boot) <= GAP);
        if !looked_after {
            self.pass = None;
            restamp(words, world, now.coarse(), last.unwrap_or(now).coarse());
            self.restamped = Some(now);
        }
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None => self.begin(words, world, now)?,
        };
        let buckets = words.flows.len() / ENTRIES;
        let end = buckets.min(pass.bucket + budget.div_ceil(ENTRIES).max(1));
        let chunk = words.flows.get(pass.bucket * ENTRIES..end * ENTRIES).unwrap_or_default();
        for bucket in chunk.chunks_exact(ENTRIES) {
            pass.bucket(bucket, world, now.coarse());
        }
        pass.bucket = end;
        if end < buckets {
            self.pass = Some(pass);
            return None;
        }
        self.last_began = Some(pass.began);
        pass.store_loads(words.loads, world);
        let (tracked_slots, previous) = slots(words, world, pass.began.coarse());
        Some(pass.census(words.flows.len() as u64, tracked_slots, previous))
    }

    /// Whether it may have to find out first what times are worth, because nothing was looked at for a while.
    pub fn is_behind(&self, now: Moment) -> bool {
        self.last_step.is_none_or(|last| now.boot.saturating_sub(last.boot) > GAP)
    }

    /// When everything was made as old as then, for the last time.
    pub fn restamped(&self) -> Option<Moment> {
        self.restamped
    }

    fn begin(&self, words: Words<'_>, world: &World, now: Moment) -> Option<Pass> {
        let due = self.last_began.is_none_or(|last| now.monotonic.saturating_sub(last.monotonic) >= PERIOD);
        if !due {
            return None;
        }
        let load =
            |index: usize| words.loads.get(index * 2 + 1).map_or(0, |word| word.load(Ordering::Acquire));
        let changes = world.backends.iter().enumerate();
        Some(Pass {
            began: now,
            bucket: 0,
            counts: vec![Count::default(); world.backends.len()],
            entries: 0,
            changes: changes.map(|(index, backend)| if backend.weighed { load(index) } else { 0 }).collect(),
        })
    }
}

impl Pass {
    fn bucket(&mut self, bucket: &[AtomicU64], world: &World, now: u64) {
        // Of two entries of one flow the lower counts, so the higher one goes first.
        for word in bucket.iter().rev() {
            let entry = FlowEntry::from_word(word.load(Ordering::Acquire));
            if entry.state() == FLOW_EMPTY {
                continue;
            }
            let index = entry.index() as usize;
            let age = entry.age(now);
            let backend = world.backends.get(index).copied().unwrap_or_default();
            // The epoch may be a unit behind, because the data plane's clock may be.
            if backend.idle == 0 || age > backend.idle + 1 {
                // If it fails the flow has just shown that it lives.
                let empty = FlowEntry::EMPTY.word();
                if word.compare_exchange(entry.word(), empty, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    continue;
                }
            }
            self.entries += 1;
            if index >= self.counts.len() {
                self.counts.resize(index + 1, Count::default());
            }
            if let Some(count) = self.counts.get_mut(index) {
                let live = match entry.state() {
                    FLOW_CONFIRMED => true,
                    FLOW_UNCONFIRMED => age <= UNCONFIRMED_AGE,
                    _ => false,
                };
                count.live += u32::from(live);
                count.named = true;
                count.held |= entry.state() != FLOW_CLOSING || age <= CLOSING_AGE;
            }
        }
    }

    fn store_loads(&self, loads: &[AtomicU64], world: &World) {
        for (index, (count, changes)) in self.counts.iter().zip(&self.changes).enumerate() {
            if world.backends.get(index).is_some_and(|backend| backend.weighed)
                && let Some(base) = loads.get(index * 2)
            {
                base.store(u64::from(count.live).wrapping_sub(*changes), Ordering::Release);
            }
        }
    }

    fn census(self, capacity: u64, tracked_slots: u64, previous: HashSet<u32>) -> Census {
        let which = |wanted: fn(&Count) -> bool| {
            let found = (0u32..).zip(&self.counts).filter(|(_, count)| wanted(count)).map(|(index, _)| index);
            found.chain(previous.iter().copied()).collect()
        };
        Census {
            began: self.began,
            entries: self.entries,
            capacity,
            tracked_slots,
            held: which(|count| count.held),
            named: which(|count| count.named),
            flows: (0u32..)
                .zip(&self.counts)
                .filter(|(_, count)| count.live > 0)
                .map(|(index, count)| (index, u64::from(count.live)))
                .collect(),
            ..Census::default()
        }
    }
}

/// Closes what has aged out. Returns how many slots are tracked because of a change, and the backends that slots name as
/// previous. `began` is when the pass over the entries began.
fn slots(words: Words<'_>, world: &mut World, began: u64) -> (u64, HashSet<u32>) {
    let mut tracked = 0;
    let mut named = HashSet::new();
    let World { regions, backends, holds } = world;
    holds.prune(began);
    let accepts = |index: u32| backends.get(index as usize).is_some_and(|backend| backend.accepts_existing);
    for region in regions.iter_mut().filter(|region| region.open) {
        let mut open = false;
        let Some(slots) = words.slots.get(region.base as usize..(region.base + region.slots) as usize) else {
            continue;
        };
        for (number, word) in (region.base..).zip(slots) {
            let old = Slot::from_word(word.load(Ordering::Acquire));
            if !old.is_tracked() {
                continue;
            }
            let new =
                age_out(old, track::stamps(words.stamps, number), region, accepts, (holds.of(number), began));
            if new != old {
                word.store(new.word(), Ordering::Release);
            }
            if new.is_tracked() {
                open = true;
                tracked += u64::from(!region.always);
                if new.previous() != 0 {
                    named.insert(new.previous());
                }
            }
        }
        region.open = open;
    }
    (tracked, named)
}

fn age_out(
    slot: Slot,
    stamp: SlotStamp,
    region: &Region,
    accepts: impl Fn(u32) -> bool,
    (hold, began): (Hold, u64),
) -> Slot {
    let mut previous = slot.previous();
    let is_past = window_is_past(slot, stamp, region, began) && hold.previous < began;
    if previous != 0 && (!accepts(previous) || is_past) {
        previous = 0;
    }
    if previous == 0 && (region.always || exception_is_past(stamp, region, began)) && hold.tracked < began {
        return Slot::steady(slot.current());
    }
    if previous == slot.previous() {
        slot
    } else {
        Slot::tracked_since(slot.opened(), slot.current(), previous)
    }
}

/// Whether a slot is tracked because of what has happened here, and not for a peer's sake alone.
pub(super) fn is_own(slot: Slot, stamp: SlotStamp, region: &Region, now: u64) -> bool {
    let has_window = slot.previous() != 0 && !window_is_past(slot, stamp, region, now);
    let has_exception = !region.always && !exception_is_past(stamp, region, now);
    slot.is_tracked() && (has_window || has_exception)
}

/// A time that says that nothing has happened.
pub(super) fn long_ago(region: &Region, now: u64) -> u64 {
    now.wrapping_sub(u64::from(region.idle + MARGIN + 1))
}

/// Stamps repeat, so those of a slot that is tracked for a peer's sake, for however long, are moved along.
pub(super) fn keep_past(stamps: &[AtomicU64], slot: u32, region: &Region, now: u64) {
    let old = track::stamps(stamps, slot);
    // What has happened since would be lost; it is a matter of hours and of one packet.
    if [old.exception, old.failed].iter().all(|stamp| since(now, *stamp) > u32::from(u16::MAX / 4)) {
        track::stamp(stamps, slot, long_ago(region, now));
    }
}

fn window_is_past(slot: Slot, stamp: SlotStamp, region: &Region, now: u64) -> bool {
    since(now, slot.opened()) > region.idle + MARGIN && since(now, stamp.failed) > region.idle + MARGIN
}

fn exception_is_past(stamp: SlotStamp, region: &Region, now: u64) -> bool {
    since(now, stamp.exception) > region.idle + MARGIN
}

/// Units from a stamp to `now`. Half of the range is the future, which is now: clocks differ by a moment.
fn since(now: u64, stamp: u16) -> u32 {
    let age = (now as u16).wrapping_sub(stamp);
    if age > u16::MAX / 2 { 0 } else { age.into() }
}

/// Makes everything as old as now. What was tracked at the time `before` for peers' sake alone still is.
fn restamp(words: Words<'_>, world: &mut World, now: u64, before: u64) {
    for word in words.flows {
        // Where another writer is quicker the entry has the present time already, or is gone.
        let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let entry = FlowEntry::from_word(word);
            (entry.state() != FLOW_EMPTY).then(|| entry.seen(entry.state(), now as u32).word())
        });
    }
    let World { regions, holds, .. } = world;
    for region in regions.iter().filter(|region| region.open) {
        let Some(slots) = words.slots.get(region.base as usize..(region.base + region.slots) as usize) else {
            continue;
        };
        for (number, word) in (region.base..).zip(slots) {
            let slot = Slot::from_word(word.load(Ordering::Acquire));
            let stamps = track::stamps(words.stamps, number);
            if slot.is_tracked()
                && holds.of(number).tracked >= before
                && !is_own(slot, stamps, region, before)
            {
                track::stamp(words.stamps, number, long_ago(region, now));
                holds.extend(number, Hold::for_entries_of(now, region.idle));
            } else if slot.is_tracked() {
                track::stamp(words.stamps, number, now);
                let slot = Slot::tracked_since(now as u16, slot.current(), slot.previous());
                word.store(slot.word(), Ordering::Release);
            }
        }
    }
}

/// Removes every entry that names one of `indices`.
pub fn purge(flows: &[AtomicU64], indices: &HashSet<u32>) {
    for bucket in flows.chunks_exact(ENTRIES) {
        for word in bucket.iter().rev() {
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                let entry = FlowEntry::from_word(word);
                let is_theirs = entry.state() != FLOW_EMPTY && indices.contains(&entry.index());
                is_theirs.then_some(FlowEntry::EMPTY.word())
            });
        }
    }
}

pub(super) const ENTRIES: usize = FLOW_BUCKET_ENTRIES as usize;

/// Time from the beginning of one pass to that of the next.
pub const PERIOD: Duration = Duration::from_secs(1);

/// After a longer pause between two steps nothing can be said about ages: what the data plane took for the time may have
/// stood still for as long. Shorter ones are what [`MARGIN`] is for.
pub const GAP: Duration = Duration::from_secs(1);

/// Units of coarse time that two readings of it may differ by, one at either end.
pub const MARGIN: u32 = 2;

const _: () = assert!(GAP.as_secs() < MARGIN as u64, "a clock may be behind by more than the margin");

/// A closing flow whose last packet is this many units ago keeps no drain waiting.
const CLOSING_AGE: u32 = 60;

#[cfg(test)]
mod tests;
