//! Live services that are replaced because they can't become what is wanted.

use super::*;
use crate::domain::{Algorithm, Forwarding};

/// Another algorithm and another size than in [`serving`], if replacing it is allowed.
fn remapped(disruptive: bool) -> Desired {
    let service = serving(3, |service| {
        let spec = Service::clone(&service.spec);
        let (algorithm, table_size) = (Algorithm::FlowHash, TableSize::new(2048).expect("a power of two"));
        service.spec = Arc::new(Service { algorithm, table_size, ..spec });
    });
    Desired { disruptive, ..service }
}

/// Stable ids that the live entry of service a leads to, and the numbers its backends have.
fn found(fake: &Fake) -> (HashSet<StableId>, HashSet<u32>) {
    let entry = fake.service_entry(&key(&serving(1, |_| ()).services[0])).expect("it is live");
    let slots = 1 << (64 - entry.slot_shift);
    let indices: HashSet<u32> = (0..slots)
        .map(|slot| fake.slot(entry.slots_base + slot).current())
        .filter(|index| *index != 0)
        .collect();
    for index in &indices {
        assert_eq!(fake.backend(*index).service, entry.service, "of another service");
        assert!(fake.backend(*index).state & STATE_EXISTING_FLOWS != 0);
    }
    (indices.iter().map(|index| fake.backend(*index).stable_id).collect(), indices)
}

fn wanted_ids() -> HashSet<StableId> {
    serving(3, |_| ()).services[0].backends.iter().map(|backend| backend.id).collect()
}

#[test]
fn a_service_is_replaced_under_another_number_and_only_if_that_is_asked_for() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    reconciler.apply(&serving(3, |_| ()), at(1000)).expect("it fits");
    let (_, before) = found(&fake);
    let number = fake.service_entry(&key(&serving(1, |_| ()).services[0])).expect("live").service;
    let refused = reconciler.apply(&remapped(false), at(1001)).expect_err("clients would move");
    assert!(refused.to_string().contains("--disruptive"), "{refused}");
    let id = encode::service_id(&testing::name("a"));
    let told = reconciler.preview(&remapped(true), at(1001)).expect("it fits")[&id];
    assert_eq!((told.moved, told.flows_ending), (1024, None));

    fake.clear_log();
    let published = reconciler.apply(&remapped(true), at(1001)).expect("it fits");
    let (ids, indices) = found(&fake);
    assert_eq!(ids, wanted_ids());
    assert!(indices.is_disjoint(&before), "what flows have left leads to them");
    let entry = fake.service_entry(&key(&remapped(true).services[0])).expect("live");
    assert_eq!((entry.slot_shift, entry.service == number), (64 - 11, false));
    assert!(before.iter().all(|index| fake.backend(*index).state == 0));
    assert_eq!(published.services[&id].leaving.len(), 0);
    assert_eq!(fake.service_records().expect("the fake").len(), 1);
    // One word leads from the one to the other, after everything it leads to is there.
    let operations = fake.operations();
    let switch = operations.iter().position(|operation| matches!(operation, Operation::PublishServices(..)));
    let last = operations.iter().rposition(|operation| matches!(operation, Operation::WriteBackend(..)));
    assert!(last.is_some() && last < switch, "{operations:?}");
    // From then on it is a service like any other.
    assert!(!reconciler.apply(&remapped(false), at(1002)).expect("it fits").changed);
}

#[test]
fn modes_and_addresses_that_can_not_change_are_replaced_alike() {
    let with = |forwarding, port, disruptive| {
        let desired = serving(2, |service| {
            let mut spec = Service { forwarding, ..Service::clone(&service.spec) };
            spec.vip.port = Some(port);
            service.spec = Arc::new(spec);
        });
        Desired { disruptive, ..desired }
    };
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake)).expect("an empty fake");
    let mut now = 1000;
    reconciler.apply(&with(Forwarding::Ipip, 80, false), at(now)).expect("it fits");
    for (forwarding, port) in
        [(Forwarding::Nat, 80), (Forwarding::Nat, 81), (Forwarding::Dnat, 81), (Forwarding::Gue, 81)]
    {
        now += 1;
        assert!(reconciler.apply(&with(forwarding, port, false), at(now)).is_err(), "{forwarding:?} {port}");
        reconciler.apply(&with(forwarding, port, true), at(now)).expect("it fits");
    }
}

#[test]
fn a_replacement_that_is_cut_short_leaves_one_service_the_old_or_the_new() {
    for fails_at in 0.. {
        let fake = Fake::new(LIMITS);
        let mut first = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
        first.apply(&serving(3, |_| ()), at(1000)).expect("it fits");
        let faulty = Faulty::new(fake.clone(), fails_at);
        let calls = faulty.calls();
        if let Ok(mut killed) = Reconciler::restore(Box::new(faulty)) {
            let _ = killed.apply(&remapped(true), at(1001));
        }
        assert_eq!(found(&fake).0, wanted_ids(), "killed at call {fails_at}");
        let entry = fake.service_entry(&key(&remapped(true).services[0])).expect("live");
        let is_new = entry.slot_shift == 64 - 11;
        // The next daemon goes on with the one that is live, of which it knows every backend.
        let mut next = Reconciler::restore(Box::new(fake.clone())).expect("the fake");
        assert_eq!(next.records.len(), 1, "killed at call {fails_at}");
        let (_, live) = found(&fake);
        assert!(live.iter().all(|index| next.backends.contains_key(index)), "killed at call {fails_at}");
        let same = if is_new { remapped(false) } else { serving(3, |_| ()) };
        next.apply(&same, at(1002)).expect("it is what is live");
        assert_eq!(found(&fake), (wanted_ids(), live), "killed at call {fails_at}");
        assert_eq!(fake.service_records().expect("the fake").len(), 1, "killed at call {fails_at}");
        if calls.load(std::sync::atomic::Ordering::Relaxed) <= fails_at {
            assert!(is_new, "nothing failed");
            return;
        }
    }
}
