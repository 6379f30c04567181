//! What is to go to a peer, and what it has not taken yet.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::peers::wire::{HEADER, Kind, TAG};

/// A body on its way.
#[derive(Clone, Debug)]
pub(in crate::peers) struct Outgoing {
    pub(in crate::peers) kind: Kind,
    pub(in crate::peers) body: Arc<[u8]>,
    pub(in crate::peers) made: Duration,
}

#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Outgoing>,
    /// By sequence number.
    in_flight: BTreeMap<u64, InFlight>,
    /// Since when the peer has taken nothing of what is on its way.
    waits_since: Option<Duration>,
    /// Bytes that may be sent now, and since when.
    credit: f64,
    credited: Duration,
    /// When all that the peer is to have has been handed over: the last of it is told.
    completes: bool,
}

#[derive(Debug)]
struct InFlight {
    outgoing: Outgoing,
    sent: Duration,
    tries: u32,
}

impl Outbox {
    pub(super) const fn new(now: Duration) -> Self {
        Self {
            queue: VecDeque::new(),
            in_flight: BTreeMap::new(),
            waits_since: None,
            credit: 0.0,
            credited: now,
            completes: false,
        }
    }

    pub(super) fn push(&mut self, outgoing: Outgoing) {
        self.queue.push_back(outgoing);
    }

    /// Says at its end that it was all.
    pub(super) const fn complete(&mut self) {
        self.completes = true;
    }

    /// Bodies that there is room for.
    pub(super) fn room(&self) -> usize {
        MAX_QUEUE.saturating_sub(self.queue.len())
    }

    /// Bodies that the peer has not taken yet.
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }

    /// Whether the peer takes nothing, however often it is sent.
    pub(super) fn is_stuck(&self) -> bool {
        self.in_flight.values().any(|one| one.tries > MOST_TRIES)
    }

    /// Whether the peer has taken nothing for longer than what is on its way takes.
    pub(super) fn is_stalled(&self, now: Duration) -> bool {
        self.waits_since.is_some_and(|since| now.saturating_sub(since) > STALLED_AFTER)
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.in_flight.clear();
        self.waits_since = None;
        self.completes = false;
    }

    /// What was on its way is to be sent anew.
    pub(super) fn take_back(&mut self) {
        let lost = std::mem::take(&mut self.in_flight).into_values().rev();
        lost.for_each(|one| self.queue.push_front(one.outgoing));
        self.waits_since = None;
    }

    pub(super) fn has_come(&mut self, sequence: u64, now: Duration) {
        self.in_flight.remove(&sequence);
        self.waits_since = (!self.in_flight.is_empty()).then_some(now);
    }

    /// What to send now, and how often it was sent before. `rate` is in bytes a second. [`Self::sent`] has to follow.
    pub(super) fn next(&mut self, rate: f64, now: Duration) -> Option<(Outgoing, u32)> {
        self.credit += now.saturating_sub(self.credited).as_secs_f64() * rate;
        self.credit = self.credit.min((rate * BURST).max(LEAST_BURST));
        self.credited = now;
        if self.credit < 0.0 {
            return None;
        }
        let late = |one: &InFlight| now >= one.due();
        let again = self.in_flight.iter().find(|(_, one)| late(one)).map(|(sequence, _)| *sequence);
        match again.and_then(|sequence| self.in_flight.remove(&sequence)) {
            Some(lost) => Some((lost.outgoing, lost.tries + 1)),
            None if self.may_go_on() => Some((self.queue.pop_front()?, 0)),
            None if self.is_at_its_end() => {
                self.completes = false;
                Some((Outgoing { kind: Kind::Complete, body: Arc::from([]), made: now }, 0))
            }
            None => None,
        }
    }

    /// It has left under this number.
    pub(super) fn sent(&mut self, sequence: u64, outgoing: Outgoing, tries: u32, now: Duration) {
        self.credit -= (outgoing.body.len() + HEADER + TAG) as f64;
        self.waits_since.get_or_insert(now);
        self.in_flight.insert(sequence, InFlight { outgoing, sent: now, tries });
    }

    /// When there may be something to send if nothing comes.
    pub(super) fn wake(&self, rate: f64) -> Option<Duration> {
        let credited = self.credited + Duration::from_secs_f64((-self.credit).max(0.0) / rate);
        let next = (self.may_go_on() || self.is_at_its_end()).then_some(credited);
        let again = self.in_flight.values().map(InFlight::due).min().map(|due| due.max(credited));
        [next, again].into_iter().flatten().min()
    }

    fn may_go_on(&self) -> bool {
        !self.queue.is_empty() && self.in_flight.len() < WINDOW
    }

    fn is_at_its_end(&self) -> bool {
        self.completes && self.in_flight.is_empty() && self.queue.is_empty()
    }
}

impl InFlight {
    fn due(&self) -> Duration {
        self.sent + FIRST_REPEAT * if self.tries == 0 { 1 } else { 2 }
    }
}

/// What is not acknowledged is sent again, the next times after twice as long: how much is sent is bounded anyway.
const FIRST_REPEAT: Duration = Duration::from_millis(250);
/// After so many tries, some ten seconds of them, whoever takes nothing is given up.
const MOST_TRIES: u32 = 20;
/// Longer than a lost datagram takes to be there after all.
const STALLED_AFTER: Duration = Duration::from_millis(400);
/// Datagrams that may be on their way: at 50 Mbit/s those of 50 ms.
const WINDOW: usize = 256;
/// Bodies that may wait for their turn.
pub const MAX_QUEUE: usize = 1024;
/// Seconds whose bytes may be sent at once, and bytes that always may.
const BURST: f64 = 0.02;
const LEAST_BURST: f64 = 2400.0;
