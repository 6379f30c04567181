//! What goes to a peer next, and when.

use std::{sync::Arc, time::Duration};

use super::Link;
use crate::peers::wire::{Ack, Hello, Kind};

/// What hellos say of this load balancer.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::peers) struct Own {
    pub(in crate::peers) tables: u64,
    pub(in crate::peers) age: u8,
}

/// A datagram to be.
pub(in crate::peers) struct Parcel {
    pub(in crate::peers) kind: Kind,
    pub(in crate::peers) session: u64,
    pub(in crate::peers) sequence: u64,
    pub(in crate::peers) held: Duration,
    pub(in crate::peers) body: Arc<[u8]>,
}

impl Link {
    /// What to send next. `rate` is in bytes a second, and of replication alone.
    pub(in crate::peers) fn next(&mut self, own: Own, rate: f64, now: Duration) -> Option<Parcel> {
        let Own { tables, age } = own;
        let (life, hears) = (self.life, self.theirs.unwrap_or_default());
        let hello = |offer| Hello { life, hears, offer, tables, age };
        if let Some(session) = self.strangers.answer(now) {
            let hello = hello(self.receiving.offer(false));
            return Some(self.parcel_in(session, Kind::Hello, hello.encode().into(), Duration::ZERO));
        }
        if now >= self.hello_due {
            self.hello_due = now + HELLO_INTERVAL;
            let session = self.asked_in();
            let hello = hello(self.receiving.offer(session != 0));
            return Some(self.parcel_in(session, Kind::Hello, hello.encode().into(), Duration::ZERO));
        }
        if !self.is_up {
            return None;
        }
        if !self.acks.is_empty() {
            let sequences = self.acks.drain(..self.acks.len().min(Ack::MOST)).collect();
            let ack = Ack { session: self.receiving.offer(true), sequences };
            return Some(self.parcel(Kind::Ack, ack.encode().into(), Duration::ZERO));
        }
        let (outgoing, tries) = self.outbox.next(rate, now)?;
        let held = now.saturating_sub(outgoing.made);
        let parcel = self.parcel(outgoing.kind, Arc::clone(&outgoing.body), held);
        self.outbox.sent(parcel.sequence, outgoing, tries, now);
        self.counts.repeated += u64::from(tries > 0);
        Some(parcel)
    }

    /// The session of the next hello. Whoever is not heard may be another process that knows of none, and may be kept from being
    /// looked at by others who use its address; or it is us of whom that is so. It is asked in both ways, in turn.
    fn asked_in(&mut self) -> u64 {
        let is_heard = self.theirs.is_some();
        let as_stranger = !is_heard && self.asks_anew;
        self.asks_anew = !is_heard && !as_stranger;
        if as_stranger { 0 } else { self.session }
    }

    /// When there may be something to send if nothing comes.
    pub(in crate::peers) fn wake(&self, rate: f64, now: Duration) -> Duration {
        if self.strangers.wait() || !self.acks.is_empty() {
            return now;
        }
        let outbox = if self.is_up { self.outbox.wake(rate) } else { None };
        outbox.map_or(self.hello_due, |due| due.min(self.hello_due))
    }

    fn parcel(&mut self, kind: Kind, body: Arc<[u8]>, held: Duration) -> Parcel {
        self.parcel_in(self.session, kind, body, held)
    }

    fn parcel_in(&mut self, session: u64, kind: Kind, body: Arc<[u8]>, held: Duration) -> Parcel {
        self.sequence += 1;
        Parcel { kind, session, sequence: self.sequence, held, body }
    }
}

/// How often a peer is told that we live.
pub(super) const HELLO_INTERVAL: Duration = Duration::from_secs(1);
