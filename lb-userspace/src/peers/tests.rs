//! Endpoints over a network that loses, delays, repeats and reorders.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::collections::BTreeSet;

use fastrand::Rng;
use lb_common::hash::HashKey;

use super::*;
use crate::{
    dataplane::KeyFingerprint,
    peers::wire::{Kind, Record, ServiceId},
};
use std::{net::SocketAddr, time::Duration};

mod clocks;
mod hostile;

const KEY: HashKey = HashKey { k0: 1, k1: 2 };
const RATE: f64 = 1_000_000.0;

fn address(member: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1 + member as u8], 9650))
}

fn endpoint(member: usize, key: HashKey, seed: u64, now: Duration) -> Endpoint {
    let mut rng = Rng::with_seed(seed);
    let identity = Identity {
        keys: Keys::derive(key),
        fingerprint: KeyFingerprint::of(key),
        random: Box::new(move || rng.u64(..)),
    };
    Endpoint::new(identity, &[address(1 - member)], RATE, now)
}

/// How a network treats datagrams.
#[derive(Clone, Copy)]
struct Weather {
    /// In a hundred.
    lost: u8,
    repeated: u8,
    /// Milliseconds, at most.
    delay: u64,
}

const FINE: Weather = Weather { lost: 0, repeated: 0, delay: 1 };
const FOUL: Weather = Weather { lost: 20, repeated: 10, delay: 40 };

struct Pair {
    members: [Endpoint; 2],
    /// When, to whom, what.
    on_its_way: Vec<(Duration, usize, Vec<u8>)>,
    /// All that was sent to the second.
    recorded: Vec<Vec<u8>>,
    events: [Vec<Event>; 2],
    sent: [usize; 2],
    /// Whose datagrams don't arrive.
    mute: Option<usize>,
    /// Longer datagrams don't either.
    longest: usize,
    rng: Rng,
    now: Duration,
    /// Who stands still, its clock with it.
    stopped: Option<usize>,
    /// How far each one's clock is behind.
    behind: [Duration; 2],
}

impl Pair {
    fn new(seed: u64) -> Self {
        let now = Duration::from_secs(1000);
        Self {
            members: [endpoint(0, KEY, seed, now), endpoint(1, KEY, seed + 1000, now)],
            on_its_way: Vec::new(),
            recorded: Vec::new(),
            events: [Vec::new(), Vec::new()],
            sent: [0; 2],
            mute: None,
            longest: usize::MAX,
            rng: Rng::with_seed(seed),
            now,
            stopped: None,
            behind: [Duration::ZERO; 2],
        }
    }

    fn run(&mut self, time: Duration, weather: Weather) {
        let end = self.now + time;
        while self.now < end {
            self.now += MILLISECOND;
            if let Some(member) = self.stopped {
                self.behind[member] += MILLISECOND;
            }
            for member in (0..2).filter(|member| self.stopped != Some(*member)) {
                while let Some((to, datagram)) = self.members[member].transmit(self.now - self.behind[member])
                {
                    assert_eq!(to, address(1 - member));
                    self.sent[member] += datagram.len();
                    if member == 0 {
                        self.recorded.push(datagram.clone());
                    }
                    let copies = 1 + usize::from(self.rng.u8(..100) < weather.repeated);
                    for _ in 0..copies {
                        if datagram.len() <= self.longest
                            && self.mute != Some(member)
                            && self.rng.u8(..100) >= weather.lost
                        {
                            let delay = Duration::from_millis(self.rng.u64(..=weather.delay));
                            self.on_its_way.push((self.now + delay, 1 - member, datagram.clone()));
                        }
                    }
                }
            }
            let (now, behind, stopped) = (self.now, self.behind, self.stopped);
            let members = &mut self.members;
            self.on_its_way.retain(|(when, to, datagram)| {
                let arrives = *when <= now && stopped != Some(*to);
                if arrives {
                    members[*to].receive(address(1 - to), datagram, now - behind[*to]);
                }
                !arrives
            });
            let running = self.members.iter_mut().enumerate().filter(|(member, _)| stopped != Some(*member));
            for (member, endpoint) in running {
                endpoint.look_after(now - behind[member]);
                self.events[member].extend(endpoint.events().into_iter().map(|(_, event)| event));
            }
        }
    }

