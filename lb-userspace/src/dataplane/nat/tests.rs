use std::sync::atomic::Ordering;

use lb_common::abi::{BackendValue, NAT_CONFIRMED, PROTOCOL_TCP, SERVICE_IN_USE, ServiceKey, ServiceRecord};

use super::*;
use crate::dataplane::{Fake, Faulty, Limits};

const LIMITS: Limits = Limits {
    services: 4,
    backends: 8,
    lookup_slots: 1024,
    flow_entries: 1024,
    nat_flows: 1024,
    source_prefixes: 16,
};

const A: u32 = 1;
const B: u32 = 2;
const IDLE: u32 = 100;

fn at(second: u64) -> Moment {
    let now = Duration::from_secs(second);
    Moment { monotonic: now, boot: now }
}

/// Service 0 with backends A and B, and flows that a test makes.
struct Maps {
    fake: Fake,
    world: NatWorld,
    sweeper: Sweeper,
    flows: u16,
}

impl Maps {
    fn new() -> Self {
        let mut fake = Fake::new(LIMITS);
        let record = ServiceRecord {
            key: ServiceKey { protocol: PROTOCOL_TCP, ..ServiceKey::default() },
            flags: SERVICE_IN_USE,
            flow_idle_timeout: IDLE,
            ..ServiceRecord::default()
        };
        fake.write_service_record(0, &record).expect("in range");
        let backend = |index| NatBackend {
            service: 0,
            idle: IDLE,
            protocol: PROTOCOL_TCP,
            address: [index; 16],
            weighed: true,
        };
        for index in [A, B] {
            let value = BackendValue { address: [index as u8; 16], ..BackendValue::default() };
            fake.write_backend(index, &value).expect("in range");
        }
        let world = NatWorld { backends: vec![NatBackend::default(), backend(1), backend(2)] };
        Self { fake, world, sweeper: Sweeper::default(), flows: 0 }
    }

    /// A flow to a backend, last seen at `time` from both sides with these bits.
    fn flow(&mut self, backend: u32, time: u64, client: u32, answer: Option<u32>) {
        self.flows += 1;
        let [high, low] = self.flows.to_be_bytes();
        let mut key = NatFlowKey { ports: [high, low, 0, 80], ..NatFlowKey::default() };
        key.client[15] = low;
        let flow = NatFlow {
            seen: NatSeen::new(time, client).0,
            backend,
            our_port: [high, low],
            ..NatFlow::default()
        };
        self.fake.set_nat_flow(key, flow, answer.map(|bits| NatSeen::new(time, bits)));
    }

    fn established(&mut self, backend: u32, time: u64) {
        self.flow(backend, time, NAT_CONFIRMED, Some(NAT_CONFIRMED));
    }

    fn step(&mut self, second: u64, budget: usize) -> Option<NatCensus> {
        self.fake.store_clock(second);
        self.sweeper.step(&mut self.fake, &self.world, at(second), budget).expect("nothing fails")
    }

    /// A pass a second, the last of which counts.
    fn passes(&mut self, seconds: std::ops::RangeInclusive<u64>) -> NatCensus {
        let passes = seconds.map(|second| self.step(second, usize::MAX).expect("a whole pass"));
        passes.last().expect("a second")
    }
}

#[test]
fn flows_that_are_over_go_and_the_others_are_counted() {
    let mut maps = Maps::new();
    maps.passes(1..=1000);
    maps.established(A, 1000);
    maps.established(B, 1000);
    maps.flow(B, 1000, 0, None);
    maps.flow(A, 1000, NAT_CONFIRMED | NAT_FIN, Some(NAT_CONFIRMED | NAT_FIN));
    maps.flow(A, 1000, NAT_CONFIRMED | NAT_RST, Some(NAT_CONFIRMED));
    let census = maps.passes(1001..=1005);
    assert_eq!((census.entries, census.began), (5, at(1005)));
    assert_eq!(census.flows, HashMap::from([(A, 1), (B, 2)]));
    assert_eq!(census.named, HashSet::from([A, B]));
    // What never got going, and what both sides closed.
    assert_eq!(maps.passes(1006..=1006).entries, 3);
    assert_eq!(maps.fake.nat_entries(), (3, 3));
    assert_eq!(maps.passes(1007..=1060).entries, 3);
    assert_eq!(maps.passes(1061..=1061).entries, 2);
    assert_eq!(maps.passes(1062..=1100).flows, HashMap::from([(A, 1), (B, 1)]));
    let last = maps.passes(1101..=1101);
    assert_eq!((last.entries, last.named.len(), maps.fake.nat_entries()), (0, 0, (0, 0)));
}

