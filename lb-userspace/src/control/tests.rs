//! The control task over a fake data plane: commands in, maps and snapshots out.

mod announce;
mod commands;
mod first;
mod found;
mod pace;
mod time;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Command, Edit, Handle, HealthReport, Hop, InterfaceView, NextHopUpdate, Rejected, start,
    store::{MemoryStore, Store as _},
};
use crate::{
    dataplane::{Dataplane, Fake, Faulty, Limits, reconcile::Reconciler},
    domain::{
        Forwarding, Health, NatPool, Origin, Service,
        policy::ServiceState,
        testing::{name, service},
    },
    telemetry::PublishStats,
};

const LIMITS: Limits = Limits {
    services: 4,
    backends: 8,
    lookup_slots: 8192,
    flow_entries: 1024,
    nat_flows: 1024,
    source_prefixes: 1024,
};

fn control() -> Handle {
    control_over(Fake::new(LIMITS))
}

fn control_over(fake: Fake) -> Handle {
    control_with(fake, &MemoryStore::default())
}

fn control_with(fake: impl Dataplane + 'static, store: &MemoryStore) -> Handle {
    let mut store = store.clone();
    let loaded = store.load().unwrap();
    let reconciler = Reconciler::restore(Box::new(fake)).unwrap();
    start(reconciler, Arc::new(PublishStats::new()), Box::new(store), loaded)
}

fn declare(services: Vec<Service>) -> Command {
    Command::Declare { services, nat: NatPool::default(), ways: Vec::new(), disruptive: false }
}

fn report(backend: &str, address: &str, health: Health) -> HealthReport {
    let address: SocketAddr = address.parse().unwrap();
    HealthReport { service: name("web"), backend: name(backend), address, health, detail: "test".to_owned() }
}

fn way(backend: &str, gateway: Option<&str>) -> NextHopUpdate {
    way_from("10.0.0.254", backend, gateway)
}

/// By which the host comes from this address.
fn way_from(source: &str, backend: &str, gateway: Option<&str>) -> NextHopUpdate {
    let hop = Hop {
        mac: [2, 0, 0, 0, 0, 1],
        ifindex: 2,
        source_mac: [2, 0, 0, 0, 0, 9],
        mtu: 1500,
        source: source.parse().unwrap(),
    };
    let gateway = gateway.map(|gateway| gateway.parse().unwrap());
    NextHopUpdate { backend: backend.parse().unwrap(), hop: Some(hop), gateway }
}

async fn healthy(control: &Handle, backends: &[(&str, &str)]) {
    let reports =
        backends.iter().map(|(backend, address)| report(backend, address, Health::Healthy)).collect();
    control.submit(Command::Health(reports)).await.unwrap();
}

fn shares(control: &Handle) -> Vec<f64> {
    control.snapshot().services[0].backends.iter().map(|backend| backend.share).collect()
}

#[tokio::test]
async fn a_new_backend_gets_no_traffic_before_its_first_passed_check() {
    let control = control();
    control.submit(declare(vec![service("web", &[("a", 1), ("b", 3)])])).await.unwrap();
    assert_eq!(shares(&control), [0.0, 0.0]);
    assert_eq!(control.snapshot().services[0].state, ServiceState::Failing);
    healthy(&control, &[("a", "10.0.0.1:80"), ("b", "10.0.0.2:80")]).await;
    assert_eq!(shares(&control), [0.25, 0.75]);
    let mut web = service("web", &[("a", 1), ("b", 3), ("c", 1)]);
    control.submit(declare(vec![web.clone()])).await.unwrap();
    assert_eq!(shares(&control), [0.25, 0.75, 0.0]);
    web.backends.retain(|name, _| name.as_str() == "c");
    control.submit(declare(vec![web])).await.unwrap();
    assert_eq!(shares(&control), [0.0]);
    // Nobody is there to go on with: it comes at once, whoever else is to come.
    healthy(&control, &[("c", "10.0.0.3:80")]).await;
    assert_eq!(shares(&control), [1.0]);
}

