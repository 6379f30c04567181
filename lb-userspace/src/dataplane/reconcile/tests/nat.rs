//! Backends whose flows NAT keeps: how long an index lives, and what is told of it.

use lb_common::abi::{NAT_CONFIRMED, NatFlow, NatFlowKey, NatSeen};

use super::*;
use crate::domain::Forwarding;

fn translating(count: usize, change: impl Fn(&mut DesiredService)) -> Desired {
    serving(count, |service| {
        let spec = Service::clone(&service.spec);
        service.spec = Arc::new(Service { forwarding: Forwarding::Nat, ..spec });
        change(service);
    })
}

/// An established flow of service 0, last seen at `second`.
fn flow(fake: &Fake, backend: u32, client: u8, second: u64) {
    let key = NatFlowKey { client: [client; 16], ports: [client, 1, 0, 80], service: 0 };
    let seen = NatSeen::new(second, NAT_CONFIRMED);
    let our_port = [client, 1];
    fake.set_nat_flow(key, NatFlow { seen: seen.0, backend, our_port, ..NatFlow::default() }, Some(seen));
}

fn flows(published: &Published) -> Vec<Option<u64>> {
    let services = published.services.values().flat_map(|service| service.backends.values());
    let mut backends: Vec<_> = services.map(|backend| (backend.index, backend.flows)).collect();
    backends.sort_unstable();
    backends.into_iter().map(|(_, flows)| flows).collect()
}

fn leaving(published: &Published) -> Vec<u64> {
    published.services.values().flat_map(|service| &service.leaving).map(|backend| backend.flows).collect()
}

#[test]
fn flows_of_each_backend_are_told() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    let mut published = reconciler.apply(&translating(2, |_| ()), at(1000)).expect("it fits");
    for (backend, client) in [(1, 1), (1, 2), (2, 3)] {
        flow(&fake, backend, client, 1000);
    }
    tick(&mut reconciler, &mut published, 1000..=1002);
    assert_eq!(flows(&published), [Some(2), Some(1)]);
    assert_eq!(reconciler.census().nat_entries, 3);
}

#[test]
fn a_drain_ends_when_the_last_flow_has() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    reconciler.apply(&translating(2, |_| ()), at(1000)).expect("it fits");
    let gone = index_of(&reconciler, 1);
    flow(&fake, gone, 1, 1000);
    let mut published = reconciler.apply(&translating(1, |_| ()), at(1001)).expect("it fits");
    tick(&mut reconciler, &mut published, 1001..=1100);
    assert_eq!(leaving(&published), [1]);
    // Both sides close it, five seconds before it goes.
    let key = NatFlowKey { client: [1; 16], ports: [1, 1, 0, 80], service: 0 };
    let closed = NatSeen::new(1100, NAT_CONFIRMED | lb_common::abi::NAT_FIN);
    let entry = NatFlow { seen: closed.0, backend: gone, our_port: [1, 1], ..NatFlow::default() };
    fake.set_nat_flow(key, entry, Some(closed));
    tick(&mut reconciler, &mut published, 1101..=1105);
    assert_eq!(leaving(&published), [0]);
    tick(&mut reconciler, &mut published, 1106..=1108);
    assert!(leaving(&published).is_empty());
    assert_eq!(fake.nat_entries(), (0, 0));
}

#[test]
fn flows_of_a_backend_that_is_cut_or_disabled_go_at_once() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    let mut published = reconciler.apply(&translating(3, |_| ()), at(1000)).expect("it fits");
    for backend in 1..=3 {
        flow(&fake, backend, backend as u8, 1000);
    }
    let id = fake.backend(2).stable_id;
    let desired = translating(3, |service| {
        service.cut.push(id);
        service.backends[2].admin = Admin::Disabled;
        service.backends[2].weight = 0;
        service.backends[2].accepts_existing = false;
        service.backends.remove(1);
    });
    reconciler.apply(&desired, at(1001)).expect("it fits");
    tick(&mut reconciler, &mut published, 1001..=1003);
    assert_eq!(flows(&published), [Some(1), Some(0)]);
    assert_eq!(fake.nat_entries(), (1, 1));
}

