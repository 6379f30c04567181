//! What a change would do, told before it is made, and then made.

use super::*;
use crate::domain::Tracking;

fn tracking_always(service: &mut DesiredService) {
    service.spec = Arc::new(Service { tracking: Tracking::Always, ..Service::clone(&service.spec) });
}

fn impact(reconciler: &Reconciler, desired: &Desired, now: u64) -> Impact {
    let id = encode::service_id(&testing::name("a"));
    reconciler.preview(desired, at(now)).expect("it fits")[&id]
}

/// Live flows of a backend, as the data plane would have made them.
fn flows(fake: &Fake, index: u32, count: usize, now: u64) {
    use lb_common::abi::{FLOW_CONFIRMED, FlowEntry};
    let empty = fake.words().flows.iter().filter(|word| word.load(std::sync::atomic::Ordering::Relaxed) == 0);
    for (number, word) in (1u32..).zip(empty.take(count)) {
        let entry = FlowEntry::new(number, FLOW_CONFIRMED, now as u32, index);
        word.store(entry.word(), std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn as_many_slots_move_as_was_told_and_none_of_them_before() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    let new = impact(&reconciler, &serving(3, |_| ()), 1000);
    let nobody = Impact { slots: 1024, moved: 0, flows_ending: Some(0), flows_draining: Some(0) };
    assert_eq!((new, new.is_felt()), (nobody, false));
    reconciler.apply(&serving(3, |_| ()), at(1000)).expect("it fits");
    assert_eq!(impact(&reconciler, &serving(3, |_| ()), 1001), nobody);
    for (count, second) in [(4, 1001), (2, 1002), (3, 1003)] {
        let desired = serving(count, |_| ());
        let before: Vec<_> = (0..1024).map(|slot| fake.slot(slot).current()).collect();
        fake.clear_log();
        let told = impact(&reconciler, &desired, second);
        assert_eq!(fake.operations(), []);
        reconciler.apply(&desired, at(second)).expect("it fits");
        let moved = (0..1024).filter(|slot| fake.slot(*slot).current() != before[*slot as usize]).count();
        assert!(moved > 100 && told.moved as usize == moved, "{told:?}, moved {moved}");
    }
}

#[test]
fn flows_that_end_or_whose_backend_drains_are_told_where_all_are_known() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    let mut published = reconciler.apply(&serving(3, tracking_always), at(1000)).expect("it fits");
    let indices: Vec<_> = (0..3).map(|number| index_of(&reconciler, number)).collect();
    for (index, count) in indices.iter().zip([5, 7, 11]) {
        flows(&fake, *index, count, 1000);
    }
    tick(&mut reconciler, &mut published, 1000..=1002);
    let gone = impact(&reconciler, &serving(2, tracking_always), 1003);
    assert_eq!((gone.flows_ending, gone.flows_draining), (Some(0), Some(11)));
    let disabled = serving(3, |service| {
        tracking_always(service);
        let backend = &mut service.backends[1];
        (backend.admin, backend.weight, backend.accepts_existing) = (Admin::Disabled, 0, false);
    });
    let disabled = impact(&reconciler, &disabled, 1003);
    assert_eq!((disabled.flows_ending, disabled.flows_draining), (Some(7), Some(0)));
    let removed = impact(&reconciler, &Desired::default(), 1003);
    assert_eq!((removed.moved, removed.flows_ending, removed.flows_draining), (1024, Some(23), Some(0)));
    // One that leaves already is no news.
    reconciler.apply(&serving(2, tracking_always), at(1003)).expect("it fits");
    let again = impact(&reconciler, &serving(2, tracking_always), 1004);
    assert_eq!((again.moved, again.flows_draining), (0, Some(0)));
}

#[test]
fn flows_that_nobody_counts_are_unknown() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake)).expect("an empty fake");
    reconciler.apply(&serving(3, |_| ()), at(1000)).expect("it fits");
    let gone = impact(&reconciler, &serving(2, |_| ()), 1001);
    assert_eq!((gone.flows_ending, gone.flows_draining), (Some(0), None));
    let removed = impact(&reconciler, &Desired::default(), 1001);
    assert_eq!((removed.moved, removed.flows_ending), (1024, None));
}
