//! Members, the network between them, and their clients.

use std::{sync::atomic::Ordering, time::Duration};

use fastrand::Rng;
use lb_common::{
    abi::{FlowEntry, TRACK_AUTO},
    flow::{self, Kind as Packet},
};

use crate::dataplane::scan::Moment;

use super::{
    FLOWS, IDLE, LAG, SHIFT, START,
    member::{Member, address},
};

#[derive(Clone, Copy)]
pub(super) struct Connection {
    pub(super) hash: u64,
    pub(super) backend: u32,
    pub(super) opened: u64,
    pub(super) next: u64,
    pub(super) packets: u32,
}

pub(super) struct Fleet {
    pub(super) members: Vec<Option<Member>>,
    pub(super) on_its_way: Vec<(u64, usize, usize, Vec<u8>)>,
    pub(super) connections: Vec<Connection>,
    /// Who gets a flow's packets: these, in turn by the flow's hash.
    pub(super) routes: Vec<usize>,
    pub(super) rng: Rng,
    /// Milliseconds.
    pub(super) now: u64,
    pub(super) replicates: bool,
    pub(super) lost: u8,
    /// Milliseconds that a datagram is on its way at most.
    pub(super) latency: u64,
    /// How long it may take until the others know of a flow.
    pub(super) lag: u64,
    /// Whose datagrams don't arrive.
    pub(super) mute: Option<usize>,
    /// Each opens 25 connections a second.
    pub(super) clients: u32,
    pub(super) broken: Vec<String>,
    pub(super) opened: u64,
}

impl Fleet {
    pub(super) fn new(count: usize, seed: u64, replicates: bool) -> Self {
        Self::tracking(count, seed, replicates, TRACK_AUTO)
    }

    pub(super) fn tracking(count: usize, seed: u64, replicates: bool, tracking: u8) -> Self {
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
            latency: 60,
            lag: LAG,
            mute: None,
            clients: 1,
            broken: Vec::new(),
            opened: 0,
        }
    }

    pub(super) fn member(&mut self, number: usize) -> &mut Member {
        self.members[number].as_mut().unwrap()
    }

    pub(super) fn seconds(&self) -> u64 {
        START + self.now / 1000
    }

    pub(super) fn publish(&mut self, number: usize, serving: impl IntoIterator<Item = u32>) {
        let (serving, now) = (serving.into_iter().collect::<Vec<_>>(), self.seconds());
        self.member(number).publish(&serving, now);
    }

    /// Leads packets elsewhere. Whoever opened a connection just now is not promised anything.
    pub(super) fn lead_to(&mut self, routes: &[usize]) {
        self.routes = routes.to_vec();
        let latest = self.now.saturating_sub(self.lag);
        self.connections.retain(|connection| connection.opened < latest);
    }

    /// Nobody sends anything.
    pub(super) fn rest(&mut self, seconds: u64) {
        self.pass(seconds * 1000);
    }

    /// Likewise, for so many milliseconds.
    pub(super) fn pass(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while self.now < end {
            self.now += 10;
            self.carry(self.boot());
            if self.now.is_multiple_of(100) {
                let now = Duration::from_millis(self.now);
                self.members.iter_mut().flatten().for_each(|member| member.tick(now, true));
            }
        }
    }

    /// Until members have found each other.
    pub(super) fn rest_without_loss(&mut self) {
        self.lost = 0;
        self.rest(5);
    }

    pub(super) fn boot(&self) -> Duration {
        Duration::from_secs(START) + Duration::from_millis(self.now)
    }

    pub(super) fn run(&mut self, seconds: u64) {
        self.run_for(seconds * 1000);
    }

    /// Milliseconds.
    pub(super) fn run_for(&mut self, time: u64) {
        let end = self.now + time;
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
            if self.replicates {
                let moment = Moment { monotonic: boot, boot };
                let members = self.members.iter_mut().flatten();
                members.filter(|member| member.has_work()).for_each(|member| member.exchange(moment));
            }
            self.clients();
        }
    }

    pub(super) fn carry(&mut self, boot: Duration) {
        for (from, member) in self.members.iter_mut().enumerate() {
            let Some(member) = member else { continue };
            while let Some((to, datagram)) = member.endpoint.transmit(boot) {
                let to = (0..).find(|number| address(*number) == to).unwrap();
                for _ in 0..1 + usize::from(self.rng.u8(..20) == 0) {
                    if self.rng.u8(..100) >= self.lost && self.mute != Some(from) {
                        self.on_its_way.push((
                            self.now + self.rng.u64(..self.latency),
                            from,
                            to,
                            datagram.clone(),
                        ));
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

    pub(super) fn clients(&mut self) {
        let seconds = self.seconds();
        let boot = Duration::from_secs(START) + Duration::from_millis(self.now);
        let route = |hash: u64, routes: &[usize]| routes[(hash % routes.len() as u64) as usize];
        for _ in 0..self.clients {
            if self.rng.u8(..4) != 0 {
                continue;
            }
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

    pub(super) fn finish(mut self, what: &str) {
        if !self.replicates {
            return;
        }
        let broken = &self.broken[..self.broken.len().min(8)];
        assert!(broken.is_empty(), "{what}: {} broke: {broken:#?}", self.broken.len());
        assert!(self.opened > 500, "{what}");
        // All is over, and nothing is left of it.
        self.connections.clear();
        self.rest(60);
        for member in self.members.iter().flatten() {
            assert_eq!(member.tracked(), 0, "{what}: member {}", member.number);
            assert!(member.flows.iter().all(|word| word.load(Ordering::Relaxed) == 0), "{what}");
        }
    }
}