#[test]
fn a_flow_lives_by_its_backends_packets_too() {
    let mut maps = Maps::new();
    maps.passes(1..=1000);
    let key = NatFlowKey { ports: [1, 2, 3, 4], ..NatFlowKey::default() };
    let flow = NatFlow { seen: NatSeen::new(1000, NAT_CONFIRMED).0, backend: A, ..NatFlow::default() };
    maps.fake.set_nat_flow(key, flow, Some(NatSeen::new(1090, NAT_CONFIRMED)));
    assert_eq!(maps.passes(1001..=1190).entries, 1);
    assert_eq!(maps.passes(1191..=1191).entries, 0);
}

#[test]
fn flows_of_backends_that_are_gone_or_disabled_or_another_services_go_at_once() {
    let mut maps = Maps::new();
    maps.passes(1..=10);
    for backend in [A, B, 7] {
        maps.established(backend, 10);
    }
    maps.world.backends[B as usize].service = 3;
    let census = maps.passes(11..=11);
    assert_eq!((census.entries, census.named), (1, HashSet::from([A])));
    maps.world.backends[A as usize].idle = 0;
    assert_eq!(maps.passes(12..=12).entries, 0);
    assert_eq!(maps.fake.nat_entries(), (0, 0));
}

#[test]
fn a_backends_side_that_is_alone_goes_once_it_is_idle() {
    let mut maps = Maps::new();
    maps.passes(1..=1000);
    for backend in [A, B] {
        maps.established(backend, 1000);
    }
    let page = maps.fake.nat_flows(NatCursor::default(), 10).expect("nothing fails");
    let (key, _) = *page.entries.first().expect("a flow");
    maps.fake.remove_nat_flow(&key);
    maps.passes(1001..=1100);
    assert_eq!(maps.fake.nat_entries(), (1, 2));
    // The flow of the other one is over as well, and goes the usual way.
    maps.passes(1101..=1160);
    assert_eq!(maps.fake.nat_entries(), (0, 0));
}

#[test]
fn what_the_program_keeps_still_counts() {
    let mut maps = Maps::new();
    maps.passes(1..=1000);
    maps.established(A, 1000);
    maps.passes(1001..=1100);
    // For the data plane it is a second earlier.
    maps.fake.store_clock(1100);
    let census = maps.sweeper.step(&mut maps.fake, &maps.world, at(1101), usize::MAX).expect("nothing fails");
    assert_eq!(census.map(|census| census.entries), Some(1));
}

#[test]
fn ages_count_from_when_somebody_kept_the_clock_again() {
    // At the start, and after a pause.
    for pause in [0, 5000] {
        let mut maps = Maps::new();
        if pause > 0 {
            maps.passes(1..=100);
        }
        maps.established(A, 0);
        maps.established(7, 0);
        let resumed = 200 + pause;
        // Forced it goes all the same.
        assert_eq!(maps.passes(resumed..=resumed).entries, 1);
        assert_eq!(maps.passes(resumed + 1..=resumed + 100).entries, 1);
        assert_eq!(maps.passes(resumed + 101..=resumed + 101).entries, 0);
    }
}

