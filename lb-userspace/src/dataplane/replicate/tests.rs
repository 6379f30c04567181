//! A fleet over a bad network: each member has its own tables, and numbers backends in its own way. A connection's truth is the
//! backend that took its SYN, and nothing else knows it.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use fastrand::Rng;
use lb_common::{
    abi::{
        BackendValue, FlowEntry, STATE_EXISTING_FLOWS, STATE_IN_USE, STATE_NEW_FLOWS, ServiceKey,
        ServiceRecord, Slot, SlotStamp, SlotStampPair, TRACK_ALWAYS, TRACK_AUTO,
    },
    flow::{self, Kind as Packet, Memory, NOTE_EXCEPTION, NOTE_REFUSED},
    hash::HashKey,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::*;
use crate::{
    dataplane::{
        KeyFingerprint,
        scan::{Region, Scanner, Tracked},
        track,
    },
    peers::{Endpoint, Identity, Keys, wire},
};

const SLOTS: u32 = 256;
const SHIFT: u32 = 56;
const BACKENDS: u32 = 8;
/// So many that no bucket is ever full.
const FLOWS: usize = 16384;
const BITS: u8 = (FLOWS / 8).ilog2() as u8;
const IDLE: u32 = 8;
/// How long it may take, in such a network, until the others know of a flow.
const LAG: u64 = 6000;
const START: u64 = 5000;

struct Member {
    slots: Vec<AtomicU64>,
    stamps: Vec<AtomicU64>,
    flows: Vec<AtomicU64>,
    loads: Vec<AtomicU64>,
    world: World,
    scanner: Scanner,
    map: FleetMap,
    states: Vec<u32>,
    replicator: Replicator,
    endpoint: Endpoint,
    /// Backends that get new flows, by their numbers in the test.
    serving: Vec<u32>,
    number: usize,
    tracking: u8,
    /// `flow_idle_timeout`.
    idle: u32,
}

fn address(member: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1 + member as u8], 9650))
}

