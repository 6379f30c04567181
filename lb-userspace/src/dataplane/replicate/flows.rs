//! Flows out of the table, and into it.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use lb_common::{
    abi::{FLOW_CLOSING, FLOW_CONFIRMED, FLOW_EMPTY, FlowEntry, MAX_FLOW_AGE},
    flow::{self, Admitted, Doubt, Memory},
};

use super::{
    super::scan::{ENTRIES, MARGIN, World},
    Replicator,
    ledger::Ledger,
    map::{Extent, FleetMap, FleetService, Unknown},
};
use crate::peers::{
    FlowFate,
    wire::{FlowBodies, Flows, Record},
};

/// Bodies of one service each, of no more than so many bodies.
#[derive(Debug)]
pub(super) struct Batches {
    /// By the service's place.
    bodies: HashMap<usize, FlowBodies>,
    bucket_bits: u8,
    room: usize,
}

impl Batches {
    pub(super) fn new(room: usize, buckets: usize) -> Self {
        Self { bodies: HashMap::new(), bucket_bits: bucket_bits(buckets), room }
    }

    /// Says whether there was room for it.
    pub(super) fn push(&mut self, place: usize, service: &FleetService, record: &Record) -> bool {
        let new = || FlowBodies::new(service.id, self.bucket_bits);
        let bodies = self.bodies.entry(place).or_insert_with(new);
        if bodies.needs_another(record) {
            let Some(left) = self.room.checked_sub(1) else { return false };
            self.room = left;
        }
        bodies.push(record);
        true
    }

    /// How many flows are in each.
    pub(super) fn finish(self) -> Vec<(Vec<u8>, usize)> {
        self.bodies.into_values().flat_map(FlowBodies::finish).collect()
    }
}

/// What decides whether an entry is told.
pub(super) struct Teller<'a> {
    pub(super) map: &'a FleetMap,
    pub(super) world: &'a World,
    pub(super) now: u64,
    /// When ages of entries began to count anew, if that is no longer ago than an entry may be old.
    pub(super) restamped: Option<u64>,
    /// Nothing was noted before: any flow may have begun while a slot was tracked.
    pub(super) is_first: bool,
}

impl Teller<'_> {
    /// What peers are to hear of an entry, if anything; with `always`, even what the ledger says they know.
    pub(super) fn record(
        &self,
        place: usize,
        word: u64,
        ledger: &Ledger,
        always: bool,
    ) -> Option<(usize, Record)> {
        let entry = FlowEntry::from_word(word);
        // One packet is no flow yet, and anybody can send one.
        if !matches!(entry.state(), FLOW_CONFIRMED | FLOW_CLOSING) {
            return None;
        }
        let (service, number, backend) = self.map.backend(entry.index())?;
        let told = ledger.told(place);
        let is_known = told.state() != FLOW_EMPTY && told.tag() == entry.tag();
        let is_open = service.is_open(self.world);
        let concerns = match service.extent {
            Extent::All => true,
            Extent::Tracked => is_open,
            Extent::Begun => is_open || is_known || self.is_first,
        };
        let age = entry.age(self.now);
        if !concerns || age > service.idle {
            return None;
        }
        let changed = is_known && told.index() != entry.index();
        // Before the copies that peers have go, if it was seen since.
        let is_due = !is_known || changed || (told.age(self.now) > service.idle && age < told.age(self.now));
        if !is_due && !always {
            return None;
        }
        let bucket = (place / ENTRIES) as u64;
        let record = Record {
            hash: u64::from(entry.tag()) << flow::TAG_SHIFT | bucket,
            backend,
            age: u16::try_from(age).unwrap_or(u16::MAX),
            closing: entry.state() == FLOW_CLOSING,
            changed,
            // What is older than that has come from a peer since then, with its true age.
            doubtful: self.restamped.is_some_and(|since| u64::from(age) == self.now.saturating_sub(since))
                || ledger.doubts(place, entry),
        };
        Some((number, record))
    }
}

/// Takes in what peers say of flows.
pub(super) struct Admission<'a, S> {
    pub(super) map: &'a FleetMap,
    pub(super) words: &'a [AtomicU64],
    /// `STATE_*` bits of a backend, by index.
    pub(super) states: S,
    pub(super) now: u64,
    /// See [`Teller::restamped`].
    pub(super) restamped: Option<u64>,
}

