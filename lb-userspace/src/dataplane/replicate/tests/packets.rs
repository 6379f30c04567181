//! What packets find and leave behind in a member's tables.

use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::{
    abi::{FLOW_CONFIRMED, FlowEntry, Slot, SlotStamp, SlotStampPair, TRACK_AUTO},
    flow::{self, Kind as Packet, Memory, NOTE_CONFIRMED, NOTE_EXCEPTION, NOTE_REFUSED},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{FLOWS, SHIFT, member::Member};
use crate::dataplane::track;

impl Member {
    /// Where a packet goes.
    pub(super) fn packet(&self, hash: u64, kind: Packet, now: u64) -> Option<u32> {
        let number = (hash >> SHIFT) as u32;
        let slot = Slot::from_word(self.slots[number as usize].load(Ordering::Relaxed));
        if !slot.is_tracked() && self.tracking == TRACK_AUTO {
            return self.backend(slot.current());
        }
        let at = flow::bucket(hash, FLOWS as u32 / 8 - 1) as usize * 8;
        let bucket = Bucket { entries: &self.flows[at..at + 8], states: &self.states };
        let followed = flow::follow(&bucket, slot, flow::tag(hash), kind, now, |_| slot.current());
        if followed.notes & NOTE_CONFIRMED != 0 && slot.is_tracked() {
            let mut news = self.news.borrow_mut();
            if news.len() < self.ring {
                news.push(at as u32 / 8);
            }
        }
        let old = track::stamps(&self.stamps, number);
        let stamp = |note, old| if followed.notes & note != 0 { now as u16 } else { old };
        let new = SlotStamp {
            exception: if self.tracking == TRACK_AUTO {
                stamp(NOTE_EXCEPTION, old.exception)
            } else {
                old.exception
            },
            failed: stamp(NOTE_REFUSED, old.failed),
        };
        let word = &self.stamps[number as usize / 2];
        let mut pair = SlotStampPair::read_from_bytes(word.load(Ordering::Relaxed).as_bytes()).unwrap();
        pair.stamps[number as usize % 2] = new;
        word.store(u64::read_from_bytes(pair.as_bytes()).unwrap(), Ordering::Relaxed);
        self.backend(followed.index)
    }

    /// Makes an entry of a flow that was seen last at a time.
    pub(super) fn enter(&self, hash: u64, index: u32, seen: u64) {
        let at = flow::bucket(hash, FLOWS as u32 / 8 - 1) as usize * 8;
        let entry = FlowEntry::new(flow::tag(hash), FLOW_CONFIRMED, seen as u32, index);
        self.flows[at].store(entry.word(), Ordering::Relaxed);
    }

    /// The backend of a flow's entry.
    pub(super) fn copy(&self, hash: u64) -> Option<u32> {
        let at = flow::bucket(hash, FLOWS as u32 / 8 - 1) as usize * 8;
        let mut entries = self.flows[at..at + 8].iter();
        let entry = entries.find_map(|word| {
            let entry = FlowEntry::from_word(word.load(Ordering::Relaxed));
            (entry != FlowEntry::EMPTY && entry.tag() == flow::tag(hash)).then_some(entry)
        });
        self.backend(entry?.index())
    }
}

struct Bucket<'a> {
    entries: &'a [AtomicU64],
    states: &'a [u32],
}

impl Memory for Bucket<'_> {
    fn load(&self, entry: u32) -> u64 {
        self.entries[entry as usize].load(Ordering::Relaxed)
    }

    fn compare_exchange(&self, entry: u32, old: u64, new: u64) -> bool {
        self.entries[entry as usize].compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn state(&self, index: u32) -> u32 {
        self.states[index as usize]
    }
}
