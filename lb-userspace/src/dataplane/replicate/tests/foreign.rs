//! What is said of what is not here.

use std::{sync::atomic::Ordering, time::Duration};

use super::{BITS, IDLE, START, fleet::Fleet};
use crate::{
    dataplane::replicate::{FleetMap, Replicator},
    peers::{FlowFate, wire},
};

#[test]
fn a_flow_of_a_service_or_to_a_backend_that_is_not_here_is_refused_and_counted() {
    let mut fleet = Fleet::new(2, 1, true);
    fleet.lost = 0;
    fleet.run(5);
    let id = fleet.member(0).map.services[0].id;
    let backend = fleet.member(0).map.name(1);
    let record = wire::Record { hash: 5, backend, age: 0, closing: false, changed: false, doubtful: false };
    let elsewhere = wire::ServiceId { port: 81, ..id };
    let shape = wire::Shape { slots_log2: 9, ..id.shape };
    let other_idle = wire::Shape { idle: id.shape.idle + 1, ..id.shape };
    for (service, bits, record, fate) in [
        (elsewhere, BITS, record, FlowFate::UnknownService),
        (wire::ServiceId { shape, ..id }, BITS, record, FlowFate::OtherService),
        (id, BITS, wire::Record { backend: 1, ..record }, FlowFate::UnknownBackend),
        (id, BITS - 1, record, FlowFate::OtherTable),
        (id, BITS, wire::Record { age: 60, ..record }, FlowFate::Outdated),
        (id, BITS, record, FlowFate::Taken),
        (
            wire::ServiceId { shape: other_idle, ..id },
            BITS,
            wire::Record { hash: 6, ..record },
            FlowFate::Taken,
        ),
    ] {
        let boot = Duration::from_secs(START) + Duration::from_millis(fleet.now);
        let (body, _) = wire::flows(service, bits, &[record]).remove(0);
        fleet.member(0).endpoint.send(None, wire::Kind::Flows, body, 1, boot);
        let before = fleet.member(1).replicator.fates.get(&fate).copied().unwrap_or_default();
        let old: Vec<_> = fleet.member(1).flows.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        fleet.run(4);
        let member = fleet.member(1);
        assert_eq!(member.replicator.fates.get(&fate).copied().unwrap_or_default(), before + 1, "{fate:?}");
        let new: Vec<_> = member.flows.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        assert_eq!(old == new, fate != FlowFate::Taken, "{fate:?}");
    }
}

#[test]
fn what_is_said_of_a_backend_that_comes_later_is_taken_in_when_it_comes() {
    let mut fleet = Fleet::new(2, 1, true);
    fleet.lost = 0;
    fleet.run(5);
    let id = fleet.member(0).map.services[0].id;
    let backend = fleet.member(1).map.name(1);
    let whole = fleet.member(1).map.clone();
    let mut without = whole.clone();
    without.services[0].backends.remove(&backend);
    without.generation = 1;
    fleet.member(1).map = without;
    let record = wire::Record { hash: 5, backend, age: 0, closing: false, changed: false, doubtful: false };
    let boot = Duration::from_secs(START) + Duration::from_millis(fleet.now);
    let (body, _) = wire::flows(id, BITS, &[record]).remove(0);
    fleet.member(0).endpoint.send(None, wire::Kind::Flows, body, 1, boot);
    fleet.run(4);
    assert_eq!(fleet.member(1).replicator.fates[&FlowFate::UnknownBackend], 1);
    fleet.member(1).map = whole;
    fleet.member(1).map.generation = 2;
    fleet.run(1);
    assert_eq!(fleet.member(1).replicator.fates[&FlowFate::Taken], 1);
}

#[test]
fn a_service_that_one_member_removes_keeps_nothing_tracked_at_the_other() {
    let mut fleet = Fleet::new(2, 4, true);
    fleet.run(10);
    fleet.publish(0, 2..6);
    fleet.run(3);
    assert!(fleet.member(1).tracked() > 0);
    fleet.connections.clear();
    fleet.routes = vec![1];
    fleet.member(0).map = FleetMap::default();
    fleet.run(u64::from(Replicator::kept(IDLE)) + 14);
    assert_eq!(fleet.member(1).tracked(), 0);
}
