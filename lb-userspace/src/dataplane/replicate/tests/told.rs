//! What is told, and how often.

use std::{sync::atomic::Ordering, time::Duration};

use lb_common::{
    abi::{FlowEntry, TRACK_AUTO},
    flow::Kind as Packet,
};

use super::{IDLE, LAG, START, fleet::Fleet, member::Member};
use crate::dataplane::replicate::Replicator;

/// However long a connection is silent, if only less than the idle timeout.
#[test]
fn a_peer_has_a_copy_of_a_flow_for_as_long_as_the_flow_lives() {
    const LONG: u32 = 64;
    let mut fleet = Fleet::new(2, 5, true);
    fleet.members.iter_mut().flatten().for_each(|member| member.set_idle(LONG, START));
    fleet.run(10);
    for member in 0..2 {
        fleet.publish(member, 4..8);
    }
    fleet.run(1);
    fleet.connections.truncate(150);
    fleet.connections.iter_mut().for_each(|flow| flow.packets = 1);
    let mut flows = fleet.connections.clone();
    let start = fleet.now;
    while fleet.now < start + u64::from(LONG) * 4000 {
        fleet.now += 100;
        let boot = Duration::from_secs(START) + Duration::from_millis(fleet.now);
        fleet.carry(boot);
        let (now, seconds) = (fleet.now, fleet.seconds());
        fleet.members.iter_mut().flatten().for_each(|member| member.tick(Duration::from_millis(now), true));
        for (number, flow) in (0u64..).zip(&mut flows) {
            if flow.packets > 0 && flow.next <= now {
                // Before this there was no entry for it.
                (flow.packets, flow.opened) = (0, now);
            }
            if flow.next <= now {
                assert_eq!(fleet.member(0).packet(flow.hash, Packet::Continues, seconds), Some(flow.backend));
                flow.next = now + 400 + number * 500 % (u64::from(LONG) * 1000 - 900);
            }
            let copy = fleet.member(1).copy(flow.hash);
            let is_new = flow.packets > 0 || now < flow.opened + LAG;
            assert!(is_new || copy == Some(flow.backend), "{now}: {copy:?} of {}", flow.backend);
        }
    }
}

#[test]
fn slots_that_are_the_same_on_both_are_looked_at_once() {
    let mut fleet = Fleet::new(2, 6, true);
    fleet.members[1] = None;
    fleet.run(10);
    let now = Duration::from_secs(START) + Duration::from_millis(fleet.now);
    let mut member = Member::new(1, 2, &[0, 1, 2, 3], TRACK_AUTO, true, now);
    // So that all slots are told.
    member.map.tables = 1;
    fleet.members[1] = Some(member);
    fleet.run(u64::from(Replicator::kept(IDLE)) + 12);
    for number in 0..2 {
        let told = &mut fleet.member(number).replicator.told;
        assert!(!told.is_empty());
        let mut looked_at = 0;
        for peer in told.values_mut() {
            let services: Vec<_> = peer.services().copied().collect();
            for service in services {
                peer.look(&service, false, |_| {
                    looked_at += 1;
                    true
                });
            }
        }
        assert_eq!(looked_at, 0, "member {number}");
    }
}

#[test]
fn in_steady_state_nothing_is_told() {
    let mut fleet = Fleet::new(2, 1, true);
    fleet.lost = 0;
    fleet.run(40);
    let told = |fleet: &Fleet| {
        let members = fleet.members.iter().flatten();
        members.map(|member| member.endpoint.spoken()).collect::<Vec<_>>()
    };
    let before = told(&fleet);
    fleet.run(20);
    assert_eq!(told(&fleet), before);
    assert!(fleet.connections.len() > 100);
}

#[test]
fn a_flow_is_told_once_in_its_idle_timeout() {
    let mut fleet = Fleet::new(2, 1, true);
    fleet.lost = 0;
    fleet.run(15);
    for member in 0..2 {
        fleet.publish(member, 4..8);
    }
    fleet.run(1);
    // A hundred that go on, and nobody else.
    fleet.connections.truncate(100);
    let before = fleet.member(0).endpoint.flows_told();
    let began = fleet.now;
    while fleet.now < began + u64::from(IDLE) * 5000 {
        fleet.now += 100;
        let boot = Duration::from_secs(START) + Duration::from_millis(fleet.now);
        fleet.carry(boot);
        let now = Duration::from_millis(fleet.now);
        fleet.members.iter_mut().flatten().for_each(|member| member.tick(now, true));
        let seconds = fleet.seconds();
        for connection in fleet.connections.clone() {
            let got = fleet.member(0).packet(connection.hash, Packet::Continues, seconds);
            assert_eq!(got, Some(connection.backend));
        }
    }
    let told = fleet.member(0).endpoint.flows_told() - before;
    let flows = fleet.connections.len() as u64;
    assert!((4 * flows..=6 * flows).contains(&told), "{told} records of {flows} flows in 5 idle timeouts");
    let known = fleet
        .member(1)
        .flows
        .iter()
        .filter(|word| FlowEntry::from_word(word.load(Ordering::Relaxed)) != FlowEntry::EMPTY);
    assert!(known.count() as u64 >= flows);
}
