//! What peers say of their slots.

use std::collections::HashMap;

use crate::peers::wire::{CHUNK, Chunk, ServiceId, Slots, Told};

/// Of one peer.
#[derive(Debug, Default)]
pub(super) struct PeerSlots {
    services: HashMap<ServiceId, ServiceSlots>,
    /// Since when it is not heard.
    silent_since: Option<u64>,
    /// For how many seconds it has had its maps, as it said when this was.
    age: u8,
}

/// Of one service: backends' names once, and their places in each slot.
#[derive(Debug, Default)]
struct ServiceSlots {
    names: Vec<u64>,
    places: HashMap<u64, u16>,
    /// How many names there may be until it is looked which are in use.
    most_names: usize,
    chunks: HashMap<u32, ChunkSlots>,
}

#[derive(Debug)]
struct ChunkSlots {
    version: u64,
    /// Bits of slots that something is said of; that are tracked; that were said to be since the last look at them.
    said: u32,
    tracked: u32,
    fresh: u32,
    /// Current and previous, as places among the names.
    backends: [(u16, u16); CHUNK],
}

/// A slot that a peer says something of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Within the service.
    pub(super) slot: u32,
    pub(super) told: Told,
    /// It is the first look at it.
    pub(super) fresh: bool,
}

impl PeerSlots {
    /// Takes in a message. An older state than the one that is known is left out.
    pub(super) fn take(&mut self, message: &Slots) {
        let service = self.services.entry(message.service).or_default();
        for chunk in &message.chunks {
            service.take(chunk, message.version);
        }
    }

    /// The peer is not heard from now on: nothing of that is so any more.
    pub(super) fn lapse(&mut self, now: u64) {
        self.begin_anew();
        self.silent_since = Some(now);
    }

    /// For how long it has not been heard.
    pub(super) fn silence(&self, now: u64) -> u64 {
        self.silent_since.map_or(0, |since| now.saturating_sub(since))
    }

    /// For how many seconds it says that it has had its maps.
    pub(super) const fn note_age(&mut self, age: u8) {
        self.age = age;
    }

    /// Whether it is of the maps that a peer has which is heard now, and has them for so many seconds. They never get younger; and
    /// whoever made them while the peer was not heard has them for no longer than that.
    pub(super) fn is_of_maps(&self, age: u8, now: u64) -> bool {
        age >= self.age && u64::from(age) > self.silence(now) + DEATH_SECONDS
    }

    /// The peer is heard, and says all anew: what it has said before is nothing new then.
    pub(super) fn begin_anew(&mut self) {
        self.silent_since = None;
        for chunk in self.services.values_mut().flat_map(|service| service.chunks.values_mut()) {
            // What nobody has looked at yet is new still when it is said again.
            chunk.tracked &= !chunk.fresh;
            (chunk.version, chunk.said, chunk.fresh) = (0, 0, 0);
        }
    }

    /// It has said all: what it has not said again is no more.
    pub(super) fn forget_lapsed(&mut self) {
        self.services.values_mut().for_each(|service| service.chunks.retain(|_, chunk| chunk.version != 0));
        self.services.retain(|_, service| !service.chunks.is_empty());
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceId> {
        self.services.keys()
    }

    /// Tells of every slot of a service that something is said of, or only of those whose first look it is. Where `each` says no,
    /// that is not looked at again.
    pub(super) fn look(&mut self, service: &ServiceId, only_fresh: bool, mut each: impl FnMut(Said) -> bool) {
        let Some(ServiceSlots { names, chunks, .. }) = self.services.get_mut(service) else { return };
        let name = |place: u16| names.get(usize::from(place)).copied().unwrap_or_default();
        for (number, chunk) in chunks.iter_mut().filter(|(_, chunk)| chunk.said != 0) {
            let fresh = std::mem::take(&mut chunk.fresh);
            let looked_at = if only_fresh { fresh } else { chunk.said };
            if looked_at == 0 {
                continue;
            }
            for (bit, (current, previous)) in chunk.backends.iter().enumerate() {
                if looked_at & 1 << bit == 0 {
                    continue;
                }
                let (current, previous) = (name(*current), name(*previous));
                let stays = each(Said {
                    slot: number * CHUNK as u32 + bit as u32,
                    told: Told { current, previous, tracked: chunk.tracked & 1 << bit != 0 },
                    fresh: fresh & 1 << bit != 0,
                });
                chunk.said &= !(u32::from(!stays) << bit);
            }
        }
    }
}

impl ServiceSlots {
    fn take(&mut self, chunk: &Chunk, version: u64) {
        if self.names.len() > self.most_names.max(LEAST_NAMES) {
            self.forget_names();
            self.most_names = 2 * self.names.len();
        }
        let known = self.chunks.get(&chunk.number);
        if known.is_some_and(|known| known.version > version) {
            return;
        }
        let before =
            known.map_or((0, [(0, 0); CHUNK]), |known| (known.tracked & !known.fresh, known.backends));
        let mut new = ChunkSlots { version, said: 0, tracked: 0, fresh: 0, backends: [(0, 0); CHUNK] };
        for (bit, (told, pair)) in chunk.slots.iter().zip(&mut new.backends).enumerate() {
            let Some(told) = told else { continue };
            *pair = (self.place(told.current), self.place(told.previous));
            new.said |= 1 << bit;
            new.tracked |= u32::from(told.tracked) << bit;
            let is_other = before.0 & 1 << bit == 0 || before.1[bit] != *pair;
            new.fresh |= u32::from(told.tracked && is_other) << bit;
        }
        // Also where nothing is said: an older message that comes late would say it again.
        self.chunks.insert(chunk.number, new);
    }

    /// Backends come and go; those that no slot names any more are left out.
    fn forget_names(&mut self) {
        let old = std::mem::take(&mut self.names);
        self.places.clear();
        let mut chunks = std::mem::take(&mut self.chunks);
        for chunk in chunks.values_mut() {
            for (current, previous) in &mut chunk.backends {
                for place in [current, previous] {
                    *place = self.place(old.get(usize::from(*place)).copied().unwrap_or_default());
                }
            }
        }
        self.chunks = chunks;
    }

    fn place(&mut self, name: u64) -> u16 {
        if let Some(known) = self.places.get(&name) {
            return *known;
        }
        // More backends than that no service has; what is beyond is taken for none.
        let Some(place) = u16::try_from(self.names.len()).ok().filter(|place| *place < u16::MAX) else {
            return u16::MAX;
        };
        self.names.push(name);
        self.places.insert(name, place);
        place
    }
}

/// Of fewer names none is forgotten.
const LEAST_NAMES: usize = 4096;
/// A peer was heard last no longer than this before it is given up.
const DEATH_SECONDS: u64 = 8;

#[cfg(test)]
mod tests;
