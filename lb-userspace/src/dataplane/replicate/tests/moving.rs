//! Flows that go from one member to another while backends change.

use lb_common::abi::{TRACK_ALWAYS, TRACK_AUTO};

use super::fleet::Fleet;

/// Traffic moves between members, again and again, while backends come and go.
fn moving(count: usize, seed: u64, replicates: bool, tracking: u8) -> Fleet {
    let mut fleet = Fleet::tracking(count, seed, replicates, tracking);
    fleet.run(15);
    for round in 0..4u32 {
        let serving = (round % 3 * 2)..(round % 3 * 2 + 4);
        for member in 0..count {
            fleet.publish(member, serving.clone());
            let skew = fleet.rng.u64(..3);
            fleet.run(skew);
        }
        let wait = fleet.rng.u64(7..20);
        fleet.run(wait);
        let mut routes: Vec<_> = (0..count).collect();
        fleet.rng.shuffle(&mut routes);
        routes.truncate(1 + round as usize % count);
        fleet.lead_to(&routes);
        fleet.run(12);
    }
    fleet
}

#[test]
fn flows_that_move_between_members_while_backends_are_replaced_keep_their_backends() {
    for seed in 0..8 {
        moving(2 + seed as usize % 2, seed, true, TRACK_AUTO).finish(&format!("seed {seed}"));
    }
}

/// There is no look at slots, and no pass over the flows, between what happens here: what is told is what has just been opened and
/// confirmed.
#[test]
fn on_a_good_network_those_that_were_opened_a_moment_ago_do_as_well() {
    for seed in 0..3 {
        let mut fleet = good_network(seed);
        for round in 0..40 {
            let serving = (round % 3 * 2)..(round % 3 * 2 + 4);
            let first = fleet.rng.usize(..2);
            fleet.publish(first, serving.clone());
            moves(&mut fleet, round % 5);
            fleet.publish(1 - first, serving);
            moves(&mut fleet, 10);
        }
        fleet.finish(&format!("seed {seed}"));
    }
}

/// The member that has not heard of the change tracks nothing yet.
#[test]
fn nor_does_a_change_that_only_one_has_made_break_them() {
    for seed in 0..3 {
        let mut fleet = good_network(seed);
        for round in 0..6 {
            let serving = (round % 3 * 2)..(round % 3 * 2 + 4);
            let first = fleet.rng.usize(..2);
            fleet.lead_to(&[first]);
            fleet.publish(first, serving.clone());
            fleet.run_for(100);
            fleet.lead_to(&[1 - first]);
            fleet.run_for(200);
            fleet.publish(1 - first, serving);
            fleet.run(2);
            // So that nothing keeps slots tracked until the next change.
            fleet.connections.clear();
            fleet.clients = 1;
            fleet.run(45);
            fleet.clients = 6;
            assert!(fleet.members.iter().flatten().all(|member| member.tracked() == 0));
        }
        fleet.finish(&format!("seed {seed}"));
    }
}

fn good_network(seed: u64) -> Fleet {
    let mut fleet = Fleet::new(2, seed, true);
    (fleet.lost, fleet.latency, fleet.lag) = (0, 10, 50);
    fleet.run(15);
    fleet.clients = 6;
    fleet
}

fn moves(fleet: &mut Fleet, count: u32) {
    for _ in 0..count {
        let time = 50 + fleet.rng.u64(..15) * 10;
        fleet.run_for(time);
        let (to, count) = (fleet.rng.usize(..2), fleet.rng.usize(1..4));
        fleet.lead_to(&[to, 1 - to, to][..count]);
    }
}

/// The data plane has no room to tell of them.
#[test]
fn flows_of_which_there_was_no_news_are_found_by_a_look_at_the_table() {
    for (seed, ring) in [(0, 0), (1, 1), (2, 0)] {
        let mut fleet = good_network(seed);
        fleet.members.iter_mut().flatten().for_each(|member| member.ring = ring);
        fleet.lag = 700;
        fleet.publish(0, 2..6);
        fleet.publish(1, 2..6);
        for _ in 0..6 {
            fleet.run_for(1500);
            let to = fleet.rng.usize(..2);
            fleet.lead_to(&[to]);
        }
        fleet.run(20);
        fleet.finish(&format!("seed {seed}"));
    }
}

/// Both see a change, one after the other, and the one with the traffic has the last flows of before.
#[test]
fn a_window_that_ends_at_one_member_is_not_kept_open_by_that_at_the_other() {
    for seed in 0..4 {
        let mut fleet = good_network(seed);
        fleet.lead_to(&[1]);
        fleet.run(10);
        fleet.publish(0, 2..6);
        fleet.run(1 + seed % 2);
        fleet.publish(1, 2..6);
        let changed = fleet.now;
        fleet.run(5 + seed);
        fleet.connections.retain(|connection| connection.opened > changed);
        // Twice as long as slots are held after the last of these.
        fleet.run(20 - seed);
        moves(&mut fleet, 80);
        fleet.run(20);
        fleet.finish(&format!("seed {seed}"));
    }
}

#[test]
fn flows_that_are_always_tracked_do_as_well() {
    for seed in 0..4 {
        moving(2, seed, true, TRACK_ALWAYS).finish(&format!("seed {seed}"));
    }
}

#[test]
fn without_replication_they_do_not() {
    let broken: usize = (0..3).map(|seed| moving(2, seed, false, TRACK_AUTO).broken.len()).sum();
    assert!(broken > 50, "{broken}");
}

#[test]
fn members_that_see_backends_differently_for_longer_than_flows_may_be_silent_break_none() {
    for seed in 0..6 {
        let mut fleet = Fleet::new(2, seed, true);
        fleet.run(15);
        fleet.publish(1, [0, 1, 2, 5]);
        for round in 0..5 {
            fleet.run(20);
            fleet.lead_to(&[[0, 1, 0], [1, 0, 1]][round % 2][..1 + round % 3]);
            fleet.run(12);
        }
        fleet.publish(0, [0, 1, 2, 5]);
        fleet.run(12);
        fleet.lead_to(&[seed as usize % 2]);
        fleet.run(12);
        fleet.finish(&format!("seed {seed}"));
    }
}

/// For as long as it takes until each gives the other up, or longer: the one that is not heard hears all the time.
#[test]
fn what_is_lost_in_one_direction_for_a_while_is_told_again() {
    for seed in 0..8 {
        let mut fleet = Fleet::new(2, seed, true);
        fleet.run(15);
        fleet.publish(0, 2..6);
        fleet.publish(1, 2..6);
        fleet.run(3 + seed % 3);
        fleet.mute = Some(seed as usize % 2);
        fleet.run(5 + seed % 4);
        fleet.mute = None;
        // Longer than a slot is held that nobody speaks of.
        fleet.run(25);
        let tracked = fleet.member(0).tracked();
        assert!(tracked > 20, "seed {seed}: {tracked}");
        assert!(fleet.member(1).tracked() >= tracked, "seed {seed}: {tracked}");
        fleet.lead_to(&[1]);
        fleet.run(12);
        fleet.lead_to(&[0]);
        fleet.run(12);
        fleet.finish(&format!("seed {seed}"));
    }
}
