//! A new `flow_idle_timeout`, which gets to members one after the other.

use lb_common::flow::Kind as Packet;

use super::{IDLE, LAG, START, fleet::Fleet};

const LONG: u32 = 64;

#[test]
fn flows_are_told_while_members_have_different_timeouts() {
    for seed in 0..4 {
        let (first, second) = if seed % 2 == 0 { (0, 1) } else { (1, 0) };
        let mut fleet = Fleet::new(2, seed, true);
        fleet.run(15);
        for member in 0..2 {
            fleet.publish(member, 2..6);
        }
        fleet.run(2);
        let now = fleet.seconds();
        fleet.member(first).set_idle(LONG, now);
        // Traffic may move meanwhile: the second has all copies for as long as its own timeout says.
        fleet.run(4);
        fleet.lead_to(&[1]);
        fleet.run(4);
        let now = fleet.seconds();
        fleet.member(second).set_idle(LONG, now);
        fleet.run(LAG / 1000);
        fleet.lead_to(&[0]);
        fleet.run(12);
        let now = fleet.seconds();
        fleet.members.iter_mut().flatten().for_each(|member| member.set_idle(IDLE, now));
        // What is held for the longer one.
        fleet.rest(30);
        fleet.finish(&format!("seed {seed}"));
    }
}

/// A member with the old timeout forgets flows that those with the new one have told, and take for told.
#[test]
fn whoever_gets_a_longer_timeout_hears_of_the_flows_that_it_has_forgotten() {
    let mut fleet = Fleet::new(2, 5, true);
    fleet.lost = 0;
    fleet.run(10);
    fleet.member(0).set_idle(LONG, START + 10);
    for member in 0..2 {
        fleet.publish(member, 4..8);
    }
    fleet.run(1);
    fleet.connections.truncate(100);
    let (flows, seconds) = (fleet.connections.clone(), fleet.seconds());
    for flow in &flows {
        fleet.member(0).packet(flow.hash, Packet::Continues, seconds);
        fleet.member(0).packet(flow.hash, Packet::Continues, seconds);
    }
    let copies = |fleet: &mut Fleet, member: usize| {
        let copies = flows.iter().filter(|flow| fleet.member(member).copy(flow.hash) == Some(flow.backend));
        copies.count()
    };
    fleet.rest(3);
    assert_eq!((copies(&mut fleet, 0), copies(&mut fleet, 1)), (flows.len(), flows.len()));
    fleet.rest(u64::from(2 * IDLE));
    assert_eq!((copies(&mut fleet, 0), copies(&mut fleet, 1)), (flows.len(), 0));
    let now = fleet.seconds();
    fleet.member(1).set_idle(LONG, now);
    fleet.rest(3);
    assert_eq!((copies(&mut fleet, 0), copies(&mut fleet, 1)), (flows.len(), flows.len()));
}
