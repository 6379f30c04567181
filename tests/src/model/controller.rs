//! What the controller does to slots and flows: docs/flow-tracking.md, "What the controller does".

use std::collections::BTreeSet;

use super::flow::{Bucket, EPOCHS, Flow, FlowState};
use super::service::{Load, Slot, Stamps};

/// A slot that is to send new flows to `current`, and whether both of its stamps become now first.
///
/// `tracks` is false where `tracking = "never"`.
#[must_use]
pub fn publish(
    slot: Slot,
    current: u32,
    tracks: bool,
    accepts_existing: impl Fn(u32) -> bool,
    now: u64,
) -> (Slot, bool) {
    if !tracks {
        return (Slot::steady(current), false);
    }
    if slot.current == current {
        return (slot, false);
    }
    if !slot.tracked && slot.current == 0 {
        return (Slot::steady(current), false);
    }
    let has_previous = slot.previous != 0 && accepts_existing(slot.previous);
    let (previous, opened) =
        if slot.tracked && has_previous { (slot.previous, slot.opened) } else { (slot.current, now as u16) };
    (Slot { current, previous, opened, tracked: true }, true)
}

/// A slot before backends take existing flows again: none that took nothing may be its previous one.
#[must_use]
pub fn forget(slot: Slot, accepts_existing: impl Fn(u32) -> bool) -> Slot {
    let stays = slot.previous == 0 || accepts_existing(slot.previous);
    Slot { previous: if stays { slot.previous } else { 0 }, ..slot }
}

/// What the scan goes over.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    pub slots: Vec<Slot>,
    pub stamps: Vec<Stamps>,
    pub flows: Vec<Bucket>,
    pub loads: Vec<Load>,
}

/// A run of slots of one service.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    pub first: usize,
    pub count: usize,
    pub idle: u64,
    pub always: bool,
}

/// A backend that is in use. The others accept nothing and keep no entry.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub idle: u64,
    pub accepts_existing: bool,
    /// Whether its service chooses by least connections.
    pub weighed: bool,
}

/// A pass of the scan, from its beginning on.
#[derive(Clone, Debug)]
pub struct Pass {
    began: u64,
    /// By index: how loads stood when it began.
    changes: Vec<u64>,
    /// By index.
    pub live: Vec<u64>,
    pub entries: u64,
    /// Indices that an entry names.
    pub named: BTreeSet<u32>,
    /// Slots that are still tracked, those of services that always track not counted.
    pub tracked: u64,
}

impl Pass {
    /// Begins; after a start or a gap everything is as old as now.
    #[must_use]
    pub fn begin(tables: &mut Tables, regions: &[Region], members: usize, after_gap: bool, now: u64) -> Self {
        if after_gap {
            for word in tables.flows.iter_mut().flatten() {
                if let Some(flow) = Flow::from_word(*word) {
                    *word = Flow { epoch: now % EPOCHS, ..flow }.word();
                }
            }
            for number in regions.iter().flat_map(|region| region.first..region.first + region.count) {
                let slot = &mut tables.slots[number];
                if slot.tracked {
                    slot.opened = now as u16;
                    tables.stamps[number] = Stamps { exception: now as u16, failed: now as u16 };
                }
            }
        }
        Self {
            began: now,
            changes: tables.loads.iter().map(|load| load.changes).collect(),
            live: vec![0; members],
            entries: 0,
            named: BTreeSet::new(),
            tracked: 0,
        }
    }

    /// Goes over one bucket.
    pub fn look(&mut self, bucket: &mut Bucket, members: &[Option<Member>], now: u64) {
        for word in bucket {
            let Some(flow) = Flow::from_word(*word) else { continue };
            let index = flow.index as usize;
            let member = members.get(index).copied().flatten();
            // Nobody's at once; others when they are surely idle: the clock that stamped them may have been a unit behind.
            let idle = member.map_or(0, |member| member.idle);
            if idle == 0 || flow.age(now) > idle + 1 {
                *word = 0;
                continue;
            }
            self.entries += 1;
            self.named.insert(flow.index);
            let is_live = match flow.state {
                FlowState::Confirmed => true,
                FlowState::Unconfirmed => flow.age(now) <= 3,
                FlowState::Closing => false,
            };
            if is_live && index < self.live.len() {
                self.live[index] += 1;
            }
        }
    }

    /// Goes over the slots, once all buckets have been.
    pub fn end(&mut self, tables: &mut Tables, regions: &[Region], members: &[Option<Member>]) {
        for (index, member) in members.iter().enumerate() {
            if member.is_some_and(|member| member.weighed) {
                tables.loads[index].base = self.live[index].wrapping_sub(self.changes[index]);
            }
        }
        let accepts = |index: u32| {
            members.get(index as usize).copied().flatten().is_some_and(|member| member.accepts_existing)
        };
        for region in regions {
            for number in region.first..region.first + region.count {
                let slot = &mut tables.slots[number];
                if !slot.tracked {
                    continue;
                }
                let stamps = tables.stamps[number];
                let is_over = |time: u16| self.age(time) > region.idle + 2;
                if !accepts(slot.previous) || is_over(slot.opened) && is_over(stamps.failed) {
                    slot.previous = 0;
                }
                if slot.previous == 0 && (region.always || is_over(stamps.exception)) {
                    *slot = Slot::steady(slot.current);
                } else if !region.always {
                    self.tracked += 1;
                }
            }
        }
    }

    /// Of a time of which 16 bits are known, when the pass began. One that seems to come from the future came now.
    fn age(&self, time: u16) -> u64 {
        let age = (self.began % 65_536 + 65_536 - u64::from(time)) % 65_536;
        if age < 32_768 { age } else { 0 }
    }
}
