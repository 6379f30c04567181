//! Members that come when others are there.

use std::{sync::atomic::Ordering, time::Duration};

use lb_common::abi::TRACK_AUTO;

use super::{IDLE, LAG, SLOTS, START, fleet::Fleet, member::Member};
use crate::{
    dataplane::replicate::{FleetMap, Replicator, hear::MAX_UNKNOWN, told::PeerSlots},
    peers::wire,
};

#[test]
fn a_member_that_joins_in_the_middle_of_a_window_breaks_none() {
    for seed in 0..6 {
        let mut fleet = Fleet::new(2, seed, true);
        fleet.members[1] = None;
        if seed % 3 == 0 {
            // It has not been there for long either.
            let now = Duration::from_secs(START);
            fleet.members[0] = Some(Member::new(0, 2, &[0, 1, 2, 3], TRACK_AUTO, true, now));
        }
        fleet.run(20);
        fleet.publish(0, 2..6);
        fleet.run(3 + seed % 4);
        fleet.publish(0, 3..7);
        fleet.run(seed % 3);
        let now = Duration::from_secs(START) + Duration::from_millis(fleet.now);
        // Half of them see backends as the others do.
        let serving: Vec<u32> = if seed % 2 == 0 { (3..7).collect() } else { vec![2, 4, 5, 6] };
        fleet.members[1] = Some(Member::new(1, 2, &serving, TRACK_AUTO, true, now));
        fleet.run(LAG / 1000);
        fleet.lead_to(&[1]);
        fleet.run(12);
        fleet.lead_to(&[0, 1]);
        fleet.run(12);
        // Slots that differ are tracked for as long as they do.
        fleet.publish(1, 3..7);
        fleet.run(12);
        fleet.finish(&format!("seed {seed}"));
    }
}

/// Its backends pass their first checks one after the other, and each moves slots.
#[test]
fn a_newcomer_whose_backends_join_one_after_the_other_breaks_none() {
    for seed in 0..4 {
        let mut fleet = Fleet::new(2, seed, true);
        fleet.members[1] = None;
        fleet.run(20);
        let now = Duration::from_secs(START) + Duration::from_millis(fleet.now);
        let mut order: Vec<u32> = (0..4).collect();
        fleet.rng.shuffle(&mut order);
        let member = Member::new(1, 2, &order[..1], TRACK_AUTO, true, now);
        member.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
        fleet.members[1] = Some(member);
        // Half of them find their peer only when all have passed, and their tables are the peer's.
        if seed % 2 == 1 {
            fleet.lost = 100;
        }
        fleet.run(seed % 3);
        for count in 1..=4 {
            fleet.publish(1, order[..count].to_vec());
            fleet.run(1);
        }
        fleet.lost = 15;
        fleet.run(LAG / 1000);
        fleet.lead_to(&[1]);
        fleet.run(12);
        fleet.lead_to(&[0, 1]);
        fleet.run(12);
        fleet.finish(&format!("seed {seed}"));
    }
}

#[test]
fn two_newcomers_take_over_from_whoever_was_there_before_and_not_from_each_other() {
    for seed in 0..3 {
        let mut fleet = Fleet::new(3, seed, true);
        fleet.members[0] = None;
        fleet.members[1] = None;
        fleet.routes = vec![2];
        fleet.run(20);
        fleet.publish(2, 2..6);
        fleet.run(2);
        let now = Duration::from_secs(START) + Duration::from_millis(fleet.now);
        let mut orders = [[2, 3, 4, 5]; 2];
        for (number, order) in orders.iter_mut().enumerate() {
            fleet.rng.shuffle(order);
            let member = Member::new(number, 3, &order[..1], TRACK_AUTO, true, now);
            member.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
            fleet.members[number] = Some(member);
        }
        for count in 1..=4 {
            for (number, order) in orders.iter().enumerate() {
                fleet.publish(number, order[..count].to_vec());
            }
            fleet.run(1);
        }
        fleet.run(LAG / 1000);
        fleet.lead_to(&[0, 1]);
        fleet.run(12);
        fleet.lead_to(&[0, 1, 2]);
        fleet.run(12);
        fleet.finish(&format!("seed {seed}"));
    }
}

#[test]
fn a_newcomer_waits_for_all_peers_that_may_be_there_and_never_again() {
    let joining = |fleet: &mut Fleet| fleet.member(0).replicator.is_joining();
    // By when each of the others comes, in seconds after it, and when it may be done.
    let cases = [
        ([Some(0), Some(0)], 0, 4),
        ([Some(0), Some(10)], 5, 7),
        ([Some(0), None], 5, 7),
        ([None, None], 5, 7),
    ];
    for (comes, least, most) in cases {
        let mut fleet = Fleet::new(3, 7, true);
        fleet.lost = 0;
        let others: Vec<_> = fleet.members.iter_mut().map(Option::take).collect();
        let now = Duration::from_secs(START);
        fleet.members[0] = Some(Member::new(0, 3, &[0, 1, 2, 3], TRACK_AUTO, true, now));
        let mut others: Vec<_> = others.into_iter().skip(1).collect();
        let (mut ended, mut ends) = (None, 0);
        for second in 0..20 {
            for (number, comes) in comes.iter().enumerate() {
                if *comes == Some(second) {
                    fleet.members[number + 1] = others[number].take();
                }
            }
            if !joining(&mut fleet) && ended.is_none() {
                (ended, ends) = (Some(second), ends + 1);
            }
            assert_eq!(joining(&mut fleet), ended.is_none(), "{comes:?} after {second} s");
            fleet.run(1);
        }
        let ended = ended.unwrap();
        assert!((least..=most).contains(&ended), "{comes:?}: {ended} s");
    }
    // Whoever goes on with its maps does not wait.
    assert!(!Fleet::new(2, 8, true).member(0).replicator.is_joining());
}

