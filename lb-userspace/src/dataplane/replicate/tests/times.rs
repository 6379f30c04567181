//! What is said of times.

use std::{sync::atomic::Ordering, time::Duration};

use super::{BITS, fleet::Fleet};
use crate::{
    dataplane::replicate::flows::Teller,
    peers::{FlowFate, wire},
};

const HASH: u64 = 5;

/// Who says which backend, how old that is, and whether it is doubtful.
type Word = (usize, u32, u16, bool);

/// Has a member say something of the flow.
fn say(fleet: &mut Fleet, from: usize, backend: u32, age: u16, doubtful: bool) {
    let boot = fleet.boot();
    let member = fleet.member(from);
    let (id, backend) = (member.map.services[0].id, member.map.name(member.index(backend)));
    let record = wire::Record { hash: HASH, backend, age, closing: false, changed: false, doubtful };
    let (body, _) = wire::flows(id, BITS, &[record]).remove(0);
    member.endpoint.send(None, wire::Kind::Flows, body, 1, boot);
}

/// In the box, where it waits for some seconds.
#[test]
fn a_word_gets_older_while_nobody_takes_it_in() {
    let mut fleet = Fleet::new(2, 1, true);
    fleet.rest_without_loss();
    let seen = fleet.seconds() + 1;
    say(&mut fleet, 0, 3, 0, false);
    for _ in 0..340 {
        fleet.now += 10;
        fleet.carry(fleet.boot());
        let now = Duration::from_millis(fleet.now);
        if fleet.now.is_multiple_of(100) {
            fleet.member(1).tick(now, false);
        }
    }
    // The flow has come here since then.
    let member = fleet.member(1);
    member.enter(HASH, member.index(4), seen);
    fleet.rest(1);
    assert_eq!(fleet.member(1).replicator.fates.get(&FlowFate::Outdated), Some(&1));
    assert_eq!(fleet.member(1).copy(HASH), Some(4));
}

/// Of a member that was started again: it knows where flows were, and not when.
#[test]
fn a_doubtful_word_yields_to_any_other_wherever_it_was_taken_in() {
    const STALE: u32 = 3;
    const RIGHT: u32 = 4;
    // What is said; what comes of it, and whether that is passed on as doubtful.
    let cases: &[(&[Word], u32, bool)] = &[
        (&[(0, STALE, 1, true), (1, RIGHT, 0, false)], RIGHT, false),
        (&[(0, STALE, 1, true), (1, RIGHT, 5, false)], RIGHT, false),
        (&[(1, RIGHT, 5, false), (0, STALE, 1, true)], RIGHT, false),
        (&[(0, STALE, 1, true)], STALE, true),
        (&[(0, STALE, 1, true), (0, STALE, 2, true), (1, RIGHT, 4, false)], RIGHT, false),
        (&[(0, STALE, 1, true), (1, STALE, 4, false)], STALE, false),
    ];
    for (says, copy, doubtful) in cases {
        let mut fleet = Fleet::new(3, 1, true);
        fleet.rest_without_loss();
        // While no slot is tracked it does not matter who knows what.
        let seconds = fleet.seconds();
        fleet.members.iter_mut().flatten().for_each(|member| member.publish(&[4, 5, 6, 7], seconds));
        for (from, backend, age, doubtful) in *says {
            say(&mut fleet, *from, *backend, *age, *doubtful);
            fleet.rest(1);
        }
        assert_eq!(fleet.member(2).copy(HASH), Some(*copy), "{says:?}");
        assert_eq!(passes_on_as_doubtful(&mut fleet, 2), *doubtful, "{says:?}");
    }
}

/// Also in the second in which that was taken in.
#[test]
fn a_packet_that_is_seen_here_makes_a_doubtful_word_certain() {
    for (age, later) in [(3, 1000), (0, 300), (0, 1000)] {
        let mut fleet = Fleet::new(3, 1, true);
        fleet.rest_without_loss();
        let seconds = fleet.seconds();
        fleet.members.iter_mut().flatten().for_each(|member| member.publish(&[4, 5, 6, 7], seconds));
        say(&mut fleet, 0, 3, age, true);
        fleet.pass(later);
        let seconds = fleet.seconds();
        let member = fleet.member(2);
        assert_eq!(member.copy(HASH), Some(3), "{age} s, {later} ms");
        member.enter(HASH, member.index(3), seconds);
        say(&mut fleet, 1, 4, 4, false);
        fleet.rest(1);
        assert_eq!(fleet.member(2).copy(HASH), Some(3), "{age} s, {later} ms");
        assert!(!passes_on_as_doubtful(&mut fleet, 2), "{age} s, {later} ms");
    }
}

/// What a member would tell a newcomer of the flow.
fn passes_on_as_doubtful(fleet: &mut Fleet, number: usize) -> bool {
    let now = fleet.seconds();
    let member = fleet.member(number);
    member.world.regions[0].open = true;
    let teller = Teller { map: &member.map, world: &member.world, now, restamped: None, is_first: false };
    let told = member.flows.iter().enumerate().find_map(|(place, word)| {
        teller.record(place, word.load(Ordering::Relaxed), &member.replicator.ledger, true)
    });
    told.unwrap().1.doubtful
}
