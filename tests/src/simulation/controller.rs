//! The controller: backends come, drain, go and are replaced; slots follow; a scan clears away.

use std::time::Duration;

use ballast::dataplane::scan::{Census, Moment, Region, Scanner, Tracked, World};
use ballast::dataplane::track;
use lb_common::abi::{STATE_EXISTING_FLOWS, STATE_IN_USE, STATE_NEW_FLOWS, Slot, TRACK_AUTO};

use super::mutation::Mutation;
use super::scenario::Scenario;
use super::tables::{INDICES, SLOTS, Tables};
use super::{Event, START, Simulation};

pub(super) struct Controller {
    /// By index; 0 is none.
    pub(super) backends: Vec<Backend>,
    scanner: Scanner,
    world: World,
    has_restarted: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backend {
    /// Goes up with each loss of all its connections.
    pub(super) life: u32,
    role: Role,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Role {
    #[default]
    Unused,
    Active,
    Draining,
    /// Cut off for a moment.
    Away,
    /// Waits to be another backend's index.
    Quarantined {
        since: u64,
        clean: u32,
    },
}

const ALL: u32 = STATE_IN_USE | STATE_NEW_FLOWS | STATE_EXISTING_FLOWS;
const DRAINING: u32 = STATE_IN_USE | STATE_EXISTING_FLOWS;

/// Backends at the beginning.
const BACKENDS: usize = 8;
/// Fewer don't stay.
const LEAST: usize = 4;

impl Controller {
    pub(super) fn new(scenario: &Scenario, tables: &mut Tables) -> Self {
        let region = Region { base: 0, slots: SLOTS as u32, idle: scenario.idle, always: false, open: true };
        let mut backends = vec![Backend::default(); INDICES];
        let states = tables.states.iter_mut();
        for (backend, state) in backends.iter_mut().zip(states).skip(1).take(BACKENDS) {
            backend.role = Role::Active;
            *state = ALL;
        }
        let controller = Self {
            backends,
            scanner: Scanner::default(),
            world: World { regions: vec![region], ..World::default() },
            has_restarted: false,
        };
        for slot in 0..SLOTS {
            tables.store_slot(slot, Slot::steady(controller.wanted(slot)));
        }
        controller
    }

    /// The backend that a slot's new flows are to go to, by rendezvous.
    fn wanted(&self, slot: usize) -> u32 {
        let score = |index: usize| {
            let life = u64::from(self.backends[index].life);
            let seed = ((slot as u64) << 40) ^ ((index as u64) << 20) ^ life;
            fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..)
        };
        self.with(Role::Active).max_by_key(|&index| score(index)).unwrap_or_default() as u32
    }

    fn with(&self, role: Role) -> impl Iterator<Item = usize> {
        let backends = self.backends.iter().enumerate();
        backends.filter(move |(index, backend)| *index > 0 && backend.role == role).map(|(index, _)| index)
    }
}

impl Simulation<'_> {
    /// One change, and the next in a while.
    pub(super) fn change(&mut self) {
        if !self.is_busy() {
            return;
        }
        self.after(self.scenario.change_every * 1000, Event::Change);
        if self.is_stopped() {
            return;
        }
        self.outcome.changes += 1;
        let active: Vec<_> = self.controller.with(Role::Active).collect();
        let any = active[self.rng.usize(..active.len())];
        match self.rng.u8(..8) {
            0..=3 if active.len() > LEAST => {
                self.controller.backends[any].role = Role::Draining;
                self.publish();
                self.tables.states[any] = DRAINING;
                self.after(self.scenario.drain * 1000, Event::Deadline(any as u32));
            }
            4 if active.len() > LEAST => {
                self.controller.backends[any].role = Role::Away;
                self.publish();
                self.cut_off(any);
                self.after(3000, Event::Back(any as u32));
            }
            5 => {
                // Changed its mind; its deadline will find it active.
                let draining = self.controller.with(Role::Draining).next();
                if let Some(index) = draining {
                    self.join(index);
                }
            }
            _ => {
                // Rather an index that was somebody else's than a fresh one.
                let free = self
                    .controller
                    .with(Role::Unused)
                    .max_by_key(|&index| (self.controller.backends[index].life, std::cmp::Reverse(index)));
                if let Some(index) = free {
                    self.outcome.reused_indices += u64::from(self.controller.backends[index].life > 0);
                    self.join(index);
                }
            }
        }
    }

    /// A drain is over: whoever is still connected is cut off, and the index waits.
    pub(super) fn drained(&mut self, index: u32) {
        let at = index as usize;
        if self.controller.backends[at].role != Role::Draining {
            return;
        }
        if self.is_stopped() {
            return self.after(1000, Event::Deadline(index));
        }
        if self.is(Mutation::IndexReusedAtOnce) {
            self.cut_off(at);
            self.controller.backends[at].role = Role::Away;
            return self.after(500, Event::Back(index));
        }
        self.cut_off(at);
        self.controller.backends[at].role = Role::Quarantined { since: self.now, clean: 0 };
    }

    /// A backend that was away takes flows again.
    pub(super) fn back(&mut self, index: u32) {
        if self.is_stopped() {
            return self.after(1000, Event::Back(index));
        }
        self.join(index as usize);
    }

