//! What a controller that is killed half-way leaves, and what the next one makes of it.

use lb_common::abi::TRACK_AUTO;

use super::*;
use crate::domain::{
    Algorithm::{self, RoundRobin, SourceHash},
    Tracking,
};

fn service(
    name: &str,
    port: u16,
    algorithm: Algorithm,
    tracking: Tracking,
    backends: &[u8],
) -> DesiredService {
    let vip = Vip { address: "203.0.113.10".parse().expect("an address"), port: Some(port) };
    let spec = Arc::new(Service { vip, algorithm, tracking, ..testing::service(name, &[]) });
    let backends = backends.iter().map(|number| {
        let number = usize::from(*number);
        backend(&spec.name, number, 1, Way::Resolved(hop(number, 0)))
    });
    let backends = backends.collect();
    with_backends(spec, backends)
}

fn only(service: DesiredService) -> Desired {
    Desired { services: vec![service], ..Desired::default() }
}

fn restored(fake: &Fake) -> Reconciler {
    Reconciler::restore(Box::new(fake.clone())).expect("the fake")
}

#[test]
fn backends_of_a_service_that_was_never_there_belong_to_the_next_one_under_its_number() {
    let a = || service("a", 81, RoundRobin, Tracking::Auto, &[1]);
    let b = || service("b", 82, RoundRobin, Tracking::Auto, &[2, 3]);
    let both = Desired { services: vec![a(), b()], ..Desired::default() };
    for fails_at in 0.. {
        let fake = Fake::new(LIMITS);
        let faulty = Faulty::new(fake.clone(), fails_at);
        let Ok(mut killed) = Reconciler::restore(Box::new(faulty)) else { continue };
        if killed.apply(&both, at(10)).is_ok() {
            break;
        }
        let only_b = only(b());
        restored(&fake).apply(&only_b, at(20)).expect("it fits");
        let entry = fake.service_entry(&key(&only_b.services[0])).expect("it is live");
        for slot in 0..1024 {
            let index = fake.slot(entry.slots_base + slot).current();
            assert_eq!(fake.backend(index).service, entry.service, "killed at call {fails_at}");
        }
    }
}

#[test]
fn a_service_record_cut_short_is_none() {
    let desired = only(service("b", 82, RoundRobin, Tracking::Auto, &[2]));
    let whole = Fake::new(LIMITS);
    restored(&whole).apply(&desired, at(10)).expect("it fits");
    let mut record = whole.service_records().expect("the fake")[0].1;
    // Words are stored from the first to the last: killed before the seventh.
    (record.flow_idle_timeout, record.tracking, record.selection) = (0, 0, 0);
    let mut fake = Fake::new(LIMITS);
    fake.write_service_record(0, &record).expect("in range");
    restored(&fake).apply(&desired, at(20)).expect("as if there were none");
}

#[test]
fn slots_stay_tracked_until_the_service_table_tracks_always() {
    let desired = |tracking, backends: &[u8]| only(service("b", 82, SourceHash, tracking, backends));
    let mut met = 0;
    for fails_at in 0..60 {
        let fake = Fake::new(LIMITS);
        let mut reconciler = restored(&fake);
        reconciler.apply(&desired(Tracking::Auto, &[2]), at(10)).expect("it fits");
        reconciler.apply(&desired(Tracking::Auto, &[2, 3]), at(20)).expect("it fits");
        let faulty = Faulty::new(fake.clone(), fails_at);
        let Ok(mut killed) = Reconciler::restore(Box::new(faulty)) else { continue };
        if killed.apply(&desired(Tracking::Always, &[2, 3]), at(30)).is_ok() {
            continue;
        }
        let entry = fake.service_entry(&key(&desired(Tracking::Auto, &[]).services[0])).expect("it is live");
        let base = entry.slots_base;
        let Some(lone) = (base..base + 1024).find(|slot| {
            let slot = fake.slot(*slot);
            slot.is_tracked() && slot.previous() == 0
        }) else {
            continue;
        };
        fine(restored(&fake).tick(at(31), &mut Published::default()));
        if entry.tracking == TRACK_AUTO {
            met += 1;
            assert!(fake.slot(lone).is_tracked(), "killed at call {fails_at}");
        }
    }
    assert!(met > 0, "no kill fell in between");
}

#[test]
fn slots_that_begin_to_be_tracked_have_no_previous_that_nobody_went_to() {
    let desired = |tracking, backends: &[u8]| only(service("b", 82, SourceHash, tracking, backends));
    let fake = Fake::new(LIMITS);
    let mut reconciler = restored(&fake);
    reconciler.apply(&desired(Tracking::Never, &[2]), at(10)).expect("it fits");
    reconciler.apply(&desired(Tracking::Auto, &[2, 3]), at(20)).expect("it fits");
    let entry = fake.service_entry(&key(&desired(Tracking::Auto, &[]).services[0])).expect("it is live");
    for slot in entry.slots_base..entry.slots_base + 1024 {
        let slot = fake.slot(slot);
        assert!(slot.is_tracked() && slot.previous() == 0, "{slot:?}");
    }
}
