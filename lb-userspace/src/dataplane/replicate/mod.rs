//! Flow replication: what peers have to know of slots and flows, and what is done with what they say
//! (docs/flow-replication.md). Works on the maps' words and takes the time as a value, as the scan does.

mod differs;
mod flows;
mod follow;
mod hear;
mod holds;
mod ledger;
mod map;
mod slots;
mod snapshot;
mod tell;
#[cfg(test)]
mod tests;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use super::scan::{Moment, Words, World};
use crate::peers::{FlowFate, PeerId, Post, wire::Flows};
use differs::Differs;
use follow::How;
pub use holds::{Hold, Holds};
use ledger::Ledger;
pub use map::FleetMap;
use slots::{Announcer, View};
use snapshot::Snapshot;
use told::PeerSlots;

/// Keeps peers' slots and flow tables in step with this load balancer's.
#[derive(Debug)]
pub struct Replicator {
    ledger: Ledger,
    announcer: Announcer,
    told: BTreeMap<PeerId, PeerSlots>,
    snapshots: Vec<Snapshot>,
    /// Peers that have sent all that they had.
    complete: BTreeSet<PeerId>,
    /// Next place in the flow table.
    place: usize,
    pass_began: Option<Moment>,
    slots_looked_at: Option<Moment>,
    /// When flows were looked for that nobody told of.
    searched: Option<Moment>,
    /// Of the map of which all slots were told.
    told_of: u64,
    /// Whether a peer has said of slots what was not looked at yet.
    has_new_slots: bool,
    version: u64,
    /// What peers have said of services and backends that were not here, and when.
    unknown: VecDeque<(u64, Flows)>,
    /// Peers of whom there was no room to keep such words.
    forgotten: BTreeSet<PeerId>,
    /// When slots were followed last; `None`: there is something new to follow.
    followed: Option<Moment>,
    /// Of the map that these were tried with.
    generation: u64,
    /// See [`FleetMap`].
    patience: u64,
    started: Option<Moment>,
    is_new: bool,
    is_joining: bool,
    /// Whether a whole pass over the flows was made.
    has_passed: bool,
    differs: HashMap<PeerId, Differs>,
    pub fates: BTreeMap<FlowFate, u64>,
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
            complete: BTreeSet::new(),
            place: 0,
            pass_began: None,
            slots_looked_at: None,
            searched: None,
            told_of: 0,
            has_new_slots: false,
            version: 0,
            unknown: VecDeque::new(),
            forgotten: BTreeSet::new(),
            followed: None,
            generation: 0,
            patience: 0,
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

    fn follow<S: Fn(u32) -> u32>(&mut self, tables: &mut Tables<'_, S>, post: &Post, now: Moment) {
        let age = self.age(now);
        let view = View { words: tables.words, map: tables.map, now: now.coarse() };
        self.announcer.begin();
        self.has_new_slots = false;
        // Who has been there longest is heard first.
        let mut peers: Vec<_> = self.told.iter_mut().collect();
        peers.sort_by_key(|(number, _)| std::cmp::Reverse(post.age(**number)));
        for (number, peer) in peers {
            // Those that have come together would take over from each other what neither knows.
            let adopts = age < ADOPT_SECONDS && post.age(*number) >= age.saturating_add(ADOPT_MARGIN);
            view.follow(
                peer,
                tables.world,
                &tables.states,
                How { adopts, ..How::default() },
                &mut self.announcer,
            );
        }
    }

    /// Tracks what peers have only just said that they track: flows come with it. All else can wait.
    fn follow_new<S: Fn(u32) -> u32>(&mut self, tables: &mut Tables<'_, S>, now: Moment) {
        if !std::mem::take(&mut self.has_new_slots) {
            return;
        }
        let view = View { words: tables.words, map: tables.map, now: now.coarse() };
        let how = How { only_fresh: true, ..How::default() };
        for peer in self.told.values_mut() {
            view.follow(peer, tables.world, &tables.states, how, &mut self.announcer);
        }
    }

    /// Does the work that is due, and at once what others wait for: what peers have said is done, slots that a change has opened
    /// and flows in the buckets `news` are told. To be called every 100 ms, after a step of the scan, and whenever there is something
    /// of that.
    pub fn step<S: Fn(u32) -> u32>(
        &mut self,
        tables: &mut Tables<'_, S>,
        news: &[u32],
        post: &mut Post,
        now: Moment,
    ) {
        if post.has_begun() {
            self.started.get_or_insert(now);
        }
        self.hear(tables, post, now);
        let mut tells_slots = self.told_of != tables.map.generation;
        if is_due(self.slots_looked_at, SLOTS_PERIOD, now) {
            tells_slots = true;
            self.slots_looked_at = Some(now);
            if is_due(self.followed, FOLLOW_PERIOD, now) {
                self.followed = Some(now);
                self.follow(tables, post, now);
            }
            // What it has heard it has also done.
            self.look_whether_all_is_heard(post, now);
            self.compare(tables.map, post, now);
        } else {
            self.follow_new(tables, now);
        }
        // Also where nobody listens: whoever comes gets a snapshot, and then what has changed since.
        if tells_slots && self.announce(tables, post, now) {
            self.told_of = tables.map.generation;
        }
        self.tell_news(tables, news, post, now);
        if is_due(self.searched, SEARCH_PERIOD, now) {
            self.searched = Some(now);
            self.tell_flows(tables, post, now);
            self.snapshots(tables, post, now);
        }
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
}

/// Whether so long has passed since.
fn is_due(last: Option<Moment>, period: Duration, now: Moment) -> bool {
    last.is_none_or(|last| now.boot.saturating_sub(last.boot) >= period)
}

/// Between two looks at all slots, and two passes over all flows.
const SLOTS_PERIOD: Duration = Duration::from_millis(250);
/// Between two turns of what takes some milliseconds: passes over flows, and snapshots.
const SEARCH_PERIOD: Duration = Duration::from_millis(90);
/// A new load balancer waits for so long for a peer to be there, and for so long for all that it has.
const FIND_SECONDS: u64 = 5;
const JOIN_SECONDS: u64 = 30;
/// And for so long it sends flows of which it knows nothing where peers do.
const ADOPT_SECONDS: u8 = 60;
/// Who has its maps for so many seconds longer was there before.
const ADOPT_MARGIN: u8 = 4;
/// Between two looks at what peers have said where nothing is new; what that holds is held for longer.
const FOLLOW_PERIOD: Duration = Duration::from_secs(1);