#[test]
fn a_pass_is_made_in_steps_once_a_period_and_meets_each_flow_once() {
    let mut maps = Maps::new();
    for _ in 0..10_000 {
        maps.established(A, 0);
    }
    // The backends' entries in three pages, then the clients'.
    assert!(maps.step(0, 10_000).is_none());
    assert!(maps.step(1, 1000).is_none());
    assert!(maps.step(2, 1000).is_none());
    let census = maps.step(2, 10_000).expect("the pass has ended");
    assert_eq!((census.entries, census.began), (10_000, at(0)));
    // The next is due a second after this one began.
    assert!(maps.step(1, usize::MAX).is_some());
    assert!(maps.step(1, usize::MAX).is_none());
}

#[test]
fn base_and_changes_of_a_load_add_up_to_what_is_there() {
    let mut maps = Maps::new();
    let load = |fake: &Fake, index: u32| {
        let loads = fake.words().loads;
        let word = |at: u32| loads[at as usize].load(Ordering::Relaxed);
        word(index * 2).wrapping_add(word(index * 2 + 1))
    };
    for opened in 1..=7 {
        maps.established(A, opened);
        maps.fake.words().loads[A as usize * 2 + 1].store(opened, Ordering::Relaxed);
    }
    maps.passes(10..=10);
    assert_eq!((load(&maps.fake, A), load(&maps.fake, B)), (7, 0));
    // Ends are not among the changes.
    maps.passes(11..=120);
    assert_eq!(load(&maps.fake, A), 0);
}

#[test]
fn after_an_error_the_pass_begins_anew() {
    for fails_at in 0..7 {
        let mut maps = Maps::new();
        for _ in 0..5000 {
            maps.established(7, 0);
        }
        let mut faulty = Faulty::new(maps.fake.clone(), fails_at);
        let step = |maps: &mut Maps, faulty: &mut Faulty<Fake>| {
            maps.sweeper.step(faulty, &maps.world, at(0), usize::MAX)
        };
        assert!(step(&mut maps, &mut faulty).is_err());
        let census = step(&mut maps, &mut faulty).expect("that was once");
        assert_eq!(census.map(|census| census.entries), Some(0));
        assert_eq!(maps.fake.nat_entries(), (0, 0));
    }
}

#[test]
fn silent_flows_that_are_not_over_are_not_looked_up_one_by_one() {
    let mut maps = Maps::new();
    maps.passes(1..=1000);
    for _ in 0..10_000 {
        maps.established(A, 1000);
    }
    maps.passes(1001..=1049);
    let faulty = Faulty::new(maps.fake.clone(), usize::MAX);
    let calls = faulty.calls();
    let mut faulty = faulty;
    maps.fake.store_clock(1050);
    let census = maps.sweeper.step(&mut faulty, &maps.world, at(1050), usize::MAX).expect("nothing fails");
    assert_eq!(census.map(|census| census.entries), Some(10_000));
    assert!(calls.load(Ordering::Relaxed) < 10, "{calls:?} calls for pages");
}

#[test]
fn what_the_backend_ended_or_never_answered_goes_in_time_although_its_client_said_nothing() {
    for answer in [Some(NAT_CONFIRMED | NAT_RST), None] {
        let mut maps = Maps::new();
        maps.passes(1..=1000);
        maps.flow(A, 1000, NAT_CONFIRMED, answer);
        assert_eq!(maps.passes(1001..=1005).entries, 1, "{answer:?}");
        assert_eq!(maps.passes(1006..=1006).entries, 0, "{answer:?}");
        assert_eq!(maps.fake.nat_entries(), (0, 0));
    }
}

#[test]
fn a_pass_takes_a_second_at_any_usual_size_and_a_step_is_bounded() {
    for flows in [1 << 10, 128 << 10, 256 << 10] {
        // Both tables full, in ten steps; half of it is left for flows that end.
        assert!(budget(flows) * 10 >= 4 * flows as usize, "{flows}");
    }
    assert!(budget(1 << 20) * 10 >= 2 << 20);
    assert_eq!(budget(1 << 24), budget(1 << 20), "nobody waits longer for a step");
}
