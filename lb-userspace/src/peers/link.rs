//! One peer: sessions, life and death, what is on its way to it and what it has taken. No socket, no clock.

mod delay;
mod outbox;
mod send;
mod strangers;

use std::{net::SocketAddr, time::Duration};

use super::{
    counts::LinkCounts,
    session::{Freshness, Receiving},
    wire::{Ack, Hello},
};
use delay::Quickest;
pub use outbox::MAX_QUEUE;
use outbox::Outbox;
pub(super) use outbox::Outgoing;
use send::HELLO_INTERVAL;
pub(super) use send::{Own, Parcel};
use strangers::Strangers;

/// What is known of a peer and goes between it and us.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) address: SocketAddr,
    pub(super) receiving: Receiving,
    /// The session to use towards it, 0 while it is unknown. Sequence numbers go on from one to the next.
    session: u64,
    sequence: u64,
    /// Which life of our end this is.
    life: u64,
    /// The peer's; `None` while it is not heard.
    theirs: Option<u64>,
    /// The sequence number of the newest hello in this session.
    greeted: u64,
    /// When it last proved that it lives.
    pub(super) heard: Option<Duration>,
    /// It hears us, and we hear it.
    pub(super) is_up: bool,
    pub(super) tables: Option<u64>,
    /// Of its maps, in seconds.
    pub(super) age: u8,
    /// It says, without proof, that its hash key has another fingerprint.
    pub(super) claims_other_key: Option<Duration>,
    hello_due: Duration,
    /// The next hello to somebody who is not heard asks as if there were no session.
    asks_anew: bool,
    outbox: Outbox,
    acks: Vec<u64>,
    quickest: Quickest,
    strangers: Strangers,
    pub(super) counts: LinkCounts,
}

/// What a hello has brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeted {
    Nothing,
    /// It is there, and has nothing of ours.
    Up,
    /// It does not hear us any more.
    Down,
}

impl Link {
    pub(super) fn new(address: SocketAddr, spare: u64, life: u64, now: Duration) -> Self {
        Self {
            address,
            receiving: Receiving::new(spare),
            session: 0,
            sequence: 0,
            life,
            theirs: None,
            greeted: 0,
            heard: None,
            is_up: false,
            tables: None,
            age: 0,
            claims_other_key: None,
            hello_due: now,
            asks_anew: false,
            outbox: Outbox::new(now),
            acks: Vec::new(),
            quickest: Quickest::default(),
            strangers: Strangers::default(),
            counts: LinkCounts::default(),
        }
    }

    /// Whether a hello that may be anybody's is looked at.
    pub(super) fn may_doubt(&mut self, now: Duration) -> bool {
        self.strangers.may_be_looked_at(now)
    }

    /// A hello that may be anybody's, recorded: its sender is told how to prove that it is not, a few times a second. Says whether
    /// it is not our own, thrown back.
    pub(super) fn doubt(&mut self, hello: Hello, now: Duration) -> bool {
        self.strangers.ask(hello.offer, now);
        hello.life != self.life
    }

    /// It uses a session that there is none of: it may not know that we are another process, and is told. Anybody can bring that
    /// about, so it does not count while the peer is heard.
    pub(super) fn estranged(&mut self, now: Duration) {
        let is_heard = self.heard.is_some_and(|heard| now.saturating_sub(heard) < HELLO_INTERVAL);
        if !is_heard {
            self.strangers.ask(0, now);
        }
    }

    /// Whether a hello says what is so now: one that others of the session have overtaken does not.
    pub(super) fn is_newest(&mut self, sequence: u64, begins: bool) -> bool {
        let is_newest = begins || sequence > self.greeted;
        if is_newest {
            self.greeted = sequence;
        }
        is_newest
    }

