//! Clients, and those who only pretend to be.

use fastrand::Rng;
use lb_common::abi::STATE_NEW_FLOWS;
use lb_common::flow::Kind;

use super::mutation::Mutation;
use super::scenario::Attack;
use super::{Event, Simulation};

/// A client with a few ports, which it uses over and over.
#[derive(Debug)]
pub(super) struct Client {
    /// Flow hash of each of its tuples.
    tuples: [u64; 3],
    connection: Option<Connection>,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    hash: u64,
    /// The backend that took the SYN, and which of that index's lives it was in.
    backend: u32,
    life: u32,
    /// Packets to come.
    left: u32,
}

impl Client {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { tuples: std::array::from_fn(|_| rng.u64(..)), connection: None }
    }
}

impl Simulation<'_> {
    /// A client's next packet.
    pub(super) fn client(&mut self, number: usize) {
        match self.clients[number].connection {
            None => self.open(number),
            Some(connection) => self.go_on(number, connection),
        }
    }

    fn open(&mut self, number: usize) {
        let absent = self.scenario.absent.filter(|(from, to)| (from * 1000..to * 1000).contains(&self.now));
        if let Some((_, until)) = absent {
            let wait = until * 1000 - self.now + self.rng.u64(..10_000);
            return self.after(wait, Event::Client(number));
        }
        if !self.is_busy() {
            return;
        }
        let hash = self.clients[number].tuples[self.rng.usize(..3)];
        let arrived = self.packet(hash, Kind::Opens);
        let backend = arrived.index;
        if backend == 0 {
            return self.after(1000, Event::Client(number));
        }
        self.outcome.connections += 1;
        let takes_new = self.tables.states[backend as usize] & STATE_NEW_FLOWS != 0;
        if !takes_new && !arrived.refused {
            self.outcome.misplaced += 1;
            self.tell(|| format!("a SYN reached {backend}, which takes no new flows"));
        }
        let just_over = self.scenario.flood.is_some_and(|flood| {
            let over = (flood.to + 5) * 1000;
            flood.attack == Attack::Syn && (over..over + 5000).contains(&self.now)
        });
        if arrived.refused && just_over {
            self.outcome.starved += 1;
            self.tell(|| "a SYN found no place after the flood".into());
        }
        let life = self.controller.backends[backend as usize].life;
        let left = self.rng.u32(1..40);
        self.clients[number].connection = Some(Connection { hash, backend, life, left });
        let handshake = self.rng.u64(5..200);
        self.after(handshake, Event::Client(number));
    }

    fn go_on(&mut self, number: usize, mut connection: Connection) {
        let Connection { hash, backend, life, left } = connection;
        if self.controller.backends[backend as usize].life != life {
            // Cut off with its backend.
            return self.end(number);
        }
        let leaves = self.scenario.absent.is_some_and(|(from, _)| self.now > from * 1000);
        let is_last = left == 0 || !self.is_busy() || (leaves && self.now < 1_000_000);
        let kind = match self.rng.u8(..20) {
            // Some never say goodbye.
            0 if is_last => return self.end(number),
            1 if is_last => Kind::Observes,
            _ if is_last => Kind::Closes,
            // It goes on after that: the other side has more to say.
            2 if left < 10 => Kind::Closes,
            _ => Kind::Continues,
        };
        let arrived = self.packet(hash, kind);
        if arrived.index != backend {
            self.outcome.broken += 1;
            let slot = self.tables.slot((hash >> 56) as usize);
            self.tell(|| {
                let (current, previous) = (slot.current(), slot.previous());
                let of = format!("slot {{{current}, {previous}, {}}}", slot.is_tracked());
                format!("{kind:?} of a connection with {backend} reached {} ({of})", arrived.index)
            });
            return self.end(number);
        }
        if is_last {
            return self.end(number);
        }
        connection.left -= 1;
        self.clients[number].connection = Some(connection);
        // Silences shorter than the idle timeout by what the clock cell may lag behind.
        let longest = (u64::from(self.scenario.idle) - 1) * 1000;
        let silence = match self.rng.u8(..10) {
            0 => longest - self.rng.u64(..900),
            1 | 2 => self.rng.u64(..longest / 2),
            _ => self.rng.u64(10..2000),
        };
        self.after(silence, Event::Client(number));
    }

    fn end(&mut self, number: usize) {
        self.clients[number].connection = None;
        let pause = if self.rng.bool() { self.rng.u64(..50) } else { self.rng.u64(..10_000) };
        self.after(pause, Event::Client(number));
    }

    pub(super) fn flood(&mut self) {
        let Some(flood) = self.scenario.flood else { return };
        for _ in 0..flood.rate / 100 {
            let hash = self.rng.u64(..);
            match flood.attack {
                Attack::Syn => drop(self.packet(hash, Kind::Opens)),
                Attack::Ack => drop(self.packet(hash, Kind::Continues)),
                Attack::TwoPackets => {
                    self.packet(hash, Kind::Opens);
                    self.packet(hash, Kind::Continues);
                }
                Attack::Reset => {
                    let victim = self.rng.usize(..self.clients.len());
                    let open = self.clients[victim].connection.map(|connection| connection.hash);
                    if let Some(hash) = open {
                        self.packet(hash, Kind::Observes);
                    }
                }
            }
        }
        if self.now < flood.to * 1000 {
            self.after(10, Event::Flood);
        }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.outcome.first.is_none() {
            let mutation: Option<Mutation> = self.mutation;
            self.outcome.first = Some(format!("at {} ms, {mutation:?}: {}", self.now, what()));
        }
    }
}