    fn say(&mut self, hashes: std::ops::Range<u64>) {
        for hash in hashes {
            self.members[0].send(None, Kind::Flows, body(hash), 1, self.now - self.behind[0]);
        }
    }

    fn heard(&self, member: usize) -> Vec<u64> {
        let flows = self.events[member].iter().filter_map(|event| match event {
            Event::Flows(flows, _) => Some(flows.records[0].hash),
            _ => None,
        });
        flows.collect()
    }

    fn are_up(&self) -> bool {
        self.members.iter().all(|member| member.up_peers().count() == 1)
    }
}

fn body(hash: u64) -> Vec<u8> {
    let service = ServiceId { address: [1; 16], port: 80, protocol: 6, shape: wire::Shape::default() };
    let record = Record { hash, backend: 1, age: 0, closing: false, changed: false, doubtful: false };
    wire::flows(service, 10, &[record]).remove(0).0
}

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn all_that_is_said_arrives_in_any_weather_and_its_end_comes_last() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed);
        pair.run(12 * SECOND, FOUL);
        assert!(pair.are_up(), "seed {seed}");
        pair.say(0..300);
        pair.members[0].complete(0);
        pair.run(8 * SECOND, FOUL);
        let heard: BTreeSet<_> = pair.heard(1).into_iter().collect();
        assert_eq!(heard, (0..300).collect(), "seed {seed}");
        let last = pair.events[1].iter().rposition(|event| matches!(event, Event::Flows(..)));
        let end = pair.events[1].iter().position(|event| *event == Event::Complete);
        assert!(end > last, "seed {seed}: {end:?} and {last:?}");
        assert_eq!(pair.members[0].links()[0].pending(), 0, "seed {seed}");
    }
}

#[test]
fn who_has_nothing_to_say_says_hello_once_a_second_and_nothing_else() {
    let mut pair = Pair::new(1);
    pair.run(2 * SECOND, FINE);
    let before = pair.members[0].links()[0].counts.sent.clone();
    pair.run(10 * SECOND, FINE);
    let after = &pair.members[0].links()[0].counts.sent;
    for kind in Kind::ALL {
        let count = |of: &std::collections::BTreeMap<Kind, u64>| of.get(&kind).copied().unwrap_or_default();
        assert_eq!(count(after) - count(&before), if kind == Kind::Hello { 10 } else { 0 }, "{kind:?}");
    }
}

#[test]
fn the_bandwidth_is_kept_to() {
    let mut pair = Pair::new(2);
    pair.run(SECOND, FINE);
    let before = pair.sent[0];
    let mut hash = 0;
    for _ in 0..20 {
        let room = pair.members[0].rooms()[0].unwrap_or_default() as u64;
        pair.say(hash..hash + room);
        hash += room;
        pair.run(SECOND / 10, FINE);
    }
    let sent = (pair.sent[0] - before) as f64;
    assert!((1.5 * RATE..2.1 * RATE).contains(&sent), "{sent} bytes in 2 s");
}

#[test]
fn whoever_restarts_is_found_again_and_what_was_recorded_before_is_of_no_use() {
    for member in 0..2 {
        let mut pair = Pair::new(3);
        pair.run(2 * SECOND, FINE);
        pair.say(0..50);
        pair.run(SECOND, FINE);
        let recorded = pair.recorded.clone();
        pair.members[member] = endpoint(member, KEY, 77, pair.now);
        pair.events = [Vec::new(), Vec::new()];
        pair.run(3 * SECOND, FINE);
        assert!(pair.are_up());
        for events in &pair.events {
            assert_eq!(events.iter().filter(|event| **event == Event::Up).count(), 1, "{events:?}");
        }
        for datagram in &recorded {
            pair.members[1].receive(address(0), datagram, pair.now);
        }
        pair.run(SECOND, FINE);
        assert_eq!(pair.heard(1), [0; 0]);
        pair.say(100..110);
        pair.run(SECOND, FINE);
        assert_eq!(pair.heard(1).into_iter().collect::<BTreeSet<_>>(), (100..110).collect());
        assert!(pair.are_up());
    }
}

