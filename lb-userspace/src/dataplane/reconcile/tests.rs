//! Random histories over a fake data plane: after each step the maps say what was wanted, and a step that fails leaves
//! nothing that leads astray.

mod admission;
mod crashes;
mod disruptive;
mod nat;
mod preview;
mod replication;

use std::{collections::HashSet, sync::Arc};

use lb_common::abi::{NextHop, STATE_EXISTING_FLOWS, STATE_IN_USE, STATE_IPV6, ServiceKey};
use proptest::prelude::*;

use super::*;
use crate::{
    control::Hop,
    dataplane::{
        Fake, Faulty, Operation,
        desired::{DesiredBackend, DesiredService, Way},
    },
    domain::{Admin, Service, TableSize, Vip, testing},
};

const LIMITS: Limits = Limits {
    services: 4,
    backends: 64,
    lookup_slots: 16 << 10,
    flow_entries: 1024,
    nat_flows: 1024,
    source_prefixes: 1024,
};

/// Services a to d, each with some of the backends 0 to 5: weight and which way leads there.
type Wanted = Vec<Option<Vec<Option<(u16, Option<u8>)>>>>;

fn wanted() -> impl Strategy<Value = Wanted> {
    let backend = proptest::option::weighted(0.7, (0u16..4, proptest::option::of(0u8..4)));
    let service = proptest::option::weighted(0.7, proptest::collection::vec(backend, 6));
    proptest::collection::vec(service, 4)
}

fn desired(wanted: &Wanted) -> Desired {
    let services = wanted.iter().enumerate().filter_map(|(number, backends)| {
        let backends = backends.as_ref()?;
        let name = ["a", "b", "c", "d"][number];
        let port = 80 + u16::try_from(number).ok()?;
        let address = "203.0.113.10".parse().ok()?;
        let spec =
            Arc::new(Service { vip: Vip { address, port: Some(port) }, ..testing::service(name, &[]) });
        let backends = backends.iter().enumerate().filter_map(|(number, wanted)| {
            let (weight, way) = (*wanted)?;
            let way = way.map_or(Way::Unresolved, |way| Way::Resolved(hop(number, way)));
            Some(backend(&spec.name, number, weight, way))
        });
        let backends = backends.collect();
        Some(with_backends(spec, backends))
    });
    Desired { services: services.collect(), ..Desired::default() }
}

/// Healthy and active, at an address of its own.
fn backend(service: &Name, number: usize, weight: u16, way: Way) -> DesiredBackend {
    let name = testing::name(&format!("b{number}"));
    let address = format!("10.0.0.{}:80", number + 1).parse().expect("an address");
    DesiredBackend {
        id: encode::backend_id(service, &name, address),
        name,
        address,
        admin: Admin::Active,
        health: Health::Healthy,
        weight,
        accepts_existing: true,
        left_table_at: 0,
        started_at: 0,
        drain_deadline: 0,
        way,
    }
}

fn with_backends(spec: Arc<Service>, backends: Vec<DesiredBackend>) -> DesiredService {
    let id = encode::service_id(&spec.name);
    DesiredService { id, backends, panics: false, rejects: false, cut: Vec::new(), spec }
}

fn at(seconds: u64) -> Moment {
    let now = std::time::Duration::from_secs(seconds);
    Moment { monotonic: now, boot: now }
}

fn hop(number: usize, way: u8) -> Hop {
    let last = u8::try_from(number).unwrap_or_default();
    Hop {
        mac: [2, 0, 0, 0, 0, last],
        ifindex: 2 + u32::from(way),
        source_mac: [2, 0, 0, 0, 1, way],
        mtu: 1500,
        source: "10.0.0.254".parse().expect("an address"),
    }
}

/// What a packet for this service would find: the stable ids of the backends in its table, or `None` for no service.
fn reachable(fake: &Fake, key: &ServiceKey) -> Option<HashSet<StableId>> {
    let entry = fake.service_entry(key)?;
    let slots = TableSize::new(1024)?.slots();
    let indices: HashSet<u32> = (0..slots).map(|slot| fake.slot(entry.slots_base + slot).current()).collect();
    Some(indices.into_iter().filter(|index| *index != 0).map(|index| fake.backend(index).stable_id).collect())
}

fn key(service: &DesiredService) -> ServiceKey {
    encode::service_key(service.spec.vip, service.spec.protocol)
}