#[test]
fn an_index_is_not_reused_while_a_flow_names_it_and_does_not_return() {
    let fake = Fake::new(Limits { backends: 4, ..LIMITS });
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    let mut published = reconciler.apply(&translating(2, |_| ()), at(1000)).expect("it fits");
    let id = fake.backend(2).stable_id;
    let only_first = || {
        translating(2, |service| {
            service.cut.push(id);
            service.backends.truncate(1);
        })
    };
    reconciler.apply(&only_first(), at(1001)).expect("it fits");
    reconciler.apply(&translating(2, |_| ()), at(1002)).expect("there is another index");
    assert_eq!(index_of(&reconciler, 1), 3);
    reconciler.apply(&only_first(), at(1003)).expect("it fits");
    // Entries that nobody could take away.
    let idle = testing::service("a", &[]).flow_idle_timeout.as_secs();
    for second in 1003..=1003 + idle + 10 {
        for backend in [2, 3] {
            flow(&fake, backend, backend as u8, second);
        }
        let key = |client: u8| NatFlowKey { client: [client; 16], ports: [client, 1, 0, 80], service: 0 };
        fake.keep_nat_flows([key(2), key(3)]);
        tick(&mut reconciler, &mut published, second..=second);
    }
    assert!(reconciler.apply(&translating(2, |_| ()), at(1003 + idle + 11)).is_err());
    fake.keep_nat_flows([]);
    let free = 1003 + idle + 11;
    tick(&mut reconciler, &mut published, free..=free + 4);
    reconciler.apply(&translating(2, |_| ()), at(free + 5)).expect("nothing names it any more");
}

#[test]
fn a_live_services_address_does_not_change_under_its_flows() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake)).expect("an empty fake");
    reconciler.apply(&translating(1, |_| ()), at(1000)).expect("it fits");
    let moved = translating(1, |service| {
        let mut spec = Service::clone(&service.spec);
        spec.vip.port = Some(8080);
        service.spec = Arc::new(spec);
    });
    let refused = reconciler.apply(&moved, at(1001)).expect_err("its clients know the old one");
    assert!(matches!(refused, ApplyError::Disruptive { .. }), "{refused}");
}

#[test]
fn a_sweep_that_fails_stops_nothing_else_and_is_told() {
    let fake = Fake::new(LIMITS);
    let mut first = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    first.apply(&translating(1, |_| ()), at(1000)).expect("it fits");
    flow(&fake, 7, 1, 1000);
    let calls = Faulty::new(fake.clone(), usize::MAX);
    let made = calls.calls();
    let mut counted = Reconciler::restore(Box::new(calls)).expect("nothing fails");
    let restored = made.load(std::sync::atomic::Ordering::Relaxed);
    fine(counted.tick(at(1000), &mut Published::default()));
    assert_eq!(fake.nat_entries(), (0, 0));
    flow(&fake, 7, 1, 1000);
    // A page of each table, and then the run.
    let faulty = Faulty::new(fake.clone(), restored + 2);
    let mut reconciler = Reconciler::restore(Box::new(faulty)).expect("it fails later");
    assert!(reconciler.tick(at(2000), &mut Published::default()).trouble.is_some());
    assert_eq!((reconciler.census().capacity, fake.clock()), (1024, 2000));
    fine(reconciler.tick(at(2001), &mut Published::default()));
    assert_eq!(fake.nat_entries(), (0, 0));
}

/// A data plane on which no sweep comes to an end.
fn without_sweep(fake: &Fake) -> Faulty<Fake> {
    Faulty::on_page(fake.clone())
}

#[test]
fn a_sweep_that_fails_hides_no_change_that_the_scan_has_found() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(without_sweep(&fake))).expect("it fails later");
    let drained = serving(2, |service| service.backends[1].weight = 0);
    let mut published = reconciler.apply(&drained, at(1000)).expect("it fits");
    let mut changed = false;
    for second in 1000..=1010 {
        let ticked = reconciler.tick(at(second), &mut published);
        assert!(ticked.trouble.is_some(), "second {second}");
        changed |= ticked.changed;
    }
    let drained: Vec<_> = published.services.values().flat_map(|service| service.backends.values()).collect();
    assert!(drained.iter().any(|backend| backend.drained));
    assert!(changed, "nobody was told");
}

#[test]
fn services_without_nat_do_not_wait_for_its_sweep() {
    let fake = Fake::new(Limits { backends: 3, ..LIMITS });
    let mut reconciler = Reconciler::restore(Box::new(without_sweep(&fake))).expect("it fails later");
    reconciler.apply(&serving(2, |_| ()), at(1000)).expect("it fits");
    let idle = testing::service("a", &[]).flow_idle_timeout.as_secs();
    let long = |service: &mut DesiredService| {
        let spec = Service::clone(&service.spec);
        service.spec = Arc::new(Service { drain_timeout: std::time::Duration::from_secs(86_400), ..spec });
    };
    let mut published = reconciler.apply(&serving(1, long), at(1001)).expect("it fits");
    assert_eq!(leaving(&published), [0]);
    // Its slots forget it, and then no flow of it can turn up.
    for second in 1001..=1001 + idle + 10 {
        let _ = reconciler.tick(at(second), &mut published);
    }
    assert!(leaving(&published).is_empty(), "its drain waits for a sweep of flows that are not its own");
    for second in 1012 + idle..=1012 + 2 * idle {
        let _ = reconciler.tick(at(second), &mut published);
    }
    let another = serving(3, |service| drop(service.backends.remove(1)));
    reconciler.apply(&another, at(1013 + 2 * idle)).expect("nothing can name the index any more");
}
