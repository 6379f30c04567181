use proptest::prelude::*;

use super::*;

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 10));
const HOLDS: Holds = Holds { down: Duration::from_secs(1), up: Duration::from_secs(10) };

fn right() -> VipFacts {
    let good = || Fact::Good;
    VipFacts {
        off: false,
        attached: good(),
        carrier: good(),
        probe: good(),
        backends: good(),
        verdicts: true,
        flows: true,
    }
}

fn wrong() -> VipFacts {
    VipFacts { attached: Fact::Bad("it is not".into()), ..right() }
}

/// Decides at each of these milliseconds, and says whether the VIP was announced then.
fn course(decider: &mut Decider, start: Instant, steps: &[(u64, VipFacts)]) -> Vec<bool> {
    let decide = |(at, facts): &(u64, VipFacts)| {
        let at = start + Duration::from_millis(*at);
        let decision = decider.decide(at, &[(VIP, facts.clone())].into(), &Leave::Granted);
        wanted(&decision.standings).contains(&VIP)
    };
    steps.iter().map(decide).collect()
}

#[test]
fn what_is_wrong_for_a_moment_withdraws_nothing_and_what_lasts_does() {
    let (start, mut decider) = (Instant::now(), Decider::new(HOLDS, []));
    let steps = [
        (0, right()),
        (100, wrong()),
        (900, wrong()),
        (950, right()),
        (1000, wrong()),
        (1999, wrong()),
        (2000, wrong()),
        (3000, right()),
        (12_000, right()),
        (12_500, wrong()),
        (13_000, right()),
        (22_999, right()),
        (23_000, right()),
    ];
    let expected = [true, true, true, true, true, true, false, false, false, false, false, false, true];
    assert_eq!(course(&mut decider, start, &steps), expected);
}

#[test]
fn what_is_not_known_withdraws_nothing_and_announces_nothing() {
    let unknown = VipFacts { probe: Fact::Unknown, ..right() };
    let start = Instant::now();
    let steps = [
        (0, unknown.clone()),
        (60_000, unknown.clone()),
        (61_000, right()),
        (62_000, unknown.clone()),
        (99_000, unknown.clone()),
    ];
    assert_eq!(course(&mut Decider::new(HOLDS, []), start, &steps), [false, false, true, true, true]);
    // A daemon that starts takes over what there is.
    assert_eq!(course(&mut Decider::new(HOLDS, [VIP]), start, &[(0, unknown)]), [true]);
}

#[test]
fn a_vip_is_announced_first_when_all_backends_have_a_verdict_or_have_had_time_for_it() {
    let waiting = VipFacts { verdicts: false, ..right() };
    let steps =
        [(0, waiting.clone()), (29_000, waiting.clone()), (29_500, right()), (40_000, waiting.clone())];
    let start = Instant::now();
    assert_eq!(course(&mut Decider::new(HOLDS, []), start, &steps), [false, false, true, true]);
    let steps = [(0, waiting.clone()), (29_999, waiting.clone()), (30_000, waiting.clone())];
    assert_eq!(course(&mut Decider::new(HOLDS, []), start, &steps), [false, false, true]);
    // What an earlier daemon announced waits for nobody.
    assert_eq!(course(&mut Decider::new(HOLDS, [VIP]), start, &[(0, waiting)]), [true]);
}

#[test]
fn a_vip_is_announced_first_when_peers_have_told_their_flows_or_have_had_time_for_it() {
    let joining = VipFacts { flows: false, ..right() };
    let start = Instant::now();
    let mut decider = Decider::new(HOLDS, []);
    let mut decision = decider.decide(start, &[(VIP, joining.clone())].into(), &Leave::Granted);
    let told = "peers have not told yet which flows there are".to_owned();
    assert_eq!(decision.standings.remove(&VIP), Some(Standing::Not(Reason::Starting, told)));
    // Nor is it withdrawn should that be so again.
    let steps = [(2000, joining.clone()), (2100, right()), (2200, joining.clone()), (9000, joining.clone())];
    assert_eq!(course(&mut decider, start, &steps), [false, true, true, true]);
    let steps = [(0, joining.clone()), (29_999, joining.clone()), (30_000, joining.clone())];
    assert_eq!(course(&mut Decider::new(HOLDS, []), start, &steps), [false, false, true]);
    // A daemon that goes on with its maps has announced it before.
    assert_eq!(course(&mut Decider::new(HOLDS, [VIP]), start, &[(0, joining)]), [true]);
}

#[test]
fn the_administrator_waits_for_nothing() {
    let off = VipFacts { off: true, ..right() };
    let steps = [(0, right()), (1, off.clone()), (2, right()), (3, off), (4, wrong()), (20_000, right())];
    let announced = course(&mut Decider::new(HOLDS, []), Instant::now(), &steps);
    assert_eq!(announced, [true, false, true, false, false, true]);
}

#[test]
fn a_vip_that_is_gone_is_new_when_it_comes_back() {
    let (start, mut decider) = (Instant::now(), Decider::new(HOLDS, []));
    course(&mut decider, start, &[(0, right()), (1, wrong()), (2_000, wrong())]);
    assert!(decider.decide(start, &BTreeMap::new(), &Leave::Granted).standings.is_empty());
    assert_eq!(course(&mut decider, start, &[(2_001, right())]), [true]);
}