fn says(fake: &Fake, desired: &Desired) -> Result<(), TestCaseError> {
    for service in &desired.services {
        let chosen = service.backends.iter().filter(|backend| backend.weight > 0);
        let expected: HashSet<_> = chosen.map(|backend| backend.id).collect();
        prop_assert_eq!(reachable(fake, &key(service)), Some(expected));
        let entry = fake.service_entry(&key(service)).expect("looked at above");
        for slot in 0..1024 {
            let index = fake.slot(entry.slots_base + slot).current();
            let Some(backend) = service.backends.iter().find(|b| fake.backend(index).stable_id == b.id)
            else {
                continue;
            };
            let value = fake.backend(index);
            prop_assert_eq!(value.address, encode::mapped(backend.address.ip()));
            prop_assert!(value.state & STATE_EXISTING_FLOWS != 0);
            let next_hop = NextHop(value.next_hop);
            match &backend.way {
                Way::Resolved(hop) => {
                    prop_assert_eq!(next_hop.mac(), hop.mac);
                    prop_assert_eq!(fake.egress(next_hop.egress()), encode::egress(hop));
                }
                _ => prop_assert_eq!(next_hop, NextHop::UNRESOLVED),
            }
        }
    }
    let live = fake.published().0.into_iter().filter(|entry| entry.key.port != [0; 2]).count();
    prop_assert_eq!(live, desired.services.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_maps_say_what_was_last_wanted_whatever_came_before(
        steps in proptest::collection::vec((wanted(), any::<bool>()), 1..12),
    ) {
        let fake = Fake::new(LIMITS);
        let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
        for (now, (wanted, restart)) in (0u64..).step_by(10).zip(&steps) {
            if *restart {
                reconciler = Reconciler::restore(Box::new(fake.clone())).expect("the fake");
            }
            let desired = desired(wanted);
            reconciler.apply(&desired, at(now)).expect("nothing fails");
            says(&fake, &desired)?;
            // The same again is no change.
            fake.clear_log();
            prop_assert!(!reconciler.apply(&desired, at(now)).expect("nothing fails").changed);
            prop_assert_eq!(fake.operations().len(), 0);
        }
    }

    #[test]
    fn a_step_that_fails_leads_nobody_astray_and_the_next_one_mends_it(
        (before, after, fails_at) in (wanted(), wanted(), 0usize..60),
    ) {
        let fake = Fake::new(LIMITS);
        let (before, after) = (desired(&before), desired(&after));
        let mut first = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
        first.apply(&before, at(0)).expect("nothing fails");

        let faulty = Faulty::new(fake.clone(), fails_at);
        if let Ok(mut reconciler) = Reconciler::restore(Box::new(faulty)) {
            // It may fail or not. Whoever is reached is a backend of that service, old or new.
            let _ = reconciler.apply(&after, at(100));
            for service in before.services.iter().chain(&after.services) {
                let both = before.services.iter().chain(&after.services).filter(|other| other.id == service.id);
                let allowed: HashSet<_> = both.flat_map(|service| &service.backends).map(|b| b.id).collect();
                let reached = reachable(&fake, &key(service)).unwrap_or_default();
                prop_assert!(reached.is_subset(&allowed));
            }
        }
        let mut mended = Reconciler::restore(Box::new(fake.clone())).expect("the fake");
        mended.apply(&after, at(200)).expect("nothing fails");
        says(&fake, &after)?;
    }
}

/// Service a with backends 0 to `count`, all taking new flows; `change` has the last word.
fn serving(count: usize, change: impl Fn(&mut DesiredService)) -> Desired {
    let all = desired(&vec![Some(vec![Some((1, Some(0))); count])]);
    let services = all.services.into_iter().map(|mut service| {
        change(&mut service);
        service
    });
    Desired { services: services.collect(), ..all }
}

/// Where the backend with this number in [`serving`] is.
fn index_of(reconciler: &Reconciler, number: usize) -> u32 {
    let service = testing::name("a");
    let address = format!("10.0.0.{}:80", number + 1).parse().expect("an address");
    let id = encode::backend_id(&service, &testing::name(&format!("b{number}")), address);
    reconciler.allocation.backends.get(&id).copied().expect("it has an index")
}

/// Whether what is published has changed, by a tick with which nothing was wrong.
fn fine(ticked: Ticked) -> bool {
    assert!(ticked.trouble.is_none(), "{ticked:?}");
    ticked.changed
}

/// Ticks from one second to another, which scans once a second.
fn tick(reconciler: &mut Reconciler, published: &mut Published, seconds: std::ops::RangeInclusive<u64>) {
    for second in seconds {
        fine(reconciler.tick(at(second), published));
    }
}

#[test]
fn a_backend_that_is_gone_drains_and_its_index_waits_until_nobody_can_remember_it() {
    let fake = Fake::new(Limits { backends: 4, ..LIMITS });
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    reconciler.apply(&serving(3, |_| ()), at(1000)).expect("it fits");
    let gone = index_of(&reconciler, 2);
    let mut published = reconciler.apply(&serving(2, |_| ()), at(1001)).expect("it fits");
    let service = published.services.values().next().expect("one service");
    assert_eq!(service.leaving.iter().map(|backend| backend.index).collect::<Vec<_>>(), [gone]);
    assert_eq!(service.leaving[0].name, Some(testing::name("b2")));
    assert_eq!(fake.backend(gone).state, STATE_IN_USE | STATE_EXISTING_FLOWS);
    assert!((0..1024).map(|slot| fake.slot(slot)).all(|slot| slot.current() != gone));
    assert!((0..1024).map(|slot| fake.slot(slot)).any(|slot| slot.previous() == gone));

    // Another controller goes on with it, and with its deadline.
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("the fake");
    published = reconciler.apply(&serving(2, |_| ()), at(1100)).expect("it fits");
    tick(&mut reconciler, &mut published, 1100..=1301);
    assert_eq!(published.services.values().map(|service| service.leaving.len()).sum::<usize>(), 1);
    tick(&mut reconciler, &mut published, 1302..=1303);
    assert_eq!(published.services.values().map(|service| service.leaving.len()).sum::<usize>(), 0);
    assert_eq!(fake.backend(gone).state, 0);

    // Indices 1 to 3 are all there are. The gone one's is free when its flows are surely idle and two passes found it nowhere.
    let another = serving(4, |service| {
        service.backends.remove(2);
    });
    assert!(matches!(reconciler.apply(&another, at(1304)), Err(ApplyError::Exhausted { .. })));
    tick(&mut reconciler, &mut published, 1304..=2199);
    assert!(reconciler.apply(&another, at(2199)).is_err());
    tick(&mut reconciler, &mut published, 2200..=2203);
    reconciler.apply(&another, at(2203)).expect("the index is free");
    assert_eq!(index_of(&reconciler, 3), gone);
}

#[test]
fn a_backends_family_stands_in_its_state_as_long_as_its_record_does() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    let address = "[2001:db8::1]:80".parse().expect("an address");
    let id = encode::backend_id(&testing::name("a"), &testing::name("b1"), address);
    let mixed = |backend: Option<(u16, bool)>| {
        serving(2, |service| match backend {
            Some((weight, accepts_existing)) => {
                let backend =
                    DesiredBackend { id, address, weight, accepts_existing, ..service.backends[1].clone() };
                service.backends[1] = backend;
            }
            None => drop(service.backends.pop()),
        })
    };
    reconciler.apply(&mixed(Some((1, true))), at(1000)).expect("it fits");
    let index = reconciler.allocation.backends[&id];
    let state = || fake.backend(index).state;
    assert_eq!(state() & STATE_IPV6, STATE_IPV6);
    assert_eq!(fake.backend(1).state & STATE_IPV6, 0);
    let takes = [(0, true), (0, false), (0, true), (2, true)];
    for (backend, second) in takes.into_iter().zip(1001..) {
        reconciler.apply(&mixed(Some(backend)), at(second)).expect("it fits");
        assert_eq!(state() & STATE_IPV6, STATE_IPV6, "{backend:?}");
    }
    reconciler.apply(&mixed(None), at(1010)).expect("it fits");
    assert_eq!(state(), STATE_IN_USE | STATE_EXISTING_FLOWS | STATE_IPV6);
    let mut cut = mixed(None);
    cut.services[0].cut.push(id);
    reconciler.apply(&cut, at(1011)).expect("it fits");
    assert_eq!(state(), STATE_IPV6);
    let operations = fake.operations();
    let stores = operations.iter().filter_map(|operation| match operation {
        Operation::StoreBackendState(of, state) if *of == index => Some(*state),
        _ => None,
    });
    assert!(stores.into_iter().all(|state| state & STATE_IPV6 != 0), "{operations:?}");
    reconciler.apply(&mixed(Some((1, true))), at(1012)).expect("it fits");
    assert_eq!(state() & STATE_IPV6, STATE_IPV6);
}