#[tokio::test]
async fn the_revision_grows_by_one_with_each_change_and_not_without_one() {
    let control = control();
    let web = service("web", &[("a", 1)]);
    let first = control.submit(declare(vec![web.clone()])).await.unwrap();
    assert_eq!(first.revision, 1);
    assert_eq!(control.submit(declare(vec![web])).await.unwrap().revision, 1);
    healthy(&control, &[("a", "10.0.0.1:80")]).await;
    assert_eq!(control.snapshot().revision, 2);
    healthy(&control, &[("a", "10.0.0.1:80")]).await;
    assert_eq!(control.snapshot().revision, 2);
}

#[tokio::test]
async fn a_change_that_no_map_shows_is_a_revision_too() {
    let control = control();
    control.submit(declare(vec![service("web", &[("a", 1)])])).await.unwrap();
    // It has no verdict yet, so its weight is in no table.
    let applied = control.submit(declare(vec![service("web", &[("a", 7)])])).await.unwrap();
    assert_eq!((applied.revision, applied.changes.len()), (2, 1));
}

#[tokio::test]
async fn a_report_about_an_address_that_has_changed_is_ignored() {
    let control = control();
    control.submit(declare(vec![service("web", &[("a", 1)])])).await.unwrap();
    healthy(&control, &[("a", "10.9.9.9:80")]).await;
    assert_eq!(control.snapshot().services[0].backends[0].health, Health::Unknown);
}

#[tokio::test]
async fn a_backend_with_a_new_address_starts_unknown() {
    let control = control();
    let mut web = service("web", &[("a", 1)]);
    control.submit(declare(vec![web.clone()])).await.unwrap();
    healthy(&control, &[("a", "10.0.0.1:80")]).await;
    web.backends.get_mut("a").unwrap().address = "10.0.0.7:80".parse().unwrap();
    control.submit(declare(vec![web])).await.unwrap();
    assert_eq!(control.snapshot().services[0].backends[0].health, Health::Unknown);
    assert_eq!(shares(&control), [0.0]);
}

#[tokio::test]
async fn l2_dsr_behind_a_gateway_is_refused_and_nothing_changes() {
    let control = control();
    control.submit(declare(vec![service("web", &[("a", 1)])])).await.unwrap();
    control.submit(Command::NextHops(vec![way("10.0.0.2", Some("10.0.0.254"))])).await.unwrap();
    let before = control.snapshot().revision;
    let dsr = Service { forwarding: Forwarding::L2Dsr, ..service("web", &[("a", 1), ("b", 1)]) };
    let refused = control.submit(declare(vec![dsr])).await.unwrap_err();
    assert!(matches!(&refused, Rejected::Invalid { field, .. } if field == "service.web.backend.b.address"));
    assert!(refused.to_string().contains("behind the gateway 10.0.0.254"), "{refused}");
    assert_eq!(control.snapshot().revision, before);
    assert_eq!(control.snapshot().services[0].backends.len(), 1);
}

/// A backend whose link is down is behind the default gateway, as far as the kernel knows.
#[tokio::test]
async fn a_daemon_starts_while_the_way_to_a_backend_that_it_had_leads_through_a_gateway() {
    let fake = Fake::new(LIMITS);
    let with = |backends, gateway| Command::Declare {
        services: vec![Service { forwarding: Forwarding::L2Dsr, ..service("web", backends) }],
        nat: NatPool::default(),
        ways: vec![way("10.0.0.1", None), way("10.0.0.2", gateway)],
        disruptive: false,
    };
    let both: &[_] = &[("a", 1), ("b", 1)];
    let control = control_over(fake.clone());
    control.submit(with(both, None)).await.unwrap();
    drop(control);
    let control = control_over(fake.clone());
    control.submit(with(both, Some("10.0.0.254"))).await.expect("it ran before");
    let reachable = |control: &Handle| {
        control.snapshot().services[0].backends.iter().map(|backend| backend.reachable).collect::<Vec<_>>()
    };
    assert_eq!(reachable(&control), [true, false]);
    drop(control);
    // One that it had not is the file's fault.
    let control = control_over(Fake::new(LIMITS));
    control.submit(with(&both[..1], None)).await.unwrap();
    assert!(control.submit(with(both, Some("10.0.0.254"))).await.is_err());
}

