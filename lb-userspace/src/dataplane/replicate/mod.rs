//! Flow replication: what peers have to know of slots and flows, and what is done with what they say
//! (docs/flow-replication.md). Works on the maps' words and takes the time as a value, as the scan does.

mod flows;
mod holds;
mod ledger;
mod map;
mod slots;
#[cfg(test)]
mod tests;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::atomic::Ordering,
    time::Duration,
};

use lb_common::abi::{FLOW_EMPTY, FlowEntry};

use super::scan::{ENTRIES, Moment, Words, World};
use crate::peers::{
    Event, FlowFate, PeerId, Post,
    wire::{self, Flows, Kind},
};
use flows::{Admission, Batches, Teller};
pub use holds::{Hold, Holds};
use ledger::Ledger;
pub use map::FleetMap;
use slots::{Announcer, View};
use told::PeerSlots;

/// Keeps peers' slots and flow tables in step with this load balancer's.
#[derive(Debug)]
pub struct Replicator {
    ledger: Ledger,
    announcer: Announcer,
    told: BTreeMap<PeerId, PeerSlots>,
    snapshots: Vec<Snapshot>,
    /// Peers that have sent all that they had.
    complete: Vec<PeerId>,
    /// Next place in the flow table.
    place: usize,
    pass_began: Option<Moment>,
    slots_looked_at: Option<Moment>,
    version: u64,
    /// What peers have said of services and backends that were not here, and when.
    unknown: VecDeque<(u64, Flows)>,
    /// Peers of whom there was no room to keep such words.
    forgotten: BTreeSet<PeerId>,
    /// When slots were followed last; `None`: there is something new to follow.
    followed: Option<Moment>,
    /// Of the map that these were tried with.
    generation: u64,
    started: Option<Moment>,
    is_new: bool,
    is_joining: bool,
    /// Whether a whole pass over the flows was made.
    has_passed: bool,
    differs: HashMap<PeerId, Differs>,
    pub fates: BTreeMap<FlowFate, u64>,
}

/// That a peer's tables differ from our own.
#[derive(Clone, Copy, Debug)]
struct Differs {
    /// The hash over its tables, and over ours.
    tables: (u64, u64),
    /// For how long these have been so.
    since: u64,
    /// Whether it has been told all slots for these, and when it was told them last.
    is_told: bool,
    told: Option<u64>,
}

/// What a peer is sent when it comes: all that the others have got already.
#[derive(Debug)]
struct Snapshot {
    peer: PeerId,
    /// Next service and chunk of it; `None` when slots are told.
    next: Option<(usize, u32)>,
    /// Of the map in which that service has this place.
    generation: u64,
    /// Whether slots that are not tracked are told, too.
    all_slots: bool,
    /// Next place in the flow table; `None` where flows are not asked for.
    place: Option<usize>,
}

impl Snapshot {
    const fn new(peer: PeerId, all_slots: bool, place: Option<usize>) -> Self {
        Self { peer, next: Some((0, 0)), generation: 0, all_slots, place }
    }
}

/// What is worked on.
pub struct Tables<'a, S> {
    pub words: Words<'a>,
    pub world: &'a mut World,
    pub map: &'a FleetMap,
    /// `STATE_*` bits by index of a backend.
    pub states: S,
    /// See `Scanner::restamped`.
    pub restamped: Option<Moment>,
}

impl Replicator {
    /// `is_new`: the maps have just been made, so that whatever flows there are come by peers.
    pub fn new(is_new: bool) -> Self {
        Self {
            ledger: Ledger::default(),
            announcer: Announcer::default(),
            told: BTreeMap::new(),
            snapshots: Vec::new(),
            complete: Vec::new(),
            place: 0,
            pass_began: None,
            slots_looked_at: None,
            version: 0,
            unknown: VecDeque::new(),
            forgotten: BTreeSet::new(),
            followed: None,
            generation: 0,
            started: None,
            is_new,
            is_joining: is_new,
            has_passed: is_new,
            differs: HashMap::new(),
            fates: BTreeMap::new(),
        }
    }

    /// How long entries and windows are kept where flows may be idle for `idle` units: an eighth longer, so that a peer's copy of a
    /// flow that is told once in that time does not go before it is told again.
    pub const fn kept(idle: u32) -> u32 {
        let margin = idle / 8;
        idle + if margin < 3 { 3 } else { margin }
    }

    /// Whether this load balancer is new and has not heard all yet: it may send flows elsewhere than peers do. Once it is not, it
    /// never is again.
    pub fn is_joining(&self) -> bool {
        self.is_joining
    }

