//! How long slots stay tracked, and their previous backends known, for peers' sake.

use std::sync::atomic::Ordering;

use lb_common::abi::{Slot, TRACK_AUTO};

use super::{IDLE, SLOTS, fleet::Fleet, member::Member};
use crate::dataplane::replicate::Replicator;

fn slot(member: &Member, number: u32) -> Slot {
    Slot::from_word(member.slots[number as usize].load(Ordering::Relaxed))
}

/// A fleet whose datagrams all come, and at once.
fn good_network(count: usize) -> Fleet {
    let mut fleet = Fleet::new(count, 1, true);
    (fleet.lost, fleet.latency) = (0, 10);
    fleet.rest(15);
    fleet
}

/// It would send a flow that others have not told it of, because they track nothing, elsewhere.
#[test]
fn while_one_has_a_previous_backend_all_track_the_slot() {
    let mut fleet = good_network(2);
    let kept = u64::from(Replicator::kept(IDLE));
    fleet.publish(0, 2..6);
    fleet.rest(1);
    fleet.publish(1, 2..6);
    // By now neither has reasons of its own; and one of them sees something that the other does not.
    fleet.rest(kept + 4);
    let previous = |fleet: &Fleet, number: usize| {
        let member = fleet.members[number].as_ref().unwrap();
        (0..SLOTS).filter(|number| slot(member, *number).previous() != 0).count()
    };
    assert!(previous(&fleet, 0) > 20);
    for serving in [2..5, 2..6] {
        fleet.publish(1, serving);
        fleet.pass(20);
    }
    let mut seen = 0;
    for _ in 0..4 * kept * 10 {
        fleet.pass(100);
        for number in 0..SLOTS {
            let slots: Vec<_> = fleet.members.iter().flatten().map(|member| slot(member, number)).collect();
            let leads_elsewhere = slots.iter().any(|slot| slot.previous() != 0);
            assert!(
                !leads_elsewhere || slots.iter().all(|slot| slot.is_tracked()),
                "slot {number} at {} ms: {slots:?}",
                fleet.now
            );
            seen += usize::from(leads_elsewhere);
        }
    }
    assert!(seen > 0);
    assert!(fleet.members.iter().flatten().all(|member| member.tracked() == 0));
}

/// They tell each other all slots, tracked for whosever sake, to find those that differ.
#[test]
fn members_whose_tables_differ_do_not_keep_each_others_slots_tracked() {
    let mut fleet = good_network(3);
    changes_and_changes_back(&mut fleet);
    fleet.member(2).map.tables = 1;
    fleet.rest(6);
    assert!(fleet.member(2).tracked() > 20);
    fleet.rest(2 * u64::from(Replicator::kept(IDLE)) + 30);
    let tracked: Vec<_> = fleet.members.iter().flatten().map(Member::tracked).collect();
    assert_eq!(tracked, [0, 0, 0]);
}

/// Others have entries of the flows that passed there.
#[test]
fn a_newcomer_tracks_what_is_tracked_for_the_sake_of_one_that_is_gone_and_no_longer() {
    for seed in 0..8 {
        newcomer_on(&mut Fleet::new(3, seed, true), 30);
    }
    newcomer_on(&mut Fleet::new(3, 8, true), 0);
}

/// Of so many in a hundred datagrams nothing comes while it is told.
fn newcomer_on(fleet: &mut Fleet, lost: u8) {
    fleet.lost = 0;
    fleet.rest(15);
    let serving = fleet.member(1).serving.clone();
    fleet.members[2] = None;
    changes_and_changes_back(fleet);
    let tracked = fleet.member(1).tracked();
    assert!(tracked > 20);
    fleet.members[0] = None;
    fleet.rest(5);
    fleet.lost = lost;
    let boot = fleet.boot();
    fleet.members[2] = Some(Member::new(2, 3, &serving, TRACK_AUTO, true, boot));
    fleet.rest(8);
    assert_eq!(fleet.member(2).tracked(), tracked);
    fleet.lost = 0;
    fleet.rest(2 * u64::from(Replicator::kept(IDLE)) + 30);
    assert_eq!((fleet.member(1).tracked(), fleet.member(2).tracked()), (0, 0));
}

/// One member has a window in slots that are the same everywhere, and others track them for its sake.
fn changes_and_changes_back(fleet: &mut Fleet) {
    let before = fleet.member(0).serving.clone();
    fleet.publish(0, 2..6);
    fleet.publish(0, before);
    fleet.rest(1);
}
