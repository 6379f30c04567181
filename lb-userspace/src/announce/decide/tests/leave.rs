//! Want of backends, and the fleet's leave.

use super::*;

fn short() -> VipFacts {
    VipFacts { backends: Fact::Bad("0 of 2".into()), ..right() }
}

fn refused() -> Leave {
    Leave::Refused("lb-2 has withdrawn".into())
}

/// As [`course`], with leave or without, and what the fleet is asked for.
fn asking(decider: &mut Decider, start: Instant, steps: &[(u64, VipFacts, Leave)]) -> Vec<(bool, Wish)> {
    let decide = |(at, facts, leave): &(u64, VipFacts, Leave)| {
        let at = start + Duration::from_millis(*at);
        let decision = decider.decide(at, &[(VIP, facts.clone())].into(), leave);
        (wanted(&decision.standings).contains(&VIP), decision.wish)
    };
    steps.iter().map(decide).collect()
}

fn nothing() -> Wish {
    Wish { announces: [VIP].into(), ..Wish::default() }
}

fn asks() -> Wish {
    Wish { permit: true, ..nothing() }
}

fn left() -> Wish {
    Wish { withdrawn: true, ..asks() }
}

#[test]
fn want_of_backends_withdraws_with_leave_alone_and_asks_for_it_when_it_has_lasted() {
    let steps = [
        (0, right(), Leave::Asked),
        (100, short(), Leave::Asked),
        (1099, short(), Leave::Asked),
        (1100, short(), Leave::Asked),
        (1200, short(), refused()),
        (60_000, short(), refused()),
        (60_100, short(), Leave::Granted),
        (61_000, right(), Leave::Granted),
        (70_999, right(), Leave::Granted),
        (71_000, right(), Leave::Granted),
        (71_100, right(), Leave::Asked),
    ];
    let expected = [
        (true, nothing()),
        (true, nothing()),
        (true, nothing()),
        (true, asks()),
        (true, asks()),
        (true, asks()),
        (false, left()),
        (false, left()),
        (false, left()),
        (true, nothing()),
        (true, nothing()),
    ];
    assert_eq!(asking(&mut Decider::new(HOLDS, []), Instant::now(), &steps), expected);
}

#[test]
fn whoever_loses_its_leave_is_back_at_once_and_asks_again_when_it_has_lasted() {
    let (start, mut decider) = (Instant::now(), Decider::new(HOLDS, [VIP]));
    let steps = [
        (0, short(), Leave::Granted),
        (1000, short(), Leave::Granted),
        (1100, short(), refused()),
        (2099, short(), Leave::Granted),
        (2100, short(), Leave::Granted),
        // Also while it waits for `up_hold`.
        (2200, right(), Leave::Granted),
        (2300, right(), Leave::Asked),
    ];
    let expected = [
        (true, nothing()),
        (false, left()),
        (true, nothing()),
        (true, nothing()),
        (false, left()),
        (false, left()),
        (true, nothing()),
    ];
    assert_eq!(asking(&mut decider, start, &steps), expected);
}

#[test]
fn what_is_wrong_with_the_host_needs_no_leave_and_has_its_own_hold() {
    let both = VipFacts { backends: short().backends, ..wrong() };
    let start = Instant::now();
    let steps = [
        (0, short(), refused()),
        (5000, short(), refused()),
        // What was refused leave has lasted for long, and this has not.
        (5100, both.clone(), refused()),
        (6099, both.clone(), refused()),
        (6100, both, refused()),
        // And it comes back though backends are missing still.
        (6200, short(), refused()),
        (16_199, short(), refused()),
        (16_200, short(), refused()),
    ];
    let gone = Wish::default;
    let waits = || Wish { permit: true, ..gone() };
    let expected = [
        (true, nothing()),
        (true, asks()),
        (true, asks()),
        (true, asks()),
        (false, gone()),
        (false, waits()),
        (false, waits()),
        (true, nothing()),
    ];
    assert_eq!(asking(&mut Decider::new(HOLDS, [VIP]), start, &steps), expected);
}

#[test]
fn a_vip_that_lacks_backends_from_the_beginning_waits_for_the_answer() {
    let start = Instant::now();
    let steps = [(0, short(), Leave::Asked), (100, short(), refused()), (200, short(), refused())];
    // The others don't count on it yet.
    let new = || Wish { announces: [].into(), ..left() };
    let expected = [(false, new()), (true, nothing()), (true, nothing())];
    assert_eq!(asking(&mut Decider::new(HOLDS, []), start, &steps), expected);
    let steps =
        [(0, short(), Leave::Asked), (100, short(), Leave::Granted), (900_000, short(), Leave::Granted)];
    assert_eq!(asking(&mut Decider::new(HOLDS, []), start, &steps), vec![(false, new()); 3]);
    let off = VipFacts { off: true, ..short() };
    assert_eq!(
        asking(&mut Decider::new(HOLDS, []), start, &[(0, off, refused())]),
        [(false, Wish::default())]
    );
}