    fn look_whether_all_is_heard(&mut self, post: &Post, now: Moment) {
        let Some(started) = self.started else { return };
        let waited = now.boot.saturating_sub(started.boot).as_secs();
        let lacks = |peer: PeerId| !self.complete.contains(&peer) || self.forgotten.contains(&peer);
        let waits = match waited {
            0..FIND_SECONDS => post.all_peers().any(lacks),
            FIND_SECONDS..JOIN_SECONDS => post.up_peers().any(lacks),
            _ => false,
        };
        self.is_joining &= waits;
    }

    /// Does the work that is due. To be called every 100 ms.
    pub fn step<S: Fn(u32) -> u32>(&mut self, tables: &mut Tables<'_, S>, post: &mut Post, now: Moment) {
        if post.has_begun() {
            self.started.get_or_insert(now);
        }
        self.hear(tables, post, now);
        if is_due(self.slots_looked_at, SLOTS_PERIOD, now) {
            self.slots_looked_at = Some(now);
            if is_due(self.followed, FOLLOW_PERIOD, now) {
                self.followed = Some(now);
                self.follow(tables, post, now);
            }
            // What it has heard it has also done.
            self.look_whether_all_is_heard(post, now);
            self.compare(tables.map, post, now);
            // Also where nobody listens: whoever comes gets a snapshot, and then what has changed since.
            self.announce(tables, post, now);
        }
        self.tell_flows(tables, post, now);
        self.snapshots(tables, post, now);
    }

    fn hear<S: Fn(u32) -> u32>(&mut self, tables: &Tables<'_, S>, post: &mut Post, now: Moment) {
        let admission = Admission {
            map: tables.map,
            words: tables.words.flows,
            states: &tables.states,
            now: now.coarse(),
            restamped: tables.restamped.map(Moment::coarse),
        };
        if self.try_again(&admission) {
            std::mem::take(&mut self.forgotten).into_iter().for_each(|peer| post.ask_anew(peer));
        }
        for (peer, event) in post.events() {
            match event {
                Event::Up => {
                    self.told.remove(&peer);
                    self.differs.remove(&peer);
                    self.complete.retain(|one| *one != peer);
                    self.snapshots.retain(|snapshot| snapshot.peer != peer);
                    // A new one may have windows of its own in slots that are the same.
                    let all_slots =
                        post.peer_tables(peer) != Some(tables.map.tables) || post.age(peer) < ADOPT_SECONDS;
                    self.snapshots.push(Snapshot::new(peer, all_slots, Some(0)));
                }
                Event::Down => {
                    // What it said holds for as long as its flows may come here.
                    self.told.remove(&peer);
                    self.snapshots.retain(|snapshot| snapshot.peer != peer);
                }
                // Also of a service that is not here yet.
                Event::Slots(message) => {
                    self.told.entry(peer).or_default().take(&message);
                    self.followed = None;
                }
                Event::Flows(mut message, made) => {
                    let late = u32::try_from(now.boot.saturating_sub(made).as_secs()).unwrap_or(u32::MAX);
                    let fates = &mut self.fates;
                    let count = |fate| *fates.entry(fate).or_default() += 1;
                    admission.admit(&mut message, late, &mut self.ledger, count);
                    let said = now.coarse().saturating_sub(late.into());
                    if message.records.is_empty() {
                        continue;
                    }
                    if self.unknown.len() < MAX_UNKNOWN {
                        self.unknown.push_back((said, message));
                    } else {
                        self.forgotten.insert(peer);
                    }
                }
                Event::Complete => {
                    self.complete.retain(|one| *one != peer);
                    self.complete.push(peer);
                }
            }
        }
    }

    /// A change comes to one member before it comes to the other: what was said of what was not here then may be of use now.
    /// Says whether anything is here now that was not.
    fn try_again<S: Fn(u32) -> u32>(&mut self, admission: &Admission<'_, S>) -> bool {
        let now = admission.now;
        while self.unknown.front().is_some_and(|(said, _)| now.saturating_sub(*said) > MAX_UNKNOWN_SECONDS) {
            self.unknown.pop_front();
        }
        if std::mem::replace(&mut self.generation, admission.map.generation) == admission.map.generation {
            return false;
        }
        self.followed = None;
        let (fates, ledger) = (&mut self.fates, &mut self.ledger);
        self.unknown.retain_mut(|(said, message)| {
            let late = u32::try_from(now.saturating_sub(*said)).unwrap_or(u32::MAX);
            admission.admit(message, late, ledger, |fate| {
                // They were counted as unknown before.
                if fate == FlowFate::Taken {
                    *fates.entry(fate).or_default() += 1;
                }
            });
            !message.records.is_empty()
        });
        true
    }