#[test]
fn a_silent_peer_is_given_up_and_nothing_is_kept_for_it() {
    let mut pair = Pair::new(4);
    pair.run(2 * SECOND, FINE);
    pair.say(0..10);
    let dead = Weather { lost: 100, ..FINE };
    pair.run(6 * SECOND, dead);
    assert!(pair.members.iter().all(|member| member.up_peers().count() == 0));
    assert_eq!(pair.members[0].links()[0].pending(), 0);
    assert_eq!(pair.events[1].last(), Some(&Event::Down));
    pair.run(3 * SECOND, FINE);
    assert!(pair.are_up());
    assert_eq!(pair.events[1].last(), Some(&Event::Up));
}

#[test]
fn who_is_not_heard_knows_it_and_both_begin_anew_when_he_is() {
    for mute in 0..2 {
        let mut pair = Pair::new(9);
        pair.run(2 * SECOND, FINE);
        pair.mute = Some(mute);
        pair.events = [Vec::new(), Vec::new()];
        pair.run(6 * SECOND, FINE);
        assert!(pair.members.iter().all(|member| member.up_peers().count() == 0), "{mute} is mute");
        assert_eq!(pair.events, [[Event::Down], [Event::Down]], "{mute} is mute");
        pair.say(0..10);
        assert_eq!(pair.members[0].links()[0].pending(), 0);
        pair.mute = None;
        pair.events = [Vec::new(), Vec::new()];
        pair.run(3 * SECOND, FINE);
        assert_eq!(pair.events, [[Event::Up], [Event::Up]], "{mute} was mute");
    }
}

#[test]
fn a_peer_that_takes_nothing_though_it_speaks_is_given_up() {
    let mut pair = Pair::new(10);
    pair.run(2 * SECOND, FINE);
    let stalled = |pair: &Pair| pair.members[0].stalled(pair.now)[0];
    pair.say(20..30);
    pair.run(SECOND / 50, FOUL);
    pair.run(2 * SECOND, FINE);
    assert!(!stalled(&pair), "it has taken all");
    pair.longest = 120;
    pair.say(0..10);
    pair.run(SECOND / 5, FINE);
    assert!(!stalled(&pair), "it may take it yet");
    pair.run(SECOND / 2, FINE);
    assert!(stalled(&pair));
    pair.run(20 * SECOND, FINE);
    assert!(pair.events[0].contains(&Event::Down), "{:?}", pair.events[0]);
    assert!(pair.heard(1).iter().all(|hash| *hash >= 20), "{:?}", pair.heard(1));
}

#[test]
fn a_peer_that_falls_behind_by_a_whole_queue_is_sent_all_anew_and_keeps_nobody_waiting() {
    let mut pair = Pair::new(11);
    pair.run(2 * SECOND, FINE);
    pair.events[0].clear();
    pair.events[1].clear();
    pair.say(0..MAX_QUEUE as u64 + 1);
    pair.run(3 * SECOND, FINE);
    // Each forgets what the other has said, and is told it anew.
    assert_eq!(pair.events[0], [Event::Down, Event::Up]);
    assert_eq!(pair.events[1].iter().filter(|event| **event == Event::Up).count(), 1, "{:?}", pair.events[1]);
    assert!(pair.are_up());
}

#[test]
fn a_hello_that_others_have_overtaken_says_nothing() {
    let mut pair = Pair::new(12);
    pair.run(2 * SECOND, FINE);
    pair.mute = Some(0);
    let recorded = pair.recorded.len();
    pair.run(SECOND + SECOND / 10, FINE);
    let withheld = pair.recorded[recorded].clone();
    pair.mute = None;
    pair.run(2 * SECOND, FINE);
    let state = |pair: &Pair| {
        let (link, refused) = (&pair.members[1].links()[0], pair.members[1].refused());
        (link.heard, link.counts.received_bytes, refused[&Refusal::Replayed])
    };
    let (heard, bytes, refused) = state(&pair);
    pair.now += SECOND / 10;
    pair.members[1].receive(address(0), &withheld, pair.now);
    assert_eq!(state(&pair), (heard, bytes, refused + 1));
}