#[test]
fn why_it_stays_is_said() {
    let (start, mut decider) = (Instant::now(), Decider::new(HOLDS, [VIP]));
    let mut standing = |seconds, leave| {
        let at = start + Duration::from_secs(seconds);
        decider.decide(at, &[(VIP, short())].into(), &leave).standings.remove(&VIP)
    };
    assert_eq!(standing(0, refused()), Some(Standing::Announced));
    let said = "0 of 2; announced all the same: lb-2 has withdrawn";
    assert_eq!(standing(1, refused()), Some(Standing::Kept(said.into())));
    assert_eq!(standing(2, Leave::Granted), Some(Standing::Not(Reason::BackendsBelow, "0 of 2".into())));
}

#[test]
fn a_vip_that_nobody_else_announces_stays_whatever_leave_there_is() {
    let (start, mut decider) = (Instant::now(), Decider::new(HOLDS, [VIP]));
    let lone = VipFacts { lone: true, ..short() };
    let steps = [
        (0, lone.clone(), Leave::Granted),
        (1000, lone.clone(), Leave::Granted),
        // Nobody's place is taken for it.
        (1100, lone.clone(), Leave::Asked),
        (1200, short(), Leave::Granted),
        // The last one else has gone.
        (1300, lone, Leave::Granted),
        (2400, VipFacts { lone: true, ..wrong() }, Leave::Granted),
        (3400, VipFacts { lone: true, ..wrong() }, Leave::Granted),
    ];
    let expected = [
        (true, nothing()),
        (true, nothing()),
        (true, nothing()),
        (false, left()),
        (true, nothing()),
        (true, nothing()),
        (false, Wish::default()),
    ];
    assert_eq!(asking(&mut decider, start, &steps), expected);
    let mut decider = Decider::new(Holds { down: Duration::ZERO, ..HOLDS }, [VIP]);
    let lone = VipFacts { lone: true, ..short() };
    let said = Standing::Kept(format!("0 of 2; announced all the same: {LAST}"));
    let decision = decider.decide(start, &[(VIP, lone)].into(), &Leave::Granted);
    assert_eq!(decision.standings[&VIP], said);
}

/// What was given back between the look and the deed is leave no more.
#[test]
fn nothing_is_withdrawn_by_a_leave_that_is_gone_when_the_fleet_is_told() {
    use std::cell::Cell;
    let now = Instant::now();
    let announced = |is_given_back: bool| {
        let mut decider = Decider::new(Holds { down: Duration::ZERO, ..HOLDS }, [VIP]);
        let told = Cell::new(None);
        let leave = || match told.take() {
            Some(wish) => {
                assert_eq!(wish, left());
                if is_given_back { Leave::Asked } else { Leave::Granted }
            }
            None => Leave::Granted,
        };
        let decision = decider.decide_by(now, &[(VIP, short())].into(), leave, |decision| {
            told.set(Some(decision.wish.clone()))
        });
        (wanted(&decision.standings).contains(&VIP), decision.wish.withdrawn)
    };
    assert_eq!((announced(false), announced(true)), ((false, true), (true, false)));
}

proptest! {
    /// Whatever else: without leave nothing is off the network for want of backends, and a host that is broken is.
    #[test]
    fn leave_decides_about_backends_and_about_nothing_else(
        steps in prop::collection::vec((0_u64..4000, facts(), leave()), 1..120),
    ) {
        let start = Instant::now();
        let mut decider = Decider::new(HOLDS, [VIP]);
        let (mut at, mut seen, mut before) = (0, Vec::new(), true);
        for (pause, facts, leave) in steps {
            at += pause;
            seen.push((at, facts.clone()));
            let now = start + Duration::from_millis(at);
            let decision = decider.decide(now, &[(VIP, facts.clone())].into(), &leave);
            let announced = wanted(&decision.standings).contains(&VIP);
            if before && !announced && leave != Leave::Granted {
                prop_assert!(facts.off || facts.hard().is_some(), "at {}", at);
            }
            let run = seen.iter().rev().take_while(|(_, facts)| !facts.off && facts.hard().is_some());
            if run.last().is_some_and(|(first, _)| at - first >= 1000) {
                prop_assert!(!announced, "at {}", at);
            }
            if matches!(decision.standings[&VIP], Standing::Not(Reason::BackendsBelow, _)) {
                prop_assert!(decision.wish.permit && decision.wish.withdrawn);
            }
            before = announced;
        }
    }
}

fn leave() -> impl Strategy<Value = Leave> {
    prop_oneof![Just(Leave::Granted), Just(Leave::Asked), Just(refused())]
}
