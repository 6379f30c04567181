//! What peers are told of slots and flows that are here.

use std::{sync::atomic::Ordering, time::Duration};

use lb_common::abi::{FLOW_EMPTY, FlowEntry};

use super::{
    Replicator, Tables,
    flows::{Batches, Teller},
    is_due,
    slots::View,
};
use crate::{
    dataplane::scan::{ENTRIES, Moment},
    peers::{
        MAX_QUEUE, PeerId, Post,
        wire::{self, Chunk, Kind, ServiceId},
    },
};

impl Replicator {
    /// Says whether there was room for all.
    pub(super) fn announce<S>(&mut self, tables: &Tables<'_, S>, post: &mut Post, now: Moment) -> bool {
        let view = View { words: tables.words, map: tables.map, now: now.coarse() };
        for (id, chunks) in self.announcer.retractions(tables.map) {
            self.tell_slots(post, None, id, &chunks);
        }
        let mut is_all = true;
        for service in &tables.map.services {
            let most = post.room().saturating_sub(RESERVE);
            if most == 0 {
                return false;
            }
            let changed = self.announcer.changes(&view, service, tables.world, most);
            if changed.is_empty() {
                continue;
            }
            is_all &= changed.len() < most;
            self.tell_slots(post, None, service.id, &changed);
        }
        is_all
    }

    /// Brings chunks of a service to one peer, or to all.
    pub(super) fn tell_slots(
        &mut self,
        post: &mut Post,
        to: Option<PeerId>,
        service: ServiceId,
        chunks: &[Chunk],
    ) {
        self.version += 1;
        for body in wire::slots(service, self.version, chunks) {
            post.send(to, Kind::Slots, body, 0);
        }
    }

    /// Flows that were confirmed just now. Those for which there is no room are found later, by a pass, which packs them better: it
    /// has half of the queue, with slots, that these may not take.
    pub(super) fn tell_news<S>(
        &mut self,
        tables: &Tables<'_, S>,
        news: &[u32],
        post: &mut Post,
        now: Moment,
    ) {
        if news.is_empty() {
            return;
        }
        let most = post.least_room().saturating_sub(MAX_QUEUE / 2);
        let places = news.iter().flat_map(|bucket| {
            let first = *bucket as usize * ENTRIES;
            first..first + ENTRIES
        });
        let (bodies, _) = self.gather(tables, places, most, false, now);
        send_flows(post, None, bodies);
    }

    pub(super) fn tell_flows<S>(&mut self, tables: &Tables<'_, S>, post: &mut Post, now: Moment) {
        let Tables { words, world, map, .. } = tables;
        if self.place == 0 {
            let concerns = !self.has_passed || map.services.iter().any(|service| service.concerns(world));
            if !is_due(self.pass_began, FLOWS_PERIOD, now) || (!concerns && self.ledger.is_empty()) {
                return;
            }
            self.pass_began = Some(now);
        }
        let most = post.room().saturating_sub(RESERVE);
        let (bodies, place) = self.records(tables, self.place, most, false, now);
        let is_all = place >= words.flows.len();
        self.place = if is_all { 0 } else { place };
        self.has_passed |= is_all;
        if self.place == 0 && !map.services.iter().any(|service| service.keeps_ledger(world)) {
            self.ledger.clear();
        }
        send_flows(post, None, bodies);
    }

    /// At most so many bodies with flows from `place` on, and the place behind them. `again`: also those that peers know.
    pub(super) fn records<S>(
        &mut self,
        tables: &Tables<'_, S>,
        place: usize,
        most: usize,
        again: bool,
        now: Moment,
    ) -> (Vec<(Vec<u8>, usize)>, usize) {
        let end = tables.words.flows.len().min(place + BUDGET);
        let (bodies, looked_at) = self.gather(tables, place..end, most, again, now);
        (bodies, place + looked_at)
    }

    /// The same of these places; how many were looked at.
    fn gather<S>(
        &mut self,
        tables: &Tables<'_, S>,
        places: impl Iterator<Item = usize>,
        most: usize,
        again: bool,
        now: Moment,
    ) -> (Vec<(Vec<u8>, usize)>, usize) {
        let Tables { words, world, map, .. } = tables;
        let restamped = tables.restamped.map(Moment::coarse);
        let teller = Teller { map, world, now: now.coarse(), restamped, is_first: !self.has_passed };
        let mut batches = Batches::new(most, words.flows.len() / ENTRIES);
        let mut looked_at = 0;
        for place in places {
            let word = words.flows.get(place).map_or(0, |word| word.load(Ordering::Acquire));
            if !again {
                let told = self.ledger.told(place);
                if told.state() != FLOW_EMPTY {
                    let kept = map.backend(told.index()).map_or(0, |(service, ..)| Self::kept(service.idle));
                    self.ledger.settle(place, FlowEntry::from_word(word), now.coarse(), kept);
                }
            }
            if let Some((number, record)) = teller.record(place, word, &self.ledger, again)
                && let Some(service) = map.services.get(number)
            {
                if !batches.push(number, service, &record) {
                    break;
                }
                if !again {
                    self.ledger.note(place, FlowEntry::from_word(word));
                }
            }
            looked_at += 1;
        }
        (batches.finish(), looked_at)
    }
}

/// Brings bodies, each with the number of flows in it, to one peer, or to all.
pub(super) fn send_flows(post: &mut Post, to: Option<PeerId>, bodies: Vec<(Vec<u8>, usize)>) {
    for (body, count) in bodies {
        post.send(to, Kind::Flows, body, count as u64);
    }
}

/// Between two passes over all flows.
const FLOWS_PERIOD: Duration = Duration::from_millis(250);
/// Places of the flow table that one step looks at.
const BUDGET: usize = 1 << 20;
/// Bodies for which room is left in a peer's queue.
pub(super) const RESERVE: usize = 128;