#[tokio::test]
async fn more_than_a_limit_allows_is_refused_and_nothing_changes() {
    let control = control();
    control.submit(declare(vec![service("web", &[("a", 1)])])).await.unwrap();
    let names: Vec<_> = (0..8).map(|n| format!("b{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let refused = control.submit(declare(vec![service("web", &many)])).await.unwrap_err();
    assert!(matches!(refused, Rejected::Limit { limit: "limits.backends", .. }), "{refused}");
    assert_eq!(control.snapshot().services[0].backends.len(), 1);
}

#[tokio::test]
async fn another_algorithm_for_a_live_service_is_refused() {
    let control = control();
    let web = service("web", &[("a", 1)]);
    control.submit(declare(vec![web.clone()])).await.unwrap();
    let other = Service { algorithm: crate::domain::Algorithm::FlowHash, ..web };
    let refused = control.submit(declare(vec![other])).await.unwrap_err();
    assert!(refused.to_string().contains("algorithm of a live service"), "{refused}");
}

#[tokio::test]
async fn another_tunnel_is_a_change_like_any_other_and_nat_is_not() {
    let control = control();
    let of = |forwarding| Service { forwarding, ..service("web", &[("a", 1)]) };
    control.submit(declare(vec![of(Forwarding::Ipip)])).await.unwrap();
    for mode in [Forwarding::Gue, Forwarding::L2Dsr, Forwarding::Ipip] {
        let applied = control.submit(declare(vec![of(mode)])).await.unwrap();
        assert_eq!(applied.changes.len(), 1, "{mode:?}");
    }
    for mode in [Forwarding::Dnat, Forwarding::Nat] {
        let refused = control.submit(declare(vec![of(mode)])).await.unwrap_err();
        assert!(refused.to_string().contains("nor its forwarding to or from dnat and nat"), "{refused}");
    }
    control.submit(declare(vec![])).await.unwrap();
    control.submit(declare(vec![of(Forwarding::Nat)])).await.unwrap();
    for mode in [Forwarding::Dnat, Forwarding::Ipip] {
        assert!(control.submit(declare(vec![of(mode)])).await.is_err(), "{mode:?}");
    }
}

#[tokio::test]
async fn a_service_made_here_and_nat_do_not_share_an_address_and_port() {
    let control = control();
    let nat = NatPool { addresses: vec!["203.0.113.10".parse().unwrap()], ..NatPool::default() };
    let with = |nat: &NatPool| Command::Declare {
        services: vec![],
        nat: nat.clone(),
        ways: vec![],
        disruptive: false,
    };
    let applied = control.submit(with(&nat)).await.unwrap();
    assert_eq!(
        applied.changes[0].to_string(),
        "change nat: the egress address, ports 61000-65535 -> 203.0.113.10, ports 61000-65535"
    );
    let made = |port| {
        let mut made = Service { origin: Origin::Cli, ..service("own", &[]) };
        made.vip.port = port;
        Command::Edit { edit: Edit::AddService(made.into()), ways: vec![] }
    };
    for port in [None, Some(61_000)] {
        let refused = control.submit(made(port)).await.unwrap_err();
        assert!(matches!(&refused, Rejected::Invalid { field, .. } if field == "service.own"), "{refused:?}");
        assert!(refused.to_string().contains("can't share the address and ports"), "{refused}");
    }
    control.submit(with(&NatPool::default())).await.unwrap();
    control.submit(made(None)).await.unwrap();
    let refused = control.submit(with(&nat)).await.unwrap_err();
    assert!(matches!(&refused, Rejected::Invalid { field, .. } if field == "nat"), "{refused:?}");
}

#[tokio::test]
async fn a_service_does_not_share_the_egress_address_and_a_port_with_nat() {
    let behind_nat = || Service { forwarding: Forwarding::Nat, ..service("behind", &[("a", 1)]) };
    // Where replies of backend 10.0.0.1 come to.
    let on_egress = |port| {
        let mut own = service("own", &[]);
        (own.vip.address, own.vip.port) = ("10.0.0.254".parse().unwrap(), port);
        own
    };
    let with = |services: Vec<Service>, nat: &NatPool| Command::Declare {
        services,
        nat: nat.clone(),
        ways: vec![way("10.0.0.1", None)],
        disruptive: false,
    };
    let elsewhere = NatPool { addresses: vec!["192.0.2.1".parse().unwrap()], ..NatPool::default() };
    for (port, nat, fits) in [
        (Some(61_000), NatPool::default(), false),
        (None, NatPool::default(), false),
        (Some(60_999), NatPool::default(), true),
        (Some(61_000), elsewhere, true),
    ] {
        let control = control();
        let outcome = control.submit(with(vec![behind_nat(), on_egress(port)], &nat)).await;
        assert_eq!(outcome.is_ok(), fits, "{port:?} {nat}: {outcome:?}");
        if let Err(refused) = outcome {
            assert!(
                matches!(&refused, Rejected::Invalid { field, .. } if field == "service.own"),
                "{refused:?}"
            );
            assert!(refused.to_string().contains("reaches backends of `nat`"), "{refused}");
        }
    }
    let control = control();
    control.submit(with(vec![on_egress(None)], &NatPool::default())).await.expect("nobody translates");
    let mut made = Service { origin: Origin::Cli, ..behind_nat() };
    made.vip.port = Some(81);
    let ways = vec![way("10.0.0.1", None)];
    let added = Command::Edit { edit: Edit::AddService(made.into()), ways };
    assert!(control.submit(added).await.is_err(), "the change that makes them clash is refused, too");
}

/// What the kernel says can't be refused; nor is anything else for it.
#[tokio::test]
async fn a_clash_that_the_kernels_news_brings_is_told_and_keeps_out_only_what_makes_it_worse() {
    let services = |weight| {
        let behind = Service { forwarding: Forwarding::Nat, ..service("behind", &[("a", weight)]) };
        let mut own = Service { forwarding: Forwarding::Dnat, ..service("own", &[("b", 1)]) };
        (own.vip.address, own.vip.port) = ("10.0.0.254".parse().unwrap(), Some(61_000));
        vec![behind, own]
    };
    let with = |weight, source| Command::Declare {
        services: services(weight),
        nat: NatPool::default(),
        ways: vec![way_from(source, "10.0.0.1", None)],
        disruptive: false,
    };
    let fake = Fake::new(LIMITS);
    let control = control_over(fake.clone());
    control.submit(with(1, "10.0.0.9")).await.expect("no clash yet");
    let clashes = |control: &Handle| {
        control
            .snapshot()
            .nat_clashes
            .iter()
            .map(|(name, why)| (name.to_string(), why.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(clashes(&control), []);
    control.submit(Command::NextHops(vec![way("10.0.0.1", None)])).await.unwrap();
    let told = clashes(&control);
    assert!(
        matches!(told.as_slice(), [(name, why)] if name == "own" && why.contains("reaches backends of `nat`"))
    );

    let made = |name_, address: &str, port| {
        let mut made = Service { origin: Origin::Cli, ..service(name_, &[]) };
        (made.vip.address, made.vip.port) = (address.parse().unwrap(), Some(port));
        Command::Edit { edit: Edit::AddService(made.into()), ways: vec![] }
    };
    control.submit(made("other", "203.0.113.10", 81)).await.expect("it has nothing to do with it");
    control.submit(with(2, "10.0.0.9")).await.expect("nor has that");
    let found = Command::Found { answers: Vec::new(), ways: Vec::new() };
    control.submit(found).await.expect("nor what is found");
    let worse = control.submit(made("worse", "10.0.0.254", 61_001)).await.unwrap_err();
    assert!(matches!(&worse, Rejected::Invalid { field, .. } if field == "service.worse"), "{worse:?}");
    assert_eq!(clashes(&control), told);

    // It keeps no daemon from starting that had these services, and every other one.
    drop(control);
    let control = control_over(fake);
    control.submit(with(2, "10.0.0.254")).await.expect("it ran before");
    assert_eq!(clashes(&control), told);
    assert!(control_over(Fake::new(LIMITS)).submit(with(2, "10.0.0.254")).await.is_err());

    control.submit(Command::NextHops(vec![way_from("10.0.0.9", "10.0.0.1", None)])).await.unwrap();
    assert_eq!(clashes(&control), []);
}

#[tokio::test]
async fn a_limit_is_told_with_the_part_of_the_file_that_meets_it() {
    let control = control_over(Fake::new(Limits { source_prefixes: 2, ..LIMITS }));
    let with = |deny: &[&str]| {
        let mut web = service("web", &[("a", 1)]);
        web.admission.deny = deny.iter().map(|prefix| prefix.parse().unwrap()).collect();
        declare(vec![web])
    };
    control.submit(with(&["10.0.0.0/8"])).await.unwrap();
    // Two are allowed, but not two beside the one that is in use until then.
    let refused = control.submit(with(&["10.0.0.0/9", "11.0.0.0/8"])).await.unwrap_err();
    let Rejected::Limit { limit, field, .. } = refused else { panic!("{refused}") };
    assert_eq!((limit, field.as_deref()), ("limits.source_prefixes", Some("service.web.admission")));
}

#[tokio::test]
async fn a_plan_tells_what_would_change_and_changes_nothing() {
    let control = control();
    let applied = control.plan(declare(vec![service("web", &[("a", 1)])])).await.unwrap();
    let told: Vec<_> = applied.changes.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["add service web", "add backend web/a"]);
    assert!(control.snapshot().services.is_empty());
}

#[tokio::test]
async fn a_plan_tells_what_clients_will_notice_once_new_backends_are_probed() {
    let control = control();
    control.submit(declare(vec![service("web", &[("a", 1), ("b", 1)])])).await.unwrap();
    healthy(&control, &[("a", "10.0.0.1:80"), ("b", "10.0.0.2:80")]).await;
    let before = shares(&control);
    let scaled = || declare(vec![service("web", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)])]);
    let planned = control.plan(scaled()).await.unwrap();
    let [(web, impact)] = planned.impacts.as_slice() else { panic!("{planned:?}") };
    assert_eq!((web.as_str(), impact.slots), ("web", 1024));
    assert!((512..550).contains(&impact.moved), "about half go to the new ones: {impact:?}");
    assert_eq!(shares(&control), before);
    // Nothing moves when it is made, and as many as was told when they have passed.
    let applied = control.submit(scaled()).await.unwrap();
    assert_eq!((applied.impacts.len(), shares(&control)), (0, vec![before[0], before[1], 0.0, 0.0]));
    healthy(&control, &[("c", "10.0.0.3:80"), ("d", "10.0.0.4:80")]).await;
    let moved: f64 = shares(&control).iter().skip(2).sum();
    // A few go from one old backend to the other, as always with Maglev.
    let moved = (moved * 1024.0) as u32;
    assert!((moved..moved + 51).contains(&impact.moved), "{moved} {impact:?}");
    // However slowly they start.
    let slow = |weight| {
        let web = service("web", &[("a", 1), ("b", weight)]);
        declare(vec![Service { slow_start: std::time::Duration::from_secs(60), ..web }])
    };
    control.submit(slow(0)).await.unwrap();
    let planned = control.plan(slow(1)).await.unwrap();
    assert!((512..550).contains(&planned.impacts[0].1.moved), "half in the end: {planned:?}");
    control.submit(scaled()).await.unwrap();
    healthy(&control, &[("c", "10.0.0.3:80"), ("d", "10.0.0.4:80")]).await;
    // The same again, and a weight that nobody feels, are nothing to clients.
    assert_eq!(control.plan(scaled()).await.unwrap().impacts, []);
    let gone = control.plan(declare(vec![])).await.unwrap();
    assert_eq!(gone.impacts[0].1.moved, 1024);
}

#[tokio::test]
async fn only_a_disruptive_declaration_replaces_a_live_service() {
    let control = control();
    let web = service("web", &[("a", 1)]);
    control.submit(declare(vec![web.clone()])).await.unwrap();
    healthy(&control, &[("a", "10.0.0.1:80")]).await;
    let other = || Service { forwarding: Forwarding::Nat, ..web.clone() };
    assert!(control.submit(declare(vec![other()])).await.is_err());
    let disruptive = Command::Declare {
        services: vec![other()],
        nat: NatPool::default(),
        ways: Vec::new(),
        disruptive: true,
    };
    assert_eq!(control.plan(disruptive.clone()).await.unwrap().impacts[0].1.moved, 1024);
    control.submit(disruptive).await.unwrap();
    let snapshot = control.snapshot();
    let view = &snapshot.services[0];
    assert_eq!((view.service.forwarding, view.backends[0].share), (Forwarding::Nat, 1.0));
    assert_eq!(view.backends[0].health, Health::Healthy, "it is the same server");
}

#[tokio::test]
async fn a_replacement_that_fails_half_way_is_taken_back_and_keeps_nobody_from_the_next_change() {
    let web = service("web", &[("a", 1)]);
    let disruptive = Command::Declare {
        services: vec![Service { forwarding: Forwarding::Nat, ..web.clone() }],
        nat: NatPool::default(),
        ways: Vec::new(),
        disruptive: true,
    };
    let mut failed = 0;
    for fails_at in 0.. {
        let fake = Fake::new(LIMITS);
        let faulty = Faulty::new(fake.clone(), fails_at);
        let calls = faulty.calls();
        let Ok(reconciler) = Reconciler::restore(Box::new(faulty)) else { continue };
        let store = Box::new(MemoryStore::default());
        let control = start(reconciler, Arc::new(PublishStats::new()), store, Default::default());
        let up = Command::Health(vec![report("a", "10.0.0.1:80", Health::Healthy)]);
        if control.submit(declare(vec![web.clone()])).await.is_err() || control.submit(up).await.is_err() {
            continue;
        }
        if calls.load(Ordering::Relaxed) > fails_at {
            continue;
        }
        match control.submit(disruptive.clone()).await {
            Err(error) => {
                assert!(matches!(error, Rejected::Dataplane(_)), "call {fails_at}: {error}");
                failed += 1;
            }
            Ok(_) if calls.load(Ordering::Relaxed) > fails_at => continue,
            Ok(_) => break,
        }
        // At once, without waiting for the clock, and without anything being replaced.
        for weight in [1, 2] {
            let next = control.submit(declare(vec![service("web", &[("a", weight)])])).await;
            next.unwrap_or_else(|error| panic!("call {fails_at}, weight {weight}: {error}"));
        }
        assert_eq!(shares(&control), [1.0], "call {fails_at}");
        assert_eq!(fake.service_records().unwrap().len(), 1, "call {fails_at}");
    }
    assert!(failed > 5, "only {failed} calls failed");
}

#[tokio::test]
async fn ready_means_attached_and_published_and_nothing_about_backends() {
    let control = control();
    assert!(!control.snapshot().ready);
    control.submit(declare(vec![service("web", &[("a", 1)])])).await.unwrap();
    assert!(!control.snapshot().ready);
    let interface = InterfaceView { name: "eth0".to_owned(), mode: "native", attached: true };
    control.submit(Command::Interfaces(vec![interface.clone()])).await.unwrap();
    assert!(control.snapshot().ready);
    control.submit(Command::Interfaces(vec![InterfaceView { attached: false, ..interface }])).await.unwrap();
    assert!(!control.snapshot().ready);
}

#[tokio::test]
async fn a_restart_changes_no_slot_and_keeps_health_and_next_hops() {
    let fake = Fake::new(LIMITS);
    let before = control_over(fake.clone());
    let web = service("web", &[("a", 1), ("b", 1)]);
    before.submit(declare(vec![web.clone()])).await.unwrap();
    before.submit(Command::NextHops(vec![way("10.0.0.1", None), way("10.0.0.2", None)])).await.unwrap();
    healthy(&before, &[("a", "10.0.0.1:80")]).await;
    let old = before.snapshot();
    drop(before);

    fake.clear_log();
    let after = control_over(fake.clone());
    // The neighbour task may be quicker than the file; that alone must publish nothing.
    after.submit(Command::NextHops(vec![way("10.0.0.1", None), way("10.0.0.2", None)])).await.unwrap();
    after.submit(declare(vec![web])).await.unwrap();
    let new = after.snapshot();
    assert_eq!(fake.slots_changed(), 0);
    assert_eq!(new.services[0].fingerprint, old.services[0].fingerprint);
    for (old, new) in old.services[0].backends.iter().zip(&new.services[0].backends) {
        assert_eq!((old.index, old.health, old.reachable), (new.index, new.health, new.reachable));
    }
}