#[test]
fn a_backend_that_is_cut_takes_nothing_from_then_on() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    reconciler.apply(&serving(3, |_| ()), at(1000)).expect("it fits");
    let cut = index_of(&reconciler, 2);
    let id = fake.backend(cut).stable_id;
    let published = reconciler.apply(&serving(2, |service| service.cut.push(id)), at(1001)).expect("it fits");
    assert!(published.services.values().all(|service| service.leaving.is_empty()));
    assert_eq!(fake.backend(cut).state, 0);
}

#[test]
fn slots_forget_a_backend_before_it_takes_existing_flows_again() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    reconciler.apply(&serving(3, |_| ()), at(1000)).expect("it fits");
    let index = index_of(&reconciler, 2);
    let refusing = |accepts: bool| {
        serving(3, move |service| {
            service.backends[2].weight = 0;
            service.backends[2].accepts_existing = accepts;
        })
    };
    reconciler.apply(&refusing(false), at(1001)).expect("it fits");
    assert!((0..1024).any(|slot| fake.slot(slot).previous() == index));
    fake.clear_log();
    reconciler.apply(&refusing(true), at(1002)).expect("it fits");
    assert!((0..1024).all(|slot| fake.slot(slot).previous() != index));
    let operations = fake.operations();
    let place = |wanted: fn(&Operation) -> bool| operations.iter().position(wanted);
    let forgotten = place(|operation| matches!(operation, Operation::StoreSlots(..)));
    let takes = place(|operation| matches!(operation, Operation::StoreBackendState(..)));
    assert!(forgotten.is_some() && forgotten < takes, "{operations:?}");
}

#[test]
fn each_tick_tells_the_data_plane_what_time_it_is() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    for second in [1000, 1001] {
        fine(reconciler.tick(at(second), &mut Published::default()));
        assert_eq!(fake.clock(), second);
    }
}
