//! Random histories over a fake data plane: after each step the maps say what was wanted, and a step that fails leaves
//! nothing that leads astray.

use std::{collections::HashSet, sync::Arc};

use lb_common::abi::{NextHop, STATE_EXISTING_FLOWS, ServiceKey};
use proptest::prelude::*;

use super::*;
use crate::{
    control::Hop,
    dataplane::{
        Fake, Faulty,
        desired::{DesiredBackend, DesiredService, Way},
    },
    domain::{Admin, Service, TableSize, Vip, testing},
};

const LIMITS: Limits = Limits { services: 4, backends: 64, lookup_slots: 16 << 10, flow_entries: 1024 };

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
        let backends = backends.iter().enumerate().filter_map(|(number, backend)| {
            let (weight, way) = (*backend)?;
            let name = testing::name(&format!("b{number}"));
            let address = format!("10.0.0.{}:80", number + 1).parse().ok()?;
            let way = way.map_or(Way::Unresolved, |way| Way::Resolved(hop(number, way)));
            let id = encode::backend_id(&spec.name, &name, address);
            let (admin, health) = (Admin::Active, Health::Healthy);
            Some(DesiredBackend {
                id,
                name,
                address,
                admin,
                health,
                weight,
                accepts_existing: true,
                left_table_at: 0,
                drain_deadline: 0,
                way,
            })
        });
        let backends = backends.collect();
        Some(DesiredService { id: encode::service_id(&spec.name), backends, cut: Vec::new(), spec })
    });
    Desired { services: services.collect(), ways: Default::default() }
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
