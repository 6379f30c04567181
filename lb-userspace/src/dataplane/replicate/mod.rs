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
    collections::{BTreeMap, HashMap, VecDeque},
    sync::atomic::Ordering,
    time::Duration,
};

use lb_common::abi::FlowEntry;

use super::scan::{Moment, Words, World};
use crate::peers::{
    Event, FlowFate, PeerId, Post,
    wire::{self, Flows, Kind},
};
use flows::{Admission, Batches, ENTRIES, Teller};
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
    /// Of the map that these were tried with.
    generation: u64,
    started: Option<Moment>,
    is_new: bool,
    is_joining: bool,
    /// Whether a whole pass over the flows was made.
    has_passed: bool,
    /// By peer: since when its tables differ, and whether it has been told all slots since.
    differs: HashMap<PeerId, (u64, bool)>,
    pub fates: BTreeMap<FlowFate, u64>,
}

/// What a peer is sent when it comes: all that the others have got already.
#[derive(Debug)]
struct Snapshot {
    peer: PeerId,
    /// Next service; `None` when slots are told.
    service: Option<usize>,
    /// Whether slots that are not tracked are told, too.
    all_slots: bool,
    /// Next place in the flow table; `None` where flows are not asked for.
    place: Option<usize>,
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
        let lacks = |peer: PeerId| !self.complete.contains(&peer);
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
        let is_due =
            self.slots_looked_at.is_none_or(|last| now.boot.saturating_sub(last.boot) >= SLOTS_PERIOD);
        if is_due {
            self.slots_looked_at = Some(now);
            self.follow(tables, now);
            self.compare(tables.map, post, now);
        }
        // Also where nobody listens: whoever comes gets a snapshot, and then what has changed since.
        if is_due {
            self.announce(tables, post, now);
        }
        self.tell_flows(tables, post, now);
        self.snapshots(tables, post, now);
        self.look_whether_all_is_heard(post, now);
    }

    fn hear<S: Fn(u32) -> u32>(&mut self, tables: &Tables<'_, S>, post: &mut Post, now: Moment) {
        let admission = Admission {
            map: tables.map,
            words: tables.words.flows,
            states: &tables.states,
            now: now.coarse(),
            restamped: tables.restamped.map(Moment::coarse),
        };
        self.try_again(&admission);
        for (peer, event) in post.events() {
            match event {
                Event::Up => {
                    self.told.remove(&peer);
                    self.differs.remove(&peer);
                    self.complete.retain(|one| *one != peer);
                    self.snapshots.retain(|snapshot| snapshot.peer != peer);
                    let all_slots = post.peer_tables(peer) != Some(tables.map.tables);
                    self.snapshots.push(Snapshot { peer, service: Some(0), all_slots, place: Some(0) });
                }
                Event::Down => {
                    // What it said holds for as long as its flows may come here.
                    self.told.remove(&peer);
                    self.snapshots.retain(|snapshot| snapshot.peer != peer);
                }
                // Also of a service that is not here yet.
                Event::Slots(message) => self.told.entry(peer).or_default().take(&message),
                Event::Flows(mut message, late) => {
                    let fates = &mut self.fates;
                    let count = |fate| *fates.entry(fate).or_default() += 1;
                    admission.admit(&mut message, late, &mut self.ledger, count);
                    let said = now.coarse().saturating_sub(late.into());
                    if !message.records.is_empty() && self.unknown.len() < MAX_UNKNOWN {
                        self.unknown.push_back((said, message));
                    }
                }
                Event::Complete => self.complete.push(peer),
            }
        }
    }

    /// A change comes to one member before it comes to the other: what was said of what was not here then may be of use now.
    fn try_again<S: Fn(u32) -> u32>(&mut self, admission: &Admission<'_, S>) {
        let now = admission.now;
        while self.unknown.front().is_some_and(|(said, _)| now.saturating_sub(*said) > MAX_UNKNOWN_SECONDS) {
            self.unknown.pop_front();
        }
        if std::mem::replace(&mut self.generation, admission.map.generation) == admission.map.generation {
            return;
        }
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
    }

    fn follow<S: Fn(u32) -> u32>(&mut self, tables: &mut Tables<'_, S>, now: Moment) {
        let adopts = self.is_new
            && self
                .started
                .is_none_or(|started| now.boot.saturating_sub(started.boot).as_secs() < ADOPT_SECONDS);
        let view = View { words: tables.words, map: tables.map, now: now.coarse() };
        self.announcer.begin();
        for peer in self.told.values_mut() {
            view.follow(peer, tables.world, &tables.states, adopts, &mut self.announcer);
        }
    }

    /// Where tables differ for longer than a change takes to get everywhere, peers tell each other all slots, to find those that
    /// do.
    fn compare(&mut self, map: &FleetMap, post: &Post, now: Moment) {
        for peer in post.up_peers() {
            if post.peer_tables(peer) == Some(map.tables) {
                self.differs.remove(&peer);
                continue;
            }
            let (since, told) = self.differs.entry(peer).or_insert((now.coarse(), false));
            if !*told && now.coarse().saturating_sub(*since) >= DIFFERS_SECONDS {
                *told = true;
                self.snapshots.push(Snapshot { peer, service: Some(0), all_slots: true, place: None });
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
            let is_due =
                self.pass_began.is_none_or(|last| now.boot.saturating_sub(last.boot) >= FLOWS_PERIOD);
            if !is_due || (!concerns && self.ledger.is_empty()) {
                return;
            }
            self.pass_began = Some(now);
        }
        let most = post.room().saturating_sub(RESERVE) * LEAST_RECORDS;
        let (bodies, place) = self.records(tables, self.place, most, false, now);
        self.place = if place >= words.flows.len() { 0 } else { place };
        self.has_passed |= self.place == 0;
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
        while let Some(number) = snapshot.service {
            // A service's chunks are sent together: as many as the largest takes must not fill the queue for ever.
            if post.room_of(peer) < RESERVE {
                return false;
            }
            let Some(service) = map.services.get(number) else {
                snapshot.service = None;
                break;
            };
            snapshot.service = Some(number + 1);
            let chunks = view.chunks(service, world, snapshot.all_slots, &self.announcer);
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
const FIND_SECONDS: u64 = 3;
const JOIN_SECONDS: u64 = 30;
/// And for so long it sends flows of which it knows nothing where peers do.
const ADOPT_SECONDS: u64 = 60;
/// After so long differing tables are more than a change on its way.
const DIFFERS_SECONDS: u64 = 3;