impl Member {
    fn new(number: usize, count: usize, serving: &[u32], tracking: u8, is_new: bool, now: Duration) -> Self {
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
        };
        member.endpoint.begin();
        member.publish(serving, START);
        member
    }

    /// Index of a backend here.
    fn index(&self, backend: u32) -> u32 {
        1 + (backend + 3 * self.number as u32) % BACKENDS
    }

    fn backend(&self, index: u32) -> Option<u32> {
        (0..BACKENDS).find(|backend| self.index(*backend) == index)
    }

    /// By rendezvous, the same everywhere.
    fn wanted(serving: &[u32], slot: u32) -> u32 {
        let score = |backend: &&u32| Rng::with_seed((u64::from(slot) << 32) + u64::from(**backend)).u64(..);
        *serving.iter().max_by_key(score).unwrap()
    }

    fn publish(&mut self, serving: &[u32], now: u64) {
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
        let generation = self.map.generation + 1;
        self.map = FleetMap::new([&record].into_iter(), backends, &[0], &tables);
        self.map.generation = generation;
    }

    fn words(&self) -> Words<'_> {
        Words { slots: &self.slots, stamps: &self.stamps, flows: &self.flows, loads: &self.loads }
    }

    /// Where a packet goes.
    fn packet(&self, hash: u64, kind: Packet, now: u64) -> Option<u32> {
        let number = (hash >> SHIFT) as u32;
        let slot = Slot::from_word(self.slots[number as usize].load(Ordering::Relaxed));
        if !slot.is_tracked() && self.tracking == TRACK_AUTO {
            return self.backend(slot.current());
        }
        let at = flow::bucket(hash, FLOWS as u32 / 8 - 1) as usize * 8;
        let bucket = Bucket { entries: &self.flows[at..at + 8], states: &self.states };
        let followed = flow::follow(&bucket, slot, flow::tag(hash), kind, now, |_| slot.current());
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

    /// The backend of a flow's entry.
    fn copy(&self, hash: u64) -> Option<u32> {
        let at = flow::bucket(hash, FLOWS as u32 / 8 - 1) as usize * 8;
        let mut entries = self.flows[at..at + 8].iter();
        let entry = entries.find_map(|word| {
            let entry = FlowEntry::from_word(word.load(Ordering::Relaxed));
            (entry != FlowEntry::EMPTY && entry.tag() == flow::tag(hash)).then_some(entry)
        });
        self.backend(entry?.index())
    }

    fn tick(&mut self, now: Duration, replicates: bool) {
        let seconds = Duration::from_secs(START) + now;
        let moment = Moment { monotonic: seconds, boot: seconds };
        let words =
            Words { slots: &self.slots, stamps: &self.stamps, flows: &self.flows, loads: &self.loads };
        self.scanner.step(words, &mut self.world, moment, FLOWS);
        if replicates {
            let states = &self.states;
            let mut tables = Tables {
                words,
                world: &mut self.world,
                map: &self.map,
                states: |index: u32| states[index as usize],
                restamped: self.scanner.restamped(),
            };
            let mut post =
                Post::collect(&mut self.endpoint, self.map.tables, self.replicator.age(moment), moment.boot);
            self.replicator.step(&mut tables, &mut post, moment);
            post.deliver(&mut self.endpoint, moment.boot);
        }
    }

    fn tracked(&self) -> usize {
        let words = self.words().slots.iter();
        words.filter(|word| Slot::from_word(word.load(Ordering::Relaxed)).is_tracked()).count()
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

#[derive(Clone, Copy)]
struct Connection {
    hash: u64,
    backend: u32,
    opened: u64,
    next: u64,
    packets: u32,
}

struct Fleet {
    members: Vec<Option<Member>>,
    on_its_way: Vec<(u64, usize, usize, Vec<u8>)>,
    connections: Vec<Connection>,
    /// Who gets a flow's packets: these, in turn by the flow's hash.
    routes: Vec<usize>,
    rng: Rng,
    /// Milliseconds.
    now: u64,
    replicates: bool,
    lost: u8,
    /// Whose datagrams don't arrive.
    mute: Option<usize>,
    broken: Vec<String>,
    opened: u64,
}

impl Fleet {
    fn new(count: usize, seed: u64, replicates: bool) -> Self {
        Self::tracking(count, seed, replicates, TRACK_AUTO)
    }

    fn tracking(count: usize, seed: u64, replicates: bool, tracking: u8) -> Self {
        let serving: Vec<_> = (0..4).collect();
        let now = Duration::from_secs(START);
        let member = |number| Some(Member::new(number, count, &serving, tracking, false, now));
        Self {
            members: (0..count).map(member).collect(),
            on_its_way: Vec::new(),
            connections: Vec::new(),
            routes: vec![0],
            rng: Rng::with_seed(seed),
            now: 0,
            replicates,
            lost: 15,
            mute: None,
            broken: Vec::new(),
            opened: 0,
        }
    }

    fn member(&mut self, number: usize) -> &mut Member {
        self.members[number].as_mut().unwrap()
    }

    fn seconds(&self) -> u64 {
        START + self.now / 1000
    }

    fn publish(&mut self, number: usize, serving: impl IntoIterator<Item = u32>) {
        let (serving, now) = (serving.into_iter().collect::<Vec<_>>(), self.seconds());
        self.member(number).publish(&serving, now);
    }

    /// Leads packets elsewhere. Whoever opened a connection just now is not promised anything.
    fn lead_to(&mut self, routes: &[usize]) {
        self.routes = routes.to_vec();
        let now = self.now;
        self.connections.retain(|connection| connection.opened + LAG < now);
    }

    fn run(&mut self, seconds: u64) {
        let end = self.now + seconds * 1000;
        while self.now < end {
            self.now += 10;
            let boot = Duration::from_secs(START) + Duration::from_millis(self.now);
            if self.replicates {
                self.carry(boot);
            }
            if self.now.is_multiple_of(100) {
                let (now, replicates) = (Duration::from_millis(self.now), self.replicates);
                self.members.iter_mut().flatten().for_each(|member| member.tick(now, replicates));
            }
            self.clients();
        }
    }

    fn carry(&mut self, boot: Duration) {
        for (from, member) in self.members.iter_mut().enumerate() {
            let Some(member) = member else { continue };
            while let Some((to, datagram)) = member.endpoint.transmit(boot) {
                let to = (0..).find(|number| address(*number) == to).unwrap();
                for _ in 0..1 + usize::from(self.rng.u8(..20) == 0) {
                    if self.rng.u8(..100) >= self.lost && self.mute != Some(from) {
                        self.on_its_way.push((self.now + self.rng.u64(..60), from, to, datagram.clone()));
                    }
                }
            }
        }
        let (now, members) = (self.now, &mut self.members);
        self.on_its_way.retain(|(when, from, to, datagram)| {
            let arrives = *when <= now;
            if arrives && let Some(member) = &mut members[*to] {
                member.endpoint.receive(address(*from), datagram, boot);
            }
            !arrives
        });
    }

    fn clients(&mut self) {
        let seconds = self.seconds();
        let boot = Duration::from_secs(START) + Duration::from_millis(self.now);
        let route = |hash: u64, routes: &[usize]| routes[(hash % routes.len() as u64) as usize];
        if self.rng.u8(..4) == 0 {
            let hash = self.rng.u64(..);
            let member = self.members[route(hash, &self.routes)].as_ref().unwrap();
            let backend = member.packet(hash, Packet::Opens, seconds).unwrap();
            let next = self.now + 10;
            self.connections.push(Connection {
                hash,
                backend,
                opened: self.now,
                next,
                packets: self.rng.u32(5..60),
            });
            self.opened += 1;
        }
        let (now, rng, routes, members, broken) =
            (self.now, &mut self.rng, &self.routes, &self.members, &mut self.broken);
        self.connections.retain_mut(|connection| {
            if connection.next > now {
                return true;
            }
            let number = route(connection.hash, routes);
            let member = members[number].as_ref().unwrap();
            let kind = if connection.packets == 0 { Packet::Closes } else { Packet::Continues };
            let got = member.packet(connection.hash, kind, seconds);
            if got != Some(connection.backend) {
                let seen: Vec<_> = members
                    .iter()
                    .flatten()
                    .map(|member| {
                        let at = flow::bucket(connection.hash, FLOWS as u32 / 8 - 1) as usize * 8;
                        let entries: Vec<_> = (at..at + 8)
                            .filter_map(|place| {
                                let entry = FlowEntry::from_word(member.flows[place].load(Ordering::Relaxed));
                                let told = member.replicator.ledger.told(place);
                                let is = |one: FlowEntry| one.tag() == flow::tag(connection.hash);
                                (is(entry) || is(told)).then(|| {
                                    (entry.age(seconds), entry.state(), told.age(seconds), told.state())
                                })
                            })
                            .collect();
                        (member.number, entries, member.endpoint.lives(boot), &member.replicator.fates)
                    })
                    .collect();
                broken.push(format!(
                    "{seen:?} at {now} ms member {number} sent a flow of {} from {} ms to {got:?}, slot {:?}",
                    connection.backend,
                    connection.opened,
                    member.slots[(connection.hash >> SHIFT) as usize].load(Ordering::Relaxed),
                ));
                return false;
            }
            let silence = match rng.u8(..6) {
                0 => u64::from(IDLE - 1) * 1000 - rng.u64(..900),
                _ => rng.u64(100..1500),
            };
            connection.next = now + silence;
            connection.packets = connection.packets.saturating_sub(1);
            kind == Packet::Continues
        });
    }

    fn finish(mut self, what: &str) {
        if !self.replicates {
            return;
        }
        let broken = &self.broken[..self.broken.len().min(8)];
        assert!(broken.is_empty(), "{what}: {} broke: {broken:#?}", self.broken.len());
        assert!(self.opened > 500, "{what}");
        // All is over, and nothing is left of it.
        self.connections.clear();
        for _ in 0..60 {
            for _ in 0..10 {
                self.now += 100;
                let boot = Duration::from_secs(START) + Duration::from_millis(self.now);
                self.carry(boot);
                let now = Duration::from_millis(self.now);
                self.members.iter_mut().flatten().for_each(|member| member.tick(now, true));
            }
        }
        for member in self.members.iter().flatten() {
            assert_eq!(member.tracked(), 0, "{what}: member {}", member.number);
            assert!(member.flows.iter().all(|word| word.load(Ordering::Relaxed) == 0), "{what}");
        }
    }
}

/// Traffic moves between members, again and again, while backends come and go.
fn moving(count: usize, seed: u64, replicates: bool, tracking: u8) -> Fleet {
    let mut fleet = Fleet::tracking(count, seed, replicates, tracking);
    fleet.run(15);
    for round in 0..4u32 {
        let serving = (round % 3 * 2)..(round % 3 * 2 + 4);
        for member in 0..count {
            fleet.publish(member, serving.clone());
            let skew = fleet.rng.u64(..3);
            fleet.run(skew);
        }
        let wait = fleet.rng.u64(7..20);
        fleet.run(wait);
        let mut routes: Vec<_> = (0..count).collect();
        fleet.rng.shuffle(&mut routes);
        routes.truncate(1 + round as usize % count);
        fleet.lead_to(&routes);
        fleet.run(12);
    }
    fleet
}

#[test]
fn flows_that_move_between_members_while_backends_are_replaced_keep_their_backends() {
    for seed in 0..8 {
        moving(2 + seed as usize % 2, seed, true, TRACK_AUTO).finish(&format!("seed {seed}"));
    }
}

#[test]
fn flows_that_are_always_tracked_do_as_well() {
    for seed in 0..4 {
        moving(2, seed, true, TRACK_ALWAYS).finish(&format!("seed {seed}"));
    }
}

#[test]
fn without_replication_they_do_not() {
    let broken: usize = (0..3).map(|seed| moving(2, seed, false, TRACK_AUTO).broken.len()).sum();
    assert!(broken > 50, "{broken}");
}

#[test]
fn members_that_see_backends_differently_for_longer_than_flows_may_be_silent_break_none() {
    for seed in 0..6 {
        let mut fleet = Fleet::new(2, seed, true);
        fleet.run(15);
        fleet.publish(1, [0, 1, 2, 5]);
        for round in 0..5 {
            fleet.run(20);
            fleet.lead_to(&[[0, 1, 0], [1, 0, 1]][round % 2][..1 + round % 3]);
            fleet.run(12);
        }
        fleet.publish(0, [0, 1, 2, 5]);
        fleet.run(12);
        fleet.lead_to(&[seed as usize % 2]);
        fleet.run(12);
        fleet.finish(&format!("seed {seed}"));
    }
}

#[test]
fn a_member_that_joins_in_the_middle_of_a_window_breaks_none() {
    for seed in 0..6 {
        let mut fleet = Fleet::new(2, seed, true);
        fleet.members[1] = None;
        if seed % 3 == 0 {
            // It has not been there for long either.
            let now = Duration::from_secs(START);
            fleet.members[0] = Some(Member::new(0, 2, &[0, 1, 2, 3], TRACK_AUTO, true, now));
        }
        fleet.run(20);
        fleet.publish(0, 2..6);
        fleet.run(3 + seed % 4);
        fleet.publish(0, 3..7);
        fleet.run(seed % 3);
        let now = Duration::from_secs(START) + Duration::from_millis(fleet.now);
        // Half of them see backends as the others do.
        let serving: Vec<u32> = if seed % 2 == 0 { (3..7).collect() } else { vec![2, 4, 5, 6] };
        fleet.members[1] = Some(Member::new(1, 2, &serving, TRACK_AUTO, true, now));
        fleet.run(LAG / 1000);
        fleet.lead_to(&[1]);
        fleet.run(12);
        fleet.lead_to(&[0, 1]);
        fleet.run(12);
        // Slots that differ are tracked for as long as they do.
        fleet.publish(1, 3..7);
        fleet.run(12);
        fleet.finish(&format!("seed {seed}"));
    }
}

/// Its backends pass their first checks one after the other, and each moves slots.
#[test]
fn a_newcomer_whose_backends_join_one_after_the_other_breaks_none() {
    for seed in 0..4 {
        let mut fleet = Fleet::new(2, seed, true);
        fleet.members[1] = None;
        fleet.run(20);
        let now = Duration::from_secs(START) + Duration::from_millis(fleet.now);
        let mut order: Vec<u32> = (0..4).collect();
        fleet.rng.shuffle(&mut order);
        let member = Member::new(1, 2, &order[..1], TRACK_AUTO, true, now);
        member.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
        fleet.members[1] = Some(member);
        // Half of them find their peer only when all have passed, and their tables are the peer's.
        if seed % 2 == 1 {
            fleet.lost = 100;
        }
        fleet.run(seed % 3);
        for count in 1..=4 {
            fleet.publish(1, order[..count].to_vec());
            fleet.run(1);
        }
        fleet.lost = 15;
        fleet.run(LAG / 1000);
        fleet.lead_to(&[1]);
        fleet.run(12);
        fleet.lead_to(&[0, 1]);
        fleet.run(12);
        fleet.finish(&format!("seed {seed}"));
    }
}

#[test]
fn two_newcomers_take_over_from_whoever_was_there_before_and_not_from_each_other() {
    for seed in 0..3 {
        let mut fleet = Fleet::new(3, seed, true);
        fleet.members[0] = None;
        fleet.members[1] = None;
        fleet.routes = vec![2];
        fleet.run(20);
        fleet.publish(2, 2..6);
        fleet.run(2);
        let now = Duration::from_secs(START) + Duration::from_millis(fleet.now);
        let mut orders = [[2, 3, 4, 5]; 2];
        for (number, order) in orders.iter_mut().enumerate() {
            fleet.rng.shuffle(order);
            let member = Member::new(number, 3, &order[..1], TRACK_AUTO, true, now);
            member.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
            fleet.members[number] = Some(member);
        }
        for count in 1..=4 {
            for (number, order) in orders.iter().enumerate() {
                fleet.publish(number, order[..count].to_vec());
            }
            fleet.run(1);
        }
        fleet.run(LAG / 1000);
        fleet.lead_to(&[0, 1]);
        fleet.run(12);
        fleet.lead_to(&[0, 1, 2]);
        fleet.run(12);
        fleet.finish(&format!("seed {seed}"));
    }
}

/// For as long as it takes until each gives the other up, or longer: the one that is not heard hears all the time.
#[test]
fn what_is_lost_in_one_direction_for_a_while_is_told_again() {
    for seed in 0..8 {
        let mut fleet = Fleet::new(2, seed, true);
        fleet.run(15);
        fleet.publish(0, 2..6);
        fleet.publish(1, 2..6);
        fleet.run(3 + seed % 3);
        fleet.mute = Some(seed as usize % 2);
        fleet.run(5 + seed % 4);
        fleet.mute = None;
        // Longer than a slot is held that nobody speaks of.
        fleet.run(25);
        let tracked = fleet.member(0).tracked();
        assert!(tracked > 20, "seed {seed}: {tracked}");
        assert!(fleet.member(1).tracked() >= tracked, "seed {seed}: {tracked}");
        fleet.lead_to(&[1]);
        fleet.run(12);
        fleet.lead_to(&[0]);
        fleet.run(12);
        fleet.finish(&format!("seed {seed}"));
    }
}

/// However long a connection is silent, if only less than the idle timeout.
#[test]
fn a_peer_has_a_copy_of_a_flow_for_as_long_as_the_flow_lives() {
    const LONG: u32 = 64;
    let mut fleet = Fleet::new(2, 5, true);
    fleet.members.iter_mut().flatten().for_each(|member| {
        let kept = Replicator::kept(LONG);
        member.idle = LONG;
        member.world.regions[0].idle = kept;
        member.world.backends.iter_mut().for_each(|backend| backend.idle = kept);
        member.publish(&[0, 1, 2, 3], START);
    });
    fleet.run(10);
    for member in 0..2 {
        fleet.publish(member, 4..8);
    }
    fleet.run(1);
    fleet.connections.truncate(150);
    fleet.connections.iter_mut().for_each(|flow| flow.packets = 1);
    let mut flows = fleet.connections.clone();
    let start = fleet.now;
    while fleet.now < start + u64::from(LONG) * 4000 {
        fleet.now += 100;
        let boot = Duration::from_secs(START) + Duration::from_millis(fleet.now);
        fleet.carry(boot);
        let (now, seconds) = (fleet.now, fleet.seconds());
        fleet.members.iter_mut().flatten().for_each(|member| member.tick(Duration::from_millis(now), true));
        for (number, flow) in (0u64..).zip(&mut flows) {
            if flow.packets > 0 && flow.next <= now {
                // Before this there was no entry for it.
                (flow.packets, flow.opened) = (0, now);
            }
            if flow.next <= now {
                assert_eq!(fleet.member(0).packet(flow.hash, Packet::Continues, seconds), Some(flow.backend));
                flow.next = now + 400 + number * 500 % (u64::from(LONG) * 1000 - 900);
            }
            let copy = fleet.member(1).copy(flow.hash);
            let is_new = flow.packets > 0 || now < flow.opened + LAG;
            assert!(is_new || copy == Some(flow.backend), "{now}: {copy:?} of {}", flow.backend);
        }
    }
}

#[test]
fn slots_that_are_the_same_on_both_are_looked_at_once() {
    let mut fleet = Fleet::new(2, 6, true);
    fleet.members[1] = None;
    fleet.run(10);
    let now = Duration::from_secs(START) + Duration::from_millis(fleet.now);
    let mut member = Member::new(1, 2, &[0, 1, 2, 3], TRACK_AUTO, true, now);
    // So that all slots are told.
    member.map.tables = 1;
    fleet.members[1] = Some(member);
    fleet.run(u64::from(Replicator::kept(IDLE)) + 12);
    for number in 0..2 {
        let told = &mut fleet.member(number).replicator.told;
        assert!(!told.is_empty());
        let mut looked_at = 0;
        for peer in told.values_mut() {
            let services: Vec<_> = peer.services().copied().collect();
            for service in services {
                peer.look(&service, |_| {
                    looked_at += 1;
                    true
                });
            }
        }
        assert_eq!(looked_at, 0, "member {number}");
    }
}

#[test]
fn a_newcomer_waits_for_all_peers_that_may_be_there_and_never_again() {
    let joining = |fleet: &mut Fleet| fleet.member(0).replicator.is_joining();
    // By when each of the others comes, in seconds after it, and when it may be done.
    let cases = [
        ([Some(0), Some(0)], 0, 4),
        ([Some(0), Some(10)], 5, 7),
        ([Some(0), None], 5, 7),
        ([None, None], 5, 7),
    ];
    for (comes, least, most) in cases {
        let mut fleet = Fleet::new(3, 7, true);
        fleet.lost = 0;
        let others: Vec<_> = fleet.members.iter_mut().map(Option::take).collect();
        let now = Duration::from_secs(START);
        fleet.members[0] = Some(Member::new(0, 3, &[0, 1, 2, 3], TRACK_AUTO, true, now));
        let mut others: Vec<_> = others.into_iter().skip(1).collect();
        let (mut ended, mut ends) = (None, 0);
        for second in 0..20 {
            for (number, comes) in comes.iter().enumerate() {
                if *comes == Some(second) {
                    fleet.members[number + 1] = others[number].take();
                }
            }
            if !joining(&mut fleet) && ended.is_none() {
                (ended, ends) = (Some(second), ends + 1);
            }
            assert_eq!(joining(&mut fleet), ended.is_none(), "{comes:?} after {second} s");
            fleet.run(1);
        }
        let ended = ended.unwrap();
        assert!((least..=most).contains(&ended), "{comes:?}: {ended} s");
    }
    // Whoever goes on with its maps does not wait.
    assert!(!Fleet::new(2, 8, true).member(0).replicator.is_joining());
}

#[test]
fn in_steady_state_nothing_is_told() {
    let mut fleet = Fleet::new(2, 1, true);
    fleet.lost = 0;
    fleet.run(40);
    let told = |fleet: &Fleet| {
        let members = fleet.members.iter().flatten();
        members.map(|member| member.endpoint.spoken()).collect::<Vec<_>>()
    };
    let before = told(&fleet);
    fleet.run(20);
    assert_eq!(told(&fleet), before);
    assert!(fleet.connections.len() > 100);
}

#[test]
fn a_flow_is_told_once_in_its_idle_timeout() {
    let mut fleet = Fleet::new(2, 1, true);
    fleet.lost = 0;
    fleet.run(15);
    for member in 0..2 {
        fleet.publish(member, 4..8);
    }
    fleet.run(1);
    // A hundred that go on, and nobody else.
    fleet.connections.truncate(100);
    let before = fleet.member(0).endpoint.flows_told();
    let began = fleet.now;
    while fleet.now < began + u64::from(IDLE) * 5000 {
        fleet.now += 100;
        let boot = Duration::from_secs(START) + Duration::from_millis(fleet.now);
        fleet.carry(boot);
        let now = Duration::from_millis(fleet.now);
        fleet.members.iter_mut().flatten().for_each(|member| member.tick(now, true));
        let seconds = fleet.seconds();
        for connection in fleet.connections.clone() {
            let got = fleet.member(0).packet(connection.hash, Packet::Continues, seconds);
            assert_eq!(got, Some(connection.backend));
        }
    }
    let told = fleet.member(0).endpoint.flows_told() - before;
    let flows = fleet.connections.len() as u64;
    assert!((4 * flows..=6 * flows).contains(&told), "{told} records of {flows} flows in 5 idle timeouts");
    let known = fleet
        .member(1)
        .flows
        .iter()
        .filter(|word| FlowEntry::from_word(word.load(Ordering::Relaxed)) != FlowEntry::EMPTY);
    assert!(known.count() as u64 >= flows);
}

#[test]
fn a_flow_of_a_service_or_to_a_backend_that_is_not_here_is_refused_and_counted() {
    let mut fleet = Fleet::new(2, 1, true);
    fleet.lost = 0;
    fleet.run(5);
    let id = fleet.member(0).map.services[0].id;
    let backend = fleet.member(0).map.name(1);
    let record = wire::Record { hash: 5, backend, age: 0, closing: false, changed: false, doubtful: false };
    let elsewhere = wire::ServiceId { port: 81, ..id };
    let shape = wire::Shape { slots_log2: 9, ..id.shape };
    let other_idle = wire::Shape { idle: id.shape.idle + 1, ..id.shape };
    for (service, bits, record, fate) in [
        (elsewhere, BITS, record, FlowFate::UnknownService),
        (wire::ServiceId { shape, ..id }, BITS, record, FlowFate::OtherService),
        (id, BITS, wire::Record { backend: 1, ..record }, FlowFate::UnknownBackend),
        (wire::ServiceId { shape: other_idle, ..id }, BITS, record, FlowFate::OtherService),
        (id, BITS - 1, record, FlowFate::OtherTable),
        (id, BITS, wire::Record { age: 60, ..record }, FlowFate::Outdated),
        (id, BITS, record, FlowFate::Taken),
    ] {
        let boot = Duration::from_secs(START) + Duration::from_millis(fleet.now);
        let (body, _) = wire::flows(service, bits, &[record]).remove(0);
        fleet.member(0).endpoint.send(None, wire::Kind::Flows, body, 1, boot);
        let before = fleet.member(1).replicator.fates.get(&fate).copied().unwrap_or_default();
        let old: Vec<_> = fleet.member(1).flows.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        fleet.run(4);
        let member = fleet.member(1);
        assert_eq!(member.replicator.fates.get(&fate).copied().unwrap_or_default(), before + 1, "{fate:?}");
        let new: Vec<_> = member.flows.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        assert_eq!(old == new, fate != FlowFate::Taken, "{fate:?}");
    }
}

#[test]
fn what_is_said_of_a_backend_that_comes_later_is_taken_in_when_it_comes() {
    let mut fleet = Fleet::new(2, 1, true);
    fleet.lost = 0;
    fleet.run(5);
    let id = fleet.member(0).map.services[0].id;
    let backend = fleet.member(1).map.name(1);
    let whole = fleet.member(1).map.clone();
    let mut without = whole.clone();
    without.services[0].backends.remove(&backend);
    without.generation = 1;
    fleet.member(1).map = without;
    let record = wire::Record { hash: 5, backend, age: 0, closing: false, changed: false, doubtful: false };
    let boot = Duration::from_secs(START) + Duration::from_millis(fleet.now);
    let (body, _) = wire::flows(id, BITS, &[record]).remove(0);
    fleet.member(0).endpoint.send(None, wire::Kind::Flows, body, 1, boot);
    fleet.run(4);
    assert_eq!(fleet.member(1).replicator.fates[&FlowFate::UnknownBackend], 1);
    fleet.member(1).map = whole;
    fleet.member(1).map.generation = 2;
    fleet.run(1);
    assert_eq!(fleet.member(1).replicator.fates[&FlowFate::Taken], 1);
}

#[test]
fn a_member_that_starts_without_backends_leaves_nothing_tracked_behind() {
    let mut fleet = Fleet::new(2, 3, true);
    fleet.members[1] = None;
    fleet.run(10);
    let now = Duration::from_secs(START) + Duration::from_millis(fleet.now);
    let mut member = Member::new(1, 2, &[0, 1, 2, 3], TRACK_AUTO, true, now);
    member.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    member.map.tables = 1;
    fleet.members[1] = Some(member);
    fleet.run(5);
    // Its first checks have passed.
    fleet.publish(1, 0..4);
    fleet.run(u64::from(Replicator::kept(IDLE)) + 12);
    assert_eq!((fleet.member(0).tracked(), fleet.member(1).tracked()), (0, 0));
    fleet.lead_to(&[1]);
    fleet.run(12);
    fleet.finish("a start without backends");
}

#[test]
fn a_service_that_one_member_removes_keeps_nothing_tracked_at_the_other() {
    let mut fleet = Fleet::new(2, 4, true);
    fleet.run(10);
    fleet.publish(0, 2..6);
    fleet.run(3);
    assert!(fleet.member(1).tracked() > 0);
    fleet.connections.clear();
    fleet.routes = vec![1];
    fleet.member(0).map = FleetMap::default();
    fleet.run(u64::from(Replicator::kept(IDLE)) + 14);
    assert_eq!(fleet.member(1).tracked(), 0);
}
