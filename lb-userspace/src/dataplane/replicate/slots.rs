//! Slots: what peers are told of them, and what is done about what they tell.

use std::{
    collections::{HashMap, HashSet},
    hash::Hasher as _,
    sync::atomic::Ordering,
};

use lb_common::abi::{STATE_EXISTING_FLOWS, Slot};
use siphasher::sip::SipHasher13;

use super::{
    super::{
        scan::{self, Words, World},
        track,
    },
    holds::Hold,
    map::{FleetMap, FleetService},
    told::{PeerSlots, Said},
};
use crate::peers::wire::{CHUNK, Chunk, ServiceId, Told};

/// What was told last, and what there is to tell.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    /// Hash of what was told of a chunk, by service and the chunk's number; those of which nothing was told are left out.
    told: HashMap<ServiceId, HashMap<u32, u64>>,
    /// Slots whose current backend is another one at a peer.
    differing: HashSet<u32>,
    /// Slots of which a peer has said where their flows are: where peers differ, the first counts.
    adopted: HashSet<u32>,
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

/// How what peers say is followed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    /// This load balancer is new, and flows are where the peer sends them.
    pub(super) adopts: bool,
    /// Only slots that have been said to be tracked since the last look at them.
    pub(super) only_fresh: bool,
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

    /// Keeps tracked here what is tracked there, and whatever differs.
    pub(super) fn follow(
        &self,
        peer: &mut PeerSlots,
        world: &mut World,
        states: &impl Fn(u32) -> u32,
        how: How,
        announcer: &mut Announcer,
    ) {
        let services: Vec<_> = peer.services().copied().collect();
        for service in services.iter().filter_map(|id| self.map.find(id).ok()) {
            peer.look(&service.id, how.only_fresh, |said| {
                let keeps = self.follow_slot(service, said, world, states, how.adopts, announcer);
                keeps.unwrap_or_default()
            });
        }
    }

    /// Says whether the slot has to be looked at again.
    fn follow_slot(
        &self,
        service: &FleetService,
        Said { slot, told, fresh }: Said,
        world: &mut World,
        states: &impl Fn(u32) -> u32,
        adopts: bool,
        announcer: &mut Announcer,
    ) -> Option<bool> {
        let number = service.base + slot;
        let word = self.words.slots.get(number as usize).filter(|_| slot < service.slots)?;
        let here = Slot::from_word(word.load(Ordering::Acquire));
        if !told.tracked && sends_nobody(here) {
            return Some(true);
        }
        let differs = told.current != self.map.name(here.current());
        if differs {
            announcer.differing.insert(number);
        }
        let adopted = match adopts && announcer.adopted.insert(number) {
            true => self.adopted(service, here, told, states),
            false => None,
        };
        if !told.tracked && !differs && adopted.is_none() {
            return Some(false);
        }
        let region = world.regions.get_mut(service.region)?;
        let until = Hold::for_entries_of(self.now, region.idle).tracked;
        let mut new = here;
        if !here.is_tracked() {
            new = Slot::tracked_since(self.now as u16, here.current(), 0);
        }
        if let Some(previous) = adopted {
            new = Slot::tracked_since(self.now as u16, here.current(), previous);
        }
        if new != here {
            region.open = true;
            if !here.is_tracked() {
                // What the stamps hold is of another time; and nothing has happened here.
                track::stamp(self.words.stamps, number, scan::long_ago(region, self.now));
            }
            word.store(new.word(), Ordering::Release);
        }
        if here.is_tracked() {
            scan::keep_past(self.words.stamps, number, region, self.now);
        }
        // A window that ends there, while the slot stays tracked for its exceptions, is no reason to keep ours open.
        let has_window = told.previous != 0 || differs;
        let is_new = has_window && (fresh || !here.is_tracked());
        world.holds.extend(number, Hold { tracked: until, previous: if is_new { until } else { 0 } });
        Some(true)
    }

    /// What a slot's previous backend has to become for flows without an entry to go where a peer sends them; `None` if they do,
    /// or can't. What a new load balancer has itself is of no account: its backends have passed their first checks one after the
    /// other, and no flow has seen that.
    fn adopted(
        &self,
        service: &FleetService,
        here: Slot,
        told: Told,
        states: &impl Fn(u32) -> u32,
    ) -> Option<u32> {
        let there = if told.previous == 0 { told.current } else { told.previous };
        let index = service.backends.get(&there).copied().filter(|index| *index != 0)?;
        let previous = match index == here.current() {
            true => 0,
            false => Some(index).filter(|index| states(*index) & STATE_EXISTING_FLOWS != 0)?,
        };
        (previous != here.previous()).then_some(previous)
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
fn sends_nobody(slot: Slot) -> bool {
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