    /// For how many seconds the maps have been there, 255 for that long or longer.
    pub fn age(&self, now: Moment) -> u8 {
        match (self.is_new, self.started) {
            (false, _) => u8::MAX,
            (true, None) => 0,
            (true, Some(started)) => {
                u8::try_from(now.boot.saturating_sub(started.boot).as_secs()).unwrap_or(u8::MAX)
            }
        }
    }

    fn follow<S: Fn(u32) -> u32>(&mut self, tables: &mut Tables<'_, S>, post: &Post, now: Moment) {
        let age = self.age(now);
        let view = View { words: tables.words, map: tables.map, now: now.coarse() };
        self.announcer.begin();
        // Who has been there longest is heard first.
        let mut peers: Vec<_> = self.told.iter_mut().collect();
        peers.sort_by_key(|(number, _)| std::cmp::Reverse(post.age(**number)));
        for (number, peer) in peers {
            // Those that have come together would take over from each other what neither knows.
            let adopts = age < ADOPT_SECONDS && post.age(*number) >= age.saturating_add(ADOPT_MARGIN);
            view.follow(peer, tables.world, &tables.states, adopts, &mut self.announcer);
        }
    }

    /// Where tables differ for longer than a change takes to get everywhere, peers tell each other all slots, to find those that
    /// do; and again when one of the tables has changed and they still do.
    fn compare(&mut self, map: &FleetMap, post: &Post, now: Moment) {
        for peer in post.up_peers() {
            let theirs = post.peer_tables(peer).unwrap_or_default();
            if theirs == map.tables {
                self.differs.remove(&peer);
                continue;
            }
            let (tables, now) = ((theirs, map.tables), now.coarse());
            let new = Differs { tables, since: now, is_told: false, told: None };
            let differs = self.differs.entry(peer).or_insert(new);
            if differs.tables != tables {
                // What was told was of others.
                *differs = Differs { told: differs.told, ..new };
            }
            let is_due = now.saturating_sub(differs.since) >= DIFFERS_SECONDS
                && differs.told.is_none_or(|told| now.saturating_sub(told) >= RETELL_SECONDS);
            if is_due && !differs.is_told {
                *differs = Differs { is_told: true, told: Some(now), ..*differs };
                self.snapshots.push(Snapshot::new(peer, true, None));
            }
        }
    }

    fn announce<S>(&mut self, tables: &Tables<'_, S>, post: &mut Post, now: Moment) {
        let view = View { words: tables.words, map: tables.map, now: now.coarse() };
        for (id, chunks) in self.announcer.retractions(tables.map) {
            self.version += 1;
            for body in wire::slots(id, self.version, &chunks) {
                post.send(None, Kind::Slots, body, 0);
            }
        }
        for service in &tables.map.services {
            let most = post.room().saturating_sub(RESERVE);
            if most == 0 {
                return;
            }
            let changed = self.announcer.changes(&view, service, tables.world, most);
            if changed.is_empty() {
                continue;
            }
            self.version += 1;
            for body in wire::slots(service.id, self.version, &changed) {
                post.send(None, Kind::Slots, body, 0);
            }
        }
    }

    fn tell_flows<S>(&mut self, tables: &Tables<'_, S>, post: &mut Post, now: Moment) {
        let Tables { words, world, map, .. } = tables;
        if self.place == 0 {
            let concerns = !self.has_passed || map.services.iter().any(|service| service.concerns(world));
            if !is_due(self.pass_began, FLOWS_PERIOD, now) || (!concerns && self.ledger.is_empty()) {
                return;
            }
            self.pass_began = Some(now);
        }
        let most = post.room().saturating_sub(RESERVE) * LEAST_RECORDS;
        let (bodies, place) = self.records(tables, self.place, most, false, now);
        let is_all = place >= words.flows.len();
        self.place = if is_all { 0 } else { place };
        self.has_passed |= is_all;
        if self.place == 0 && !map.services.iter().any(|service| service.keeps_ledger(world)) {
            self.ledger.clear();
        }
        for (body, count) in bodies {
            post.send(None, Kind::Flows, body, count as u64);
        }
    }