impl<S: Fn(u32) -> u32> Admission<'_, S> {
    /// `late`: for how many seconds it has been on its way. `count` is told what became of each. What is left in `flows` is about
    /// what is not here, and may be one day.
    pub(super) fn admit(
        &self,
        flows: &mut Flows,
        late: u32,
        ledger: &mut Ledger,
        mut count: impl FnMut(FlowFate),
    ) {
        let is_too_small = flows.bucket_bits < bucket_bits(self.words.len() / ENTRIES);
        let service = self.map.find_of_flows(&flows.service);
        flows.records.retain(|record| {
            let fate = match service {
                Ok(_) if is_too_small => FlowFate::OtherTable,
                Ok(service) => self.admit_one(service, record, late, ledger),
                Err(Unknown::Service) => FlowFate::UnknownService,
                Err(Unknown::Shape) => FlowFate::OtherService,
            };
            count(fate);
            matches!(fate, FlowFate::UnknownService | FlowFate::UnknownBackend)
        });
    }

    fn admit_one(&self, service: &FleetService, record: &Record, late: u32, ledger: &mut Ledger) -> FlowFate {
        let Some(&index) = service.backends.get(&record.backend) else { return FlowFate::UnknownBackend };
        // Of a doubtful one it is the least that it can be, from which the sender's entry ages, too; and not now, so that a packet
        // that is seen here makes a difference.
        let age = u32::from(record.age).saturating_add(late).max(record.doubtful.into());
        if age > Replicator::kept(service.idle).min(MAX_FLOW_AGE) {
            return FlowFate::Outdated;
        }
        let bucket = flow::bucket(record.hash, (self.words.len() / ENTRIES) as u32 - 1) as usize * ENTRIES;
        let Some(words) = self.words.get(bucket..bucket + ENTRIES) else { return FlowFate::OtherTable };
        let memory = Bucket { words, states: &self.states };
        let state = if record.closing { FLOW_CLOSING } else { FLOW_CONFIRMED };
        let epoch = (self.now as u32).wrapping_sub(age);
        let entry = FlowEntry::new(flow::tag(record.hash), state, epoch, index);
        let doubted = memory.find(entry.tag()).filter(|(place, found)| ledger.doubts(bucket + place, *found));
        // Where nothing else speaks for what is here, it yields to whatever does.
        if let Some((place, found)) = doubted
            && !record.doubtful
            && memory.compare_exchange(place as u32, found.word(), entry.word())
        {
            ledger.note(bucket + place, entry);
            return FlowFate::Taken;
        }
        let since = self
            .restamped
            .map_or(u32::MAX, |since| u32::try_from(self.now.saturating_sub(since)).unwrap_or(u32::MAX));
        let doubt = match record {
            Record { doubtful: true, .. } => Doubt { margin: u32::MAX, unknown_from: u32::MAX },
            Record { changed: true, .. } => Doubt { margin: 0, unknown_from: since },
            _ => Doubt { margin: MARGIN, unknown_from: since },
        };
        let admitted = flow::admit(&memory, entry, self.now, doubt);
        match admitted {
            Admitted::Inserted | Admitted::Refreshed | Admitted::Known | Admitted::Replaced => {
                let was_here = matches!(admitted, Admitted::Refreshed | Admitted::Known);
                let is_doubtful = |found: FlowEntry| {
                    let is_of_words = doubted.is_some() || !was_here;
                    let is_as_before = doubted.is_some_and(|(_, before)| before == found);
                    record.doubtful && is_of_words && (is_as_before || found.epoch() == entry.epoch())
                };
                // Peers know: whoever told us tells the others.
                match memory.find(entry.tag()) {
                    Some((place, found)) if is_doubtful(found) => ledger.doubt(bucket + place, found),
                    Some((place, _)) => ledger.note(bucket + place, entry),
                    None => {}
                }
                FlowFate::Taken
            }
            Admitted::Outdated => FlowFate::Outdated,
            Admitted::Refused => FlowFate::NoRoom,
        }
    }
}

struct Bucket<'a, S> {
    words: &'a [AtomicU64],
    states: &'a S,
}

impl<S: Fn(u32) -> u32> Bucket<'_, S> {
    /// The flow's place and entry, if it is here.
    fn find(&self, tag: u32) -> Option<(usize, FlowEntry)> {
        let entries = self.words.iter().map(|word| FlowEntry::from_word(word.load(Ordering::Acquire)));
        entries.enumerate().find(|(_, entry)| entry.state() != FLOW_EMPTY && entry.tag() == tag)
    }
}

impl<S: Fn(u32) -> u32> Memory for Bucket<'_, S> {
    fn load(&self, entry: u32) -> u64 {
        self.words.get(entry as usize).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn compare_exchange(&self, entry: u32, old: u64, new: u64) -> bool {
        self.words
            .get(entry as usize)
            .is_some_and(|word| word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok())
    }

    fn state(&self, index: u32) -> u32 {
        (self.states)(index)
    }
}

fn bucket_bits(buckets: usize) -> u8 {
    buckets.max(1).ilog2() as u8
}
