//! A load balancer with tables of its own, which numbers backends in its own way.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use fastrand::Rng;
use lb_common::{
    abi::{
        BackendValue, STATE_EXISTING_FLOWS, STATE_IN_USE, STATE_NEW_FLOWS, ServiceKey, ServiceRecord, Slot,
        TRACK_ALWAYS,
    },
    hash::HashKey,
};

use super::{BACKENDS, FLOWS, IDLE, SLOTS, START};
use crate::{
    dataplane::{
        KeyFingerprint,
        replicate::{FleetMap, Replicator, Tables},
        scan::{Moment, Region, Scanner, Tracked, Words, World},
        track,
    },
    peers::{Endpoint, Identity, Keys, Post},
};

pub(super) struct Member {
    pub(super) slots: Vec<AtomicU64>,
    pub(super) stamps: Vec<AtomicU64>,
    pub(super) flows: Vec<AtomicU64>,
    pub(super) loads: Vec<AtomicU64>,
    pub(super) world: World,
    pub(super) scanner: Scanner,
    pub(super) map: FleetMap,
    pub(super) states: Vec<u32>,
    pub(super) replicator: Replicator,
    pub(super) endpoint: Endpoint,
    /// Backends that get new flows, by their numbers in the test.
    pub(super) serving: Vec<u32>,
    pub(super) number: usize,
    pub(super) tracking: u8,
    /// `flow_idle_timeout`.
    pub(super) idle: u32,
    /// Buckets of flows that have been confirmed in tracked slots.
    pub(super) news: RefCell<Vec<u32>>,
    /// News that there is room for between two looks.
    pub(super) ring: usize,
    /// Of the map that replication has seen.
    seen: u64,
}

pub(super) fn address(member: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1 + member as u8], 9650))
}

impl Member {
    pub(super) fn new(
        number: usize,
        count: usize,
        serving: &[u32],
        tracking: u8,
        is_new: bool,
        now: Duration,
    ) -> Self {
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let mut rng = Rng::with_seed(number as u64 + now.as_millis() as u64);
        let key = HashKey { k0: 3, k1: 4 };
        let identity = Identity {
            keys: Keys::derive(key),
            fingerprint: KeyFingerprint::of(key),
            random: Box::new(move || rng.u64(..)),
        };
        let peers: Vec<_> = (0..count).filter(|peer| *peer != number).map(address).collect();
        let kept = Replicator::kept(IDLE);
        let region =
            Region { base: 0, slots: SLOTS, idle: kept, always: tracking == TRACK_ALWAYS, open: true };
        let tracked = Tracked { idle: kept, accepts_existing: true, weighed: false };
        let mut member = Self {
            slots: zeros(SLOTS as usize),
            stamps: zeros(SLOTS as usize / 2),
            flows: zeros(FLOWS),
            loads: zeros(2 * (BACKENDS as usize + 1)),
            world: World {
                regions: vec![region],
                backends: vec![tracked; BACKENDS as usize + 1],
                ..World::default()
            },
            scanner: Scanner::default(),
            map: FleetMap::default(),
            states: vec![STATE_IN_USE | STATE_NEW_FLOWS | STATE_EXISTING_FLOWS; BACKENDS as usize + 1],
            replicator: Replicator::new(is_new),
            endpoint: Endpoint::new(identity, &peers, 1e6, now),
            serving: Vec::new(),
            number,
            tracking,
            idle: IDLE,
            news: RefCell::default(),
            ring: usize::MAX,
            seen: 0,
        };
        member.endpoint.begin();
        member.publish(serving, START);
        member
    }

    /// Index of a backend here.
    pub(super) fn index(&self, backend: u32) -> u32 {
        1 + (backend + 3 * self.number as u32) % BACKENDS
    }

    pub(super) fn backend(&self, index: u32) -> Option<u32> {
        (0..BACKENDS).find(|backend| self.index(*backend) == index)
    }