    /// Bodies with flows from `place` on, at most about so many, and the place behind them. `again`: also those that peers know.
    fn records<S>(
        &mut self,
        tables: &Tables<'_, S>,
        mut place: usize,
        most: usize,
        again: bool,
        now: Moment,
    ) -> (Vec<(Vec<u8>, usize)>, usize) {
        let Tables { words, world, map, .. } = tables;
        let restamped = tables.restamped.map(Moment::coarse);
        let teller = Teller { map, world, now: now.coarse(), restamped, is_first: !self.has_passed };
        let end = words.flows.len().min(place + BUDGET);
        let mut batches = Batches::default();
        let mut found = 0;
        while place < end && found < most {
            let word = words.flows.get(place).map_or(0, |word| word.load(Ordering::Acquire));
            if !again {
                let told = self.ledger.told(place);
                if told.state() != FLOW_EMPTY {
                    let kept = map.backend(told.index()).map_or(0, |(service, ..)| Self::kept(service.idle));
                    self.ledger.settle(place, FlowEntry::from_word(word), now.coarse(), kept);
                }
            }
            if let Some((service, record)) = teller.record(place, word, &self.ledger, again) {
                if !again {
                    self.ledger.note(place, FlowEntry::from_word(word));
                }
                batches.push(service, record);
                found += 1;
            }
            place += 1;
        }
        (batches.bodies(map, words.flows.len() / ENTRIES), place)
    }

    fn snapshots<S>(&mut self, tables: &Tables<'_, S>, post: &mut Post, now: Moment) {
        let mut snapshots = std::mem::take(&mut self.snapshots);
        snapshots.retain_mut(|snapshot| !self.go_on(snapshot, tables, post, now));
        self.snapshots = snapshots;
    }

    /// Sends some more of a snapshot; says whether that was all.
    fn go_on<S>(
        &mut self,
        snapshot: &mut Snapshot,
        tables: &Tables<'_, S>,
        post: &mut Post,
        now: Moment,
    ) -> bool {
        let Tables { words, world, map, .. } = tables;
        let peer = snapshot.peer;
        let view = View { words: *words, map, now: now.coarse() };
        if snapshot.next.is_some()
            && std::mem::replace(&mut snapshot.generation, map.generation) != map.generation
        {
            snapshot.next = Some((0, 0));
        }
        while let Some((number, chunk)) = snapshot.next {
            // A body has room for one chunk at least, of whatever many backends.
            let most = post.room_of(peer).saturating_sub(RESERVE);
            if most == 0 {
                return false;
            }
            let Some(service) = map.services.get(number) else {
                snapshot.next = None;
                break;
            };
            let (chunks, next) =
                view.chunks(service, world, chunk, most, snapshot.all_slots, &self.announcer);
            snapshot.next = Some(next.map_or((number + 1, 0), |next| (number, next)));
            self.version += 1;
            for body in wire::slots(service.id, self.version, &chunks) {
                post.send(Some(peer), Kind::Slots, body, 0);
            }
        }
        let Some(place) = snapshot.place else { return true };
        let most = post.room_of(peer).saturating_sub(RESERVE) * LEAST_RECORDS;
        let (bodies, place) = self.records(tables, place, most, true, now);
        snapshot.place = Some(place);
        for (body, count) in bodies {
            post.send(Some(peer), Kind::Flows, body, count as u64);
        }
        let is_all = place >= words.flows.len();
        if is_all {
            post.complete(peer);
        }
        is_all
    }
}

/// Whether so long has passed since.
fn is_due(last: Option<Moment>, period: Duration, now: Moment) -> bool {
    last.is_none_or(|last| now.boot.saturating_sub(last.boot) >= period)
}

/// Between two looks at all slots, and two passes over all flows.
const SLOTS_PERIOD: Duration = Duration::from_millis(250);
const FLOWS_PERIOD: Duration = Duration::from_millis(250);
/// Places of the flow table that one step looks at.
const BUDGET: usize = 1 << 20;
/// Bodies for which room is left in a peer's queue.
const RESERVE: usize = 128;
/// Messages about what is not here that are kept, some 4 MB of them, and for how long.
const MAX_UNKNOWN: usize = 2048;
const MAX_UNKNOWN_SECONDS: u64 = 300;
/// Records that a body holds at least where there are more.
const LEAST_RECORDS: usize = 25;
/// A new load balancer waits for so long for a peer to be there, and for so long for all that it has.
const FIND_SECONDS: u64 = 5;
const JOIN_SECONDS: u64 = 30;
/// And for so long it sends flows of which it knows nothing where peers do.
const ADOPT_SECONDS: u8 = 60;
/// Who has its maps for so many seconds longer was there before.
const ADOPT_MARGIN: u8 = 4;
/// After so long differing tables are more than a change on its way.
const DIFFERS_SECONDS: u64 = 3;
/// And at least so long after that they are not looked for again.
const RETELL_SECONDS: u64 = 10;
/// Between two looks at what peers have said where nothing is new; what that holds is held for longer.
const FOLLOW_PERIOD: Duration = Duration::from_secs(1);
