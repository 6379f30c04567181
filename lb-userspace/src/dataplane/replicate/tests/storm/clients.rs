//! Connections, and who is to blame where they break.

use std::sync::atomic::Ordering;

use lb_common::flow::{self, Kind as Packet};

use super::{
    super::{FLOWS, SHIFT},
    LAG, Storm,
};

#[derive(Clone)]
pub(super) struct Connection {
    pub(super) hash: u64,
    pub(super) backend: u32,
    pub(super) opened: u64,
    pub(super) next: u64,
    pub(super) ends: u64,
    /// Where it has been, and since when.
    pub(super) ways: Vec<(usize, u64)>,
}

impl Storm {
    fn route(&self, hash: u64) -> Option<usize> {
        let number = self.routes[(hash % self.routes.len() as u64) as usize];
        (self.off[number].0 <= self.now).then_some(number)
    }

    pub(super) fn clients(&mut self) {
        let (now, seconds) = (self.now, self.boot().as_secs());
        for _ in 0..6 {
            if self.rng.u8(..4) != 0 {
                continue;
            }
            let (hash, ends) = (self.rng.u64(..), now + self.rng.u64(500..12_000));
            if self.is_crowded(hash) {
                continue;
            }
            let Some(number) = self.route(hash) else { continue };
            let backend = self.balancers[number].member.packet(hash, Packet::Opens, seconds).unwrap();
            let ways = vec![(number, now)];
            self.connections.push(Connection { hash, backend, opened: now, next: now + 10, ends, ways });
        }
        let mut connections = std::mem::take(&mut self.connections);
        connections.retain_mut(|connection| connection.next > now || self.packet(connection, seconds));
        self.connections = connections;
    }

    /// Whether a bucket may have no room for another flow: those are not promised anything.
    fn is_crowded(&self, hash: u64) -> bool {
        let at = flow::bucket(hash, FLOWS as u32 / 8 - 1) as usize * 8;
        self.balancers.iter().any(|balancer| {
            let words = balancer.member.flows[at..at + 8].iter();
            words.filter(|word| word.load(Ordering::Relaxed) != 0).count() > 3
        })
    }

    /// The next packet of a connection; says whether it goes on.
    fn packet(&mut self, connection: &mut Connection, seconds: u64) -> bool {
        let now = self.now;
        connection.next = now + 100;
        let number = self.routes[(connection.hash % self.routes.len() as u64) as usize];
        if connection.ways.last().is_some_and(|(last, _)| *last != number) {
            connection.ways.push((number, now));
            self.moved += 1;
        }
        if self.route(connection.hash).is_none() {
            return true;
        }
        let kind = if now >= connection.ends { Packet::Closes } else { Packet::Continues };
        let balancer = &self.balancers[number];
        let got = balancer.member.packet(connection.hash, kind, seconds);
        if got == Some(connection.backend) {
            return kind == Packet::Continues;
        }
        if balancer.keeps(connection.backend) {
            self.judge(connection, number, got);
        }
        false
    }

    fn judge(&mut self, connection: &Connection, number: usize, got: Option<u32>) {
        let ways = &connection.ways;
        let (opened, moved) = (connection.opened, ways.last().map_or(connection.opened, |(_, at)| *at));
        // With a backend that may get nothing its windows end, everywhere but where a daemon stands still.
        let new = if self.is_harsh { moved } else { opened };
        let is_young = ways.get(1).is_some_and(|(_, at)| *at < opened + LAG);
        // Of a flow that comes by way of another member the first one tells.
        let is_unheard = |other: usize| {
            self.parted[other][number].excuses(new, moved) || self.still[other].excuses(new, moved)
        };
        if is_young || ways.iter().any(|(other, _)| is_unheard(*other)) {
            self.excused += 1;
            return;
        }
        self.broken.push((
            connection.hash,
            format!(
                "{} ms: member {number} sent a flow of {} that was opened {} ms ago to {got:?}, ways {:?}, slot {}",
                self.now,
                connection.backend,
                self.now - opened,
                connection.ways,
                connection.hash >> SHIFT,
            ),
        ));
    }
}