    /// By rendezvous, the same everywhere.
    pub(super) fn wanted(serving: &[u32], slot: u32) -> u32 {
        let score = |backend: &&u32| Rng::with_seed((u64::from(slot) << 32) + u64::from(**backend)).u64(..);
        *serving.iter().max_by_key(score).unwrap()
    }

    /// Gives the service another `flow_idle_timeout`.
    pub(super) fn set_idle(&mut self, idle: u32, now: u64) {
        let kept = Replicator::kept(idle);
        self.idle = idle;
        self.world.regions[0].idle = kept;
        self.world.backends.iter_mut().for_each(|backend| backend.idle = kept);
        let serving = self.serving.clone();
        self.publish(&serving, now);
    }

    pub(super) fn publish(&mut self, serving: &[u32], now: u64) {
        self.serving = serving.to_vec();
        for number in 0..SLOTS {
            let wanted = self.index(Self::wanted(serving, number));
            let old = Slot::from_word(self.slots[number as usize].load(Ordering::Relaxed));
            let new = track::publish(old, wanted, self.tracking, |_| true, now);
            if new != old {
                if new.is_tracked() {
                    track::stamp(&self.stamps, number, now);
                    self.world.regions[0].open = true;
                }
                self.slots[number as usize].store(new.word(), Ordering::Relaxed);
            }
        }
        let record = ServiceRecord {
            key: ServiceKey::service([9; 16], 80, 6),
            slots_log2: SLOTS.ilog2() as u8,
            forwarding: 1,
            hash_key: 2,
            flow_idle_timeout: self.idle,
            tracking: self.tracking,
            ..ServiceRecord::default()
        };
        let values: Vec<_> = (0..BACKENDS)
            .map(|backend| {
                let address = [backend as u8; 16];
                (self.index(backend), BackendValue { address, port: [0, 80], ..BackendValue::default() })
            })
            .collect();
        let fingerprint = serving.iter().fold(1u64, |all, one| all | 2 << one);
        let tables = HashMap::from([(record.stable_id, fingerprint)]);
        let backends = values.iter().map(|(index, value)| (*index, value));
        self.map = FleetMap::new([(0, &record)].into_iter(), backends, &tables).after(&self.map);
    }

    pub(super) fn words(&self) -> Words<'_> {
        Words { slots: &self.slots, stamps: &self.stamps, flows: &self.flows, loads: &self.loads }
    }

    pub(super) fn tick(&mut self, now: Duration, replicates: bool) {
        let seconds = Duration::from_secs(START) + now;
        let moment = Moment { monotonic: seconds, boot: seconds };
        let words =
            Words { slots: &self.slots, stamps: &self.stamps, flows: &self.flows, loads: &self.loads };
        self.scanner.step(words, &mut self.world, moment, FLOWS);
        if replicates {
            self.exchange(moment);
        }
    }

    /// Whether there is something that others wait for.
    pub(super) fn has_work(&self) -> bool {
        self.endpoint.has_events() || self.seen != self.map.generation || !self.news.borrow().is_empty()
    }

    pub(super) fn exchange(&mut self, now: Moment) {
        self.seen = self.map.generation;
        let states = &self.states;
        let mut tables = Tables {
            words: Words { slots: &self.slots, stamps: &self.stamps, flows: &self.flows, loads: &self.loads },
            world: &mut self.world,
            map: &self.map,
            states: |index: u32| states[index as usize],
            restamped: self.scanner.restamped(),
        };
        let age = self.replicator.age(now);
        let mut post = Post::collect(&mut self.endpoint, self.map.tables, age, now.boot);
        self.replicator.step(&mut tables, &self.news.take(), &mut post, now);
        post.deliver(&mut self.endpoint, now.boot);
    }

    pub(super) fn tracked(&self) -> usize {
        let words = self.words().slots.iter();
        words.filter(|word| Slot::from_word(word.load(Ordering::Relaxed)).is_tracked()).count()
    }
}
