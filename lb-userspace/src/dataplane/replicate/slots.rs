//! Slots: what peers are told of them.

use std::{
    collections::{HashMap, HashSet},
    hash::Hasher as _,
    sync::atomic::Ordering,
};

use lb_common::abi::Slot;
use siphasher::sip::SipHasher13;

use super::{
    super::{
        scan::{self, Words, World},
        track,
    },
    map::{FleetMap, FleetService},
};
use crate::peers::wire::{CHUNK, Chunk, ServiceId, Told};

/// What was told last, and what there is to tell.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    /// Hash of what was told of a chunk, by service and the chunk's number; those of which nothing was told are left out.
    told: HashMap<ServiceId, HashMap<u32, u64>>,
    /// Slots whose current backend is another one at a peer.
    pub(super) differing: HashSet<u32>,
    /// Slots of which a peer has said where their flows are: where peers differ, the first counts.
    pub(super) adopted: HashSet<u32>,
}

/// What a peer is told of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// What all are: slots that are tracked because of what happened here, that have a previous backend, or that differ.
    Concerning,
    /// All slots, and which of those are tracked.
    All,
    /// All slots, and which are tracked for whosever sake: who has had them tracked may be gone.
    Newcomer,
}

/// Chunks of a service as a peer is told of them.
pub(super) struct Portion {
    pub(super) chunks: Vec<Chunk>,
    /// The number of the chunk behind them; `None` where that was all.
    pub(super) next: Option<u32>,
    /// Whether they say more than all are told.
    pub(super) is_more: bool,
}

/// What slots are looked at with.
pub(super) struct View<'a> {
    pub(super) words: Words<'a>,
    pub(super) map: &'a FleetMap,
    pub(super) now: u64,
}

impl View<'_> {
    fn slot(&self, number: u32) -> Slot {
        let word = self.words.slots.get(number as usize);
        Slot::from_word(word.map_or(0, |word| word.load(Ordering::Acquire)))
    }

    /// A chunk as a peer is told of it; and whether it says more than all are told.
    fn chunk(
        &self,
        service: &FleetService,
        world: &World,
        number: u32,
        scope: Scope,
        differing: &HashSet<u32>,
    ) -> (Chunk, bool) {
        let (mut slots, mut is_more) = ([None; CHUNK], false);
        let first = service.base + number * CHUNK as u32;
        let Some(region) = world.regions.get(service.region) else { return (Chunk { number, slots }, false) };
        for (at, told) in (first..).zip(&mut slots) {
            let slot = self.slot(at);
            let stamp = || track::stamps(self.words.stamps, at);
            // While flows without an entry go to another backend here than to the current one those that pass elsewhere need entries,
            // for whosever sake it is so.
            let concerns_all = differing.contains(&at)
                || slot.is_tracked()
                    && (slot.previous() != 0 || scan::is_own(slot, stamp(), region, self.now));
            if !sends_nobody(slot) && (scope != Scope::Concerning || concerns_all) {
                let tracked = slot.is_tracked() && (scope == Scope::Newcomer || concerns_all);
                is_more |= tracked && !concerns_all;
                *told = Some(Told {
                    current: self.map.name(slot.current()),
                    previous: self.map.name(slot.previous()),
                    tracked,
                });
            }
        }
        (Chunk { number, slots }, is_more)
    }

    /// Chunks of a service of which there is something to say: at most so many from this number on.
    pub(super) fn chunks(
        &self,
        service: &FleetService,
        world: &World,
        first: u32,
        most: usize,
        scope: Scope,
        announcer: &Announcer,
    ) -> Portion {
        let mut portion = Portion { chunks: Vec::new(), next: None, is_more: false };
        for number in first..service.slots / CHUNK as u32 {
            if portion.chunks.len() == most {
                portion.next = Some(number);
                break;
            }
            let (chunk, is_more) = self.chunk(service, world, number, scope, &announcer.differing);
            portion.is_more |= is_more;
            if chunk.slots.iter().any(Option::is_some) {
                portion.chunks.push(chunk);
            }
        }
        portion
    }
}

impl Announcer {
    /// Before peers' slots are looked at anew.
    pub(super) fn begin(&mut self) {
        self.differing.clear();
        self.adopted.clear();
    }

    /// What has changed of a service since it was told; at most `most` chunks.
    pub(super) fn changes(
        &mut self,
        view: &View<'_>,
        service: &FleetService,
        world: &World,
        most: usize,
    ) -> Vec<Chunk> {
        let is_open = service.is_open(world);
        let mut changed = Vec::new();
        if !is_open && !self.told.contains_key(&service.id) {
            return changed;
        }
        let told = self.told.entry(service.id).or_default();
        for number in 0..service.slots / CHUNK as u32 {
            let before = told.get(&number).copied();
            if !is_open && before.is_none() {
                continue;
            }
            if changed.len() >= most {
                break;
            }
            let (chunk, _) = view.chunk(service, world, number, Scope::Concerning, &self.differing);
            let is_empty = chunk.slots.iter().all(Option::is_none);
            let content = (!is_empty).then(|| hash(&chunk));
            if content != before {
                match content {
                    Some(content) => told.insert(number, content),
                    None => told.remove(&number),
                };
                changed.push(chunk);
            }
        }
        if told.is_empty() {
            self.told.remove(&service.id);
        }
        changed
    }

    /// Of services that are no more, or have become others: that there is nothing to say of them.
    pub(super) fn retractions(&mut self, map: &FleetMap) -> Vec<(ServiceId, Vec<Chunk>)> {
        let gone: Vec<_> = self.told.keys().filter(|id| map.find(id).is_err()).copied().collect();
        let empty = |number| Chunk { number, slots: [None; CHUNK] };
        let retracted = gone.into_iter().filter_map(|id| {
            let told = self.told.remove(&id)?;
            Some((id, told.into_keys().map(empty).collect()))
        });
        retracted.collect()
    }
}

/// Such a slot differs from none.
pub(super) fn sends_nobody(slot: Slot) -> bool {
    slot.current() == 0 && !slot.is_tracked()
}

fn hash(chunk: &Chunk) -> u64 {
    let mut hasher = SipHasher13::new();
    for (bit, told) in (0u8..).zip(&chunk.slots) {
        if let Some(told) = told {
            hasher.write(&[bit, u8::from(told.tracked)]);
            hasher.write(&told.current.to_le_bytes());
            hasher.write(&told.previous.to_le_bytes());
        }
    }
    hasher.finish()
}