#[test]
fn the_reason_is_the_thing_that_explains_the_others() {
    let facts = VipFacts { carrier: Fact::Bad("eth0 has no link".into()), ..wrong() };
    let decision = Decider::new(HOLDS, []).decide(Instant::now(), &[(VIP, facts)].into(), &Leave::Granted);
    assert_eq!(decision.standings[&VIP], Standing::Not(Reason::NoCarrier, "eth0 has no link".into()));
}

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

const NOTHING: Wish = Wish { permit: false, withdrawn: false, announces: true };
const ASKS: Wish = Wish { permit: true, ..NOTHING };
const LEFT: Wish = Wish { withdrawn: true, ..ASKS };

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
        (true, NOTHING),
        (true, NOTHING),
        (true, NOTHING),
        (true, ASKS),
        (true, ASKS),
        (true, ASKS),
        (false, LEFT),
        (false, LEFT),
        (false, LEFT),
        (true, NOTHING),
        (true, NOTHING),
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
        (true, NOTHING),
        (false, LEFT),
        (true, NOTHING),
        (true, NOTHING),
        (false, LEFT),
        (false, LEFT),
        (true, NOTHING),
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
    let gone = Wish { permit: false, withdrawn: false, announces: false };
    let waits = Wish { permit: true, ..gone };
    let expected = [
        (true, NOTHING),
        (true, ASKS),
        (true, ASKS),
        (true, ASKS),
        (false, gone),
        (false, waits),
        (false, waits),
        (true, NOTHING),
    ];
    assert_eq!(asking(&mut Decider::new(HOLDS, [VIP]), start, &steps), expected);
}

#[test]
fn a_vip_that_lacks_backends_from_the_beginning_waits_for_the_answer() {
    let start = Instant::now();
    let steps = [(0, short(), Leave::Asked), (100, short(), refused()), (200, short(), refused())];
    // The others don't count on it yet.
    let new = Wish { announces: false, ..LEFT };
    let expected = [(false, new), (true, NOTHING), (true, NOTHING)];
    assert_eq!(asking(&mut Decider::new(HOLDS, []), start, &steps), expected);
    let steps =
        [(0, short(), Leave::Asked), (100, short(), Leave::Granted), (900_000, short(), Leave::Granted)];
    assert_eq!(asking(&mut Decider::new(HOLDS, []), start, &steps), [(false, new); 3]);
    let off = VipFacts { off: true, ..short() };
    let gone = Wish { permit: false, withdrawn: false, announces: false };
    assert_eq!(asking(&mut Decider::new(HOLDS, []), start, &[(0, off, refused())]), [(false, gone)]);
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

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![6 => Just(Fact::Good), 2 => Just(Fact::Bad("wrong".into())), 1 => Just(Fact::Unknown)]
}

fn facts() -> impl Strategy<Value = VipFacts> {
    (prop::bool::weighted(0.1), fact(), fact(), fact(), fact()).prop_map(
        |(off, attached, carrier, probe, backends)| VipFacts {
            off,
            attached,
            carrier,
            probe,
            backends,
            verdicts: true,
            flows: true,
        },
    )
}

proptest! {
    /// Held against what was seen, and not against how it is remembered.
    #[test]
    fn holds_are_kept_and_nothing_else_delays(
        steps in prop::collection::vec((0_u64..4000, facts()), 1..120),
        taken_over in any::<bool>(),
    ) {
        let start = Instant::now();
        let mut decider = Decider::new(HOLDS, taken_over.then_some(VIP));
        let (mut at, mut before, mut seen) = (0, taken_over, Vec::new());
        // Whether it was withdrawn for a fact, and not by the administrator, since it was announced last.
        let mut withdrawn = false;
        for (pause, facts) in steps {
            at += pause;
            seen.push((at, facts.clone()));
            let announced = course(&mut decider, start, &[(at, facts.clone())])[0];
            // The moments up to now at which this held without a break.
            let since = |holds: fn(&VipFacts) -> bool| {
                let run = seen.iter().rev().take_while(|(_, facts)| !facts.off && holds(facts));
                run.last().map(|(first, _)| at - first)
            };
            let (wrong_for, right_for) = (since(|facts| facts.wrong().is_some()), since(|facts| facts.is_right(true)));
            let lasted = |run: Option<u64>, hold: Duration| {
                run.is_some_and(|run| run >= u64::try_from(hold.as_millis()).expect("it fits"))
            };
            if facts.off {
                prop_assert!(!announced);
                withdrawn = false;
            } else if before {
                prop_assert_eq!(!announced, lasted(wrong_for, HOLDS.down), "at {}", at);
                withdrawn = !announced;
            } else if withdrawn {
                prop_assert_eq!(announced, lasted(right_for, HOLDS.up), "at {}", at);
                withdrawn = !announced;
            } else {
                prop_assert_eq!(announced, right_for.is_some(), "at {}", at);
            }
            before = announced;
        }
    }

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