#[test]
fn a_member_that_starts_without_backends_leaves_nothing_tracked_behind() {
    let mut fleet = Fleet::new(2, 3, true);
    fleet.members[1] = None;
    fleet.run(10);
    let now = Duration::from_secs(START) + Duration::from_millis(fleet.now);
    let mut member = Member::new(1, 2, &[0, 1, 2, 3], TRACK_AUTO, true, now);
    member.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    member.map.tables = 1;
    fleet.members[1] = Some(member);
    fleet.run(5);
    // Its first checks have passed.
    fleet.publish(1, 0..4);
    fleet.run(u64::from(Replicator::kept(IDLE)) + 12);
    assert_eq!((fleet.member(0).tracked(), fleet.member(1).tracked()), (0, 0));
    fleet.lead_to(&[1]);
    fleet.run(12);
    fleet.finish("a start without backends");
}

/// Its services come only when peers have said more than it can keep of them.
#[test]
fn a_newcomer_without_services_is_told_again_when_it_has_them() {
    let mut fleet = Fleet::new(2, 9, true);
    fleet.members[1] = None;
    fleet.run(20);
    fleet.publish(0, 2..6);
    fleet.run(3);
    let mut member = Member::new(1, 2, &[2, 3, 4, 5], TRACK_AUTO, true, fleet.boot());
    member.map = FleetMap::default();
    let id = wire::ServiceId { address: [1; 16], port: 1, protocol: 6, shape: wire::Shape::default() };
    let record =
        wire::Record { hash: 5, backend: 1, age: 0, closing: false, changed: false, doubtful: false };
    let other = wire::Flows { service: id, bucket_bits: 20, records: vec![record] };
    while member.replicator.unknown.len() < MAX_UNKNOWN {
        member.replicator.unknown.push_back((fleet.seconds(), other.clone()));
    }
    fleet.members[1] = Some(member);
    fleet.run(8);
    assert!(fleet.member(1).replicator.is_joining());
    fleet.publish(1, 2..6);
    fleet.run(LAG / 1000);
    assert!(!fleet.member(1).replicator.is_joining());
    fleet.lead_to(&[1]);
    fleet.run(12);
    fleet.finish("a newcomer without services");
}

/// It is cut off when it makes new maps, and heard only when these are old.
#[test]
fn windows_of_new_maps_are_new_however_late_they_are_heard_of() {
    let mut fleet = Fleet::new(2, 10, true);
    fleet.lost = 0;
    fleet.rest(15);
    for member in 0..2 {
        fleet.publish(member, 2..6);
    }
    fleet.rest(2);
    assert!(!fleet.member(1).replicator.told.is_empty());
    fleet.lost = 100;
    fleet.rest(2);
    fleet.members[0] = Some(Member::new(0, 2, &[0, 1, 2, 3], TRACK_AUTO, true, fleet.boot()));
    fleet.publish(1, 0..4);
    fleet.rest(70);
    for member in 0..2 {
        fleet.publish(member, 2..6);
    }
    fleet.rest(4);
    fleet.lost = 0;
    fleet.rest(2);
    let until = fleet.seconds() + u64::from(Replicator::kept(IDLE));
    let holds = &fleet.member(1).world.holds;
    let held = (0..SLOTS).filter(|slot| holds.of(*slot).previous >= until).count();
    assert!(held > 20, "{held}");
}

#[test]
fn what_a_peer_has_said_that_does_not_come_back_is_forgotten() {
    let mut fleet = Fleet::new(2, 11, true);
    fleet.lost = 0;
    fleet.rest(15);
    fleet.publish(0, 2..6);
    fleet.rest(2);
    assert!(!fleet.member(1).replicator.told.is_empty());
    fleet.members[0] = None;
    fleet.rest(250);
    assert!(fleet.member(1).replicator.told.is_empty());
}

#[test]
fn whoever_comes_is_told_at_once() {
    for phase in 0..10 {
        let mut fleet = Fleet::new(2, 12, true);
        // None overtakes another.
        (fleet.lost, fleet.latency) = (0, 1);
        fleet.members[1] = None;
        fleet.run(5);
        fleet.publish(0, 2..6);
        fleet.run_for(500 + phase * 10);
        fleet.members[1] = Some(Member::new(1, 2, &[2, 3, 4, 5], TRACK_AUTO, true, fleet.boot()));
        while fleet.member(0).endpoint.up_peers().count() == 0 {
            fleet.run_for(10);
        }
        fleet.run_for(50);
        let told = fleet.member(1).replicator.told.values();
        assert!(told.flat_map(PeerSlots::services).count() > 0, "{phase}");
    }
}
