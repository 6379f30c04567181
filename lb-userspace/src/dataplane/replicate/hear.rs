//! What peers say, taken in.

use super::{ADOPT_SECONDS, Replicator, Tables, flows::Admission, slots::Scope, snapshot::Snapshot};
use crate::{
    dataplane::scan::Moment,
    peers::{Event, FlowFate, Post},
};

impl Replicator {
    pub(super) fn hear<S: Fn(u32) -> u32>(&mut self, tables: &Tables<'_, S>, post: &mut Post, now: Moment) {
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
        self.told.retain(|_, peer| peer.silence(now.coarse()) <= MEMORY_SECONDS);
        // Flows that peers took for told may be forgotten here.
        if std::mem::replace(&mut self.patience, tables.map.patience) != tables.map.patience {
            post.all_peers().for_each(|peer| post.ask_anew(peer));
        }
        for (peer, event) in post.events() {
            match event {
                Event::Up => {
                    // A window that goes on is no new one; of maps that were made meanwhile all are.
                    match self.told.get_mut(&peer) {
                        Some(told) if told.is_of_maps(post.age(peer), now.coarse()) => told.begin_anew(),
                        _ => drop(self.told.remove(&peer)),
                    }
                    // It waits for its snapshot.
                    self.searched = None;
                    self.differs.remove(&peer);
                    self.complete.remove(&peer);
                    self.snapshots.retain(|snapshot| snapshot.peer != peer);
                    // A new one may have windows of its own in slots that are the same.
                    let scope = match post.peer_tables(peer) == Some(tables.map.tables) {
                        _ if post.age(peer) < ADOPT_SECONDS => Scope::Newcomer,
                        true => Scope::Concerning,
                        false => Scope::All,
                    };
                    self.snapshots.push(Snapshot::new(peer, scope, Some(0)));
                }
                Event::Down => {
                    // Slots are held for as long as its flows may come here.
                    self.told.entry(peer).or_default().lapse(now.coarse());
                    self.snapshots.retain(|snapshot| snapshot.peer != peer);
                }
                // Also of a service that is not here yet.
                Event::Slots(message) => {
                    self.told.entry(peer).or_default().take(&message);
                    self.followed = None;
                    self.has_new_slots = true;
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
                    self.complete.insert(peer);
                    self.told.entry(peer).or_default().forget_lapsed();
                }
            }
        }
        for peer in post.up_peers() {
            self.told.entry(peer).or_default().note_age(post.age(peer));
        }
    }

    /// A change comes to one member before it comes to the other: what was said of what was not here then may be of use now.
    /// Says whether anything is here now that was not.
    pub(super) fn try_again<S: Fn(u32) -> u32>(&mut self, admission: &Admission<'_, S>) -> bool {
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
}

/// Messages about what is not here that are kept, some 4 MB of them, and for how long.
pub(super) const MAX_UNKNOWN: usize = 2048;
const MAX_UNKNOWN_SECONDS: u64 = 300;
/// What silent peers have said is known for so long: less than ages of maps can say.
const MEMORY_SECONDS: u64 = 240;
