use proptest::prelude::*;

use super::*;

mod leave;

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
        lone: false,
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
            lone: false,
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
}
