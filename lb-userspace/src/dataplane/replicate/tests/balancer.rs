//! A member whose backends come and go as they do in a fleet: each change has its own moment here, and the daemon may stand still
//! or be started again while packets go on.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::atomic::Ordering,
    time::Duration,
};

use fastrand::Rng;
use lb_common::abi::{
    BackendValue, STATE_EXISTING_FLOWS, STATE_IN_USE, STATE_NEW_FLOWS, ServiceKey, ServiceRecord, Slot,
    TRACK_AUTO,
};

use super::{BACKENDS, IDLE, SLOTS, member::Member};
use crate::dataplane::{
    replicate::{FleetMap, Replicator},
    track,
};

/// What a member knows of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Standing {
    /// It has been added.
    pub(super) is_known: bool,
    pub(super) weight: u8,
    /// Nobody would be answered there.
    pub(super) is_cut: bool,
}

pub(super) struct Balancer {
    pub(super) member: Member,
    /// By the backend's number in the test.
    pub(super) standing: Vec<Standing>,
    count: usize,
}

impl Balancer {
    pub(super) fn new(number: usize, count: usize, standing: &[Standing], now: Duration) -> Self {
        let mut member = Member::new(number, count, &[0], TRACK_AUTO, false, now);
        for word in member.slots.iter().chain(&member.stamps) {
            word.store(0, Ordering::Relaxed);
        }
        member.states.fill(0);
        let mut balancer = Self { member, standing: Vec::new(), count };
        balancer.apply(standing, now.as_secs());
        balancer
    }

    /// The daemon is another one; what it has pinned is there.
    pub(super) fn restart(&mut self, now: Duration) {
        let (number, standing) = (self.member.number, self.standing.clone());
        let new = Self::new(number, self.count, &standing, now);
        let old = std::mem::replace(&mut self.member, new.member);
        let member = &mut self.member;
        (member.slots, member.stamps, member.flows) = (old.slots, old.stamps, old.flows);
        (member.states, member.news) = (old.states, old.news);
        self.apply(&standing, now.as_secs());
    }

    /// Makes that live, in the order of the reconciler.
    pub(super) fn apply(&mut self, standing: &[Standing], now: u64) {
        let old = self.member.states.clone();
        let accepts = |index: u32| old[index as usize] & STATE_EXISTING_FLOWS != 0;
        let mut new = vec![0; old.len()];
        for (backend, standing) in (0..).zip(standing) {
            new[self.member.index(backend) as usize] = standing.state();
        }
        let takes_again =
            old.iter().zip(&new).any(|(old, new)| *old != 0 && !old & new & STATE_EXISTING_FLOWS != 0);
        if takes_again {
            self.store_slots(now, |_, old| track::forget(old, accepts));
        }
        self.member.states.iter_mut().zip(&new).for_each(|(state, new)| *state |= new);
        let table: Vec<_> = (0..SLOTS).map(|slot| wanted(standing, slot)).collect();
        let wanted: Vec<_> = table.iter().map(|backend| self.member.index(*backend)).collect();
        self.store_slots(now, |slot, old| {
            track::publish(old, wanted[slot as usize], TRACK_AUTO, accepts, now)
        });
        self.member.states = new;
        for (backend, state) in self.member.world.backends.iter_mut().zip(&self.member.states) {
            backend.accepts_existing = state & STATE_EXISTING_FLOWS != 0;
            backend.idle = if *state == 0 { 0 } else { Replicator::kept(IDLE) };
        }
        self.standing = standing.to_vec();
        self.map(&table);
    }

    fn store_slots(&mut self, now: u64, change: impl Fn(u32, Slot) -> Slot) {
        let member = &mut self.member;
        for (number, word) in (0..).zip(&member.slots) {
            let old = Slot::from_word(word.load(Ordering::Relaxed));
            let new = change(number, old);
            if new == old {
                continue;
            }
            if new.is_tracked() {
                track::stamp(&member.stamps, number, now);
                member.world.regions[0].open = true;
            }
            word.store(new.word(), Ordering::Relaxed);
        }
    }

    fn map(&mut self, table: &[u32]) {
        let record = ServiceRecord {
            key: ServiceKey::service([9; 16], 80, 6),
            slots_log2: SLOTS.ilog2() as u8,
            forwarding: 1,
            hash_key: 2,
            flow_idle_timeout: IDLE,
            tracking: TRACK_AUTO,
            ..ServiceRecord::default()
        };
        let known = (0..BACKENDS).zip(&self.standing).filter(|(_, standing)| standing.is_known);
        let values: Vec<_> = known
            .map(|(backend, standing)| {
                let (address, left_table_at) = ([backend as u8; 16], u64::from(standing.weight == 0));
                let value = BackendValue { address, port: [0, 80], left_table_at, ..BackendValue::default() };
                (self.member.index(backend), value)
            })
            .collect();
        let mut hasher = DefaultHasher::new();
        table.hash(&mut hasher);
        let tables = HashMap::from([(record.stable_id, hasher.finish())]);
        let backends = values.iter().map(|(index, value)| (*index, value));
        self.member.map =
            FleetMap::new([(0, &record)].into_iter(), backends, &tables).after(&self.member.map);
    }

    /// Whether a backend takes packets of existing flows.
    pub(super) fn keeps(&self, backend: u32) -> bool {
        self.member.states[self.member.index(backend) as usize] & STATE_EXISTING_FLOWS != 0
    }
}

impl Standing {
    pub(super) const fn of(weight: u8) -> Self {
        Self { is_known: true, weight, is_cut: false }
    }

    const fn state(self) -> u32 {
        match self {
            Self { is_known: false, .. } => 0,
            Self { is_cut: true, .. } => STATE_IN_USE,
            Self { weight: 0, .. } => STATE_IN_USE | STATE_EXISTING_FLOWS,
            _ => STATE_IN_USE | STATE_EXISTING_FLOWS | STATE_NEW_FLOWS,
        }
    }
}

/// By rendezvous with weights, the same everywhere.
fn wanted(standing: &[Standing], slot: u32) -> u32 {
    let score = |backend: u32, weight: u8| {
        let part = Rng::with_seed((u64::from(slot) << 32) + u64::from(backend)).f64();
        part.max(f64::MIN_POSITIVE).ln() / f64::from(weight)
    };
    let serving = (0..).zip(standing).filter(|(_, one)| one.weight > 0 && !one.is_cut);
    let scores = serving.map(|(backend, one)| (backend, score(backend, one.weight)));
    scores.max_by(|one, other| one.1.total_cmp(&other.1)).unwrap().0
}