    fn join(&mut self, index: usize) {
        // First slots forget it that had it as previous while it took nothing.
        if !self.is(Mutation::IndexReusedAtOnce) && !self.is(Mutation::PreviousStaysThatTakesNothing) {
            let states = self.tables.states;
            let accepts = |index: u32| states[index as usize] & STATE_EXISTING_FLOWS != 0;
            for number in 0..SLOTS {
                let slot = track::forget(self.tables.slot(number), accepts);
                self.tables.store_slot(number, slot);
            }
        }
        self.tables.states[index] = ALL;
        self.controller.backends[index].role = Role::Active;
        self.publish();
    }

    fn cut_off(&mut self, index: usize) {
        self.tables.states[index] = STATE_IN_USE;
        self.controller.backends[index].life += 1;
    }

    /// Makes every slot what it is to be.
    fn publish(&mut self) {
        let now = START + self.now / 1000;
        let states = self.tables.states;
        let stays = self.is(Mutation::PreviousStaysThatTakesNothing);
        let accepts = |index: u32| states[index as usize] & STATE_EXISTING_FLOWS != 0 || stays;
        for number in 0..SLOTS {
            let (old, wanted) = (self.tables.slot(number), self.controller.wanted(number));
            let mut new = track::publish(old, wanted, TRACK_AUTO, accepts, now);
            if new == old {
                continue;
            }
            if self.is(Mutation::PreviousForgottenAtOnce) {
                new = Slot::tracked_since(new.opened(), new.current(), 0);
            }
            if self.is(Mutation::PreviousIsTheNewest) && old.current() != wanted {
                new = Slot::tracked_since(now as u16, wanted, old.current());
            }
            if new.is_tracked() && old.current() != wanted && !self.is(Mutation::ChangesNotStamped) {
                track::stamp(self.tables.words().stamps, number as u32, now);
            }
            self.tables.store_slot(number, new);
            self.controller.world.regions[0].open = true;
        }
    }

    /// A step of the scan, and the next in a tenth of a second.
    pub(super) fn scan(&mut self) {
        self.after(100, Event::Scan);
        if self.is_stopped() {
            return;
        }
        if self.scenario.restarted.is_some_and(|at| self.now >= at * 1000) && !self.controller.has_restarted {
            self.controller.has_restarted = true;
            self.controller.scanner = Scanner::default();
            self.controller.world.regions[0].open = true;
        }
        self.describe();
        let before = self.is(Mutation::EntriesStay).then(|| self.tables.flow_words());
        let slots: Vec<_> = (0..SLOTS).map(|number| self.tables.slot(number)).collect();
        let moment = self.moment();
        let budget = self.scenario.flow_entries / 8;
        let Controller { scanner, world, .. } = &mut self.controller;
        let census = scanner.step(self.tables.words(), world, moment, budget);
        if let Some(before) = before {
            self.tables.put_back(&before);
        }
        if self.is(Mutation::UntrackedWithPrevious) {
            for (number, old) in slots.into_iter().enumerate() {
                let new = self.tables.slot(number);
                if new.is_tracked() && new.previous() == 0 && old.previous() != 0 {
                    self.tables.store_slot(number, Slot::steady(new.current()));
                }
            }
        }
        if let Some(census) = census {
            self.outcome.most_tracked = self.outcome.most_tracked.max(census.tracked_slots);
            self.release(&census);
        }
    }

    fn moment(&self) -> Moment {
        let monotonic = Duration::from_secs(START) + Duration::from_millis(self.now);
        let gap = match self.scenario.stopped {
            Some((from, to)) if self.is(Mutation::NoRestampAfterGap) && self.now >= to * 1000 => {
                Duration::from_secs(to - from)
            }
            _ => Duration::ZERO,
        };
        // A gap that does not show on this clock is none.
        Moment { monotonic, boot: monotonic - gap }
    }

    /// Tells the scan of the backends.
    fn describe(&mut self) {
        let short = |mutation| if self.is(mutation) { self.scenario.idle / 2 } else { self.scenario.idle };
        let idle = short(Mutation::EntriesRemovedTooSoon);
        let window = short(Mutation::WindowTooShort);
        let stays = self.is(Mutation::PreviousStaysThatTakesNothing);
        let backends = self.controller.backends.iter().zip(self.tables.states);
        let tracked = backends.map(|(backend, state)| Tracked {
            idle: if backend.role == Role::Unused { 0 } else { idle },
            accepts_existing: state & STATE_EXISTING_FLOWS != 0 || stays,
            weighed: false,
        });
        self.controller.world.backends = tracked.collect();
        self.controller.world.regions[0].idle = window;
    }

    /// An index is free once its flows have had the time to end and two passes have found it nowhere.
    fn release(&mut self, census: &Census) {
        let patience = u64::from(self.scenario.idle) * 1000;
        for index in 1..INDICES {
            let Role::Quarantined { since, clean } = self.controller.backends[index].role else { continue };
            if self.now < since + patience {
                continue;
            }
            let is_named = census.named.contains(&(index as u32))
                || (0..SLOTS).any(|number| self.tables.slot(number).current() == index as u32);
            let clean = if is_named { 0 } else { clean + 1 };
            self.controller.backends[index].role =
                if clean < 2 { Role::Quarantined { since, clean } } else { Role::Unused };
        }
    }
}
