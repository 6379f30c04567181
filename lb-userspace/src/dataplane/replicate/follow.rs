//! Slots that peers tell of: what is done about them here.

use std::sync::atomic::Ordering;

use lb_common::abi::{STATE_EXISTING_FLOWS, Slot};

use super::{
    super::{
        scan::{self, World},
        track,
    },
    holds::Hold,
    map::FleetService,
    slots::{Announcer, View, sends_nobody},
    told::{PeerSlots, Said},
};
use crate::peers::wire::Told;

/// How what peers say is followed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    /// This load balancer is new, and flows are where the peer sends them.
    pub(super) adopts: bool,
    /// Only slots that have been said to be tracked since the last look at them.
    pub(super) only_fresh: bool,
}

impl View<'_> {
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