    /// A hello that is new. `None`: it is our own.
    pub(super) fn greet(&mut self, hello: Hello, begins: bool, now: Duration) -> Option<Greeted> {
        if hello.life == self.life || hello.life == 0 || hello.offer == 0 {
            return None;
        }
        let is_other = self.theirs.replace(hello.life) != Some(hello.life);
        let is_up = hello.hears == self.life;
        let was_up = std::mem::replace(&mut self.is_up, is_up);
        if is_other || !is_up {
            self.clear();
        }
        if hello.offer != self.session {
            self.session = hello.offer;
            // What was on its way was of the old session, and is refused.
            self.outbox.take_back();
        }
        // Whoever begins anew may have stood still, and its clock with it.
        if begins || is_other {
            self.quickest = Quickest::default();
        }
        // Whoever does not know yet that it is heard is told at once: it takes nothing before.
        if is_up && (is_other || !was_up) {
            self.hello_due = now;
        } else if begins || is_other || !is_up {
            self.hello_due = self.hello_due.min(now + GREETING);
        }
        self.tables = Some(hello.tables);
        self.age = hello.age;
        self.heard = Some(now);
        self.claims_other_key = None;
        Some(match (was_up, is_up) {
            (_, true) if is_other || !was_up => Greeted::Up,
            (true, false) => Greeted::Down,
            _ => Greeted::Nothing,
        })
    }

    /// How long a datagram has been on its way beyond the quickest one of this session.
    pub(super) fn delay(&mut self, sent: u64, now: Duration) -> Duration {
        self.quickest.delay(sent, now)
    }

    /// To be acknowledged with the next.
    pub(super) fn received(&mut self, sequence: u64) {
        self.acks.push(sequence);
    }

    pub(super) fn acknowledged(&mut self, ack: &Ack, now: Duration) {
        if ack.session == self.session {
            ack.sequences.iter().for_each(|sequence| self.outbox.has_come(*sequence, now));
        }
    }

    pub(super) fn push(&mut self, outgoing: Outgoing) {
        if self.is_up {
            self.outbox.push(outgoing);
        }
    }

    /// Says at its end that it was all.
    pub(super) fn complete(&mut self) {
        if self.is_up {
            self.outbox.complete();
        }
    }

    /// Bodies that there is room for.
    pub(super) fn room(&self) -> usize {
        self.outbox.room()
    }

    /// Whether it takes nothing for now: it is dead, perhaps, and not given up yet.
    pub(super) fn is_stalled(&self, now: Duration) -> bool {
        self.outbox.is_stalled(now)
    }

    /// Bodies that it has not taken yet.
    pub(super) fn pending(&self) -> usize {
        self.outbox.len()
    }

    /// Gives it up if it is silent, or takes nothing though it speaks; says why, if it was there. `life` is the next one's.
    pub(super) fn dies(&mut self, now: Duration, life: impl FnOnce() -> u64) -> Option<&'static str> {
        let is_silent = self.heard.is_none_or(|heard| now.saturating_sub(heard) > DEAD_AFTER);
        let is_stuck = self.outbox.is_stuck();
        if self.theirs.is_none() || !(is_silent || is_stuck) {
            return None;
        }
        self.begin_anew(life());
        let why = if is_silent { "it is silent" } else { "it takes nothing" };
        std::mem::replace(&mut self.is_up, false).then_some(why)
    }

    /// Forgets what is between the two, and has the peer forget it: both tell all anew when they have found each other.
    /// `life` is the next one.
    pub(super) fn restart(&mut self, life: u64, now: Duration) {
        self.begin_anew(life);
        self.is_up = false;
        self.hello_due = self.hello_due.min(now + GREETING);
    }

    fn begin_anew(&mut self, life: u64) {
        self.theirs = None;
        self.asks_anew = false;
        self.life = life;
        self.clear();
    }

    fn clear(&mut self) {
        self.outbox.clear();
        self.acks.clear();
    }

    pub(super) fn judge(&self, session: u64, sequence: u64) -> Freshness {
        self.receiving.judge(session, sequence)
    }
}

/// After this long without a sign of life a peer is given up.
pub const DEAD_AFTER: Duration = Duration::from_secs(4);
/// A greeting is returned after so long at least, so that two don't greet each other all the time.
const GREETING: Duration = Duration::from_millis(20);
