use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const MOST: u32 = 8;

fn rules() -> DiscoveryConfig {
    DiscoveryConfig { forget_after: 3, max_backends: MOST, ..DiscoveryConfig::default() }
}

/// An address by its last number.
fn v4(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn addresses(all: impl IntoIterator<Item = IpAddr>) -> Asked {
    Asked::Addresses { addresses: all.into_iter().collect(), ttl: Duration::from_secs(30) }
}

fn answer(numbers: &[u8]) -> Round {
    [Some(addresses(numbers.iter().copied().map(v4))), None]
}

fn take(lookup: &mut Lookup, round: Round) -> Taken {
    lookup.take(round, &HashSet::new(), &rules())
}

fn numbers(lookup: &Lookup) -> Vec<u8> {
    let last = |address| match address {
        IpAddr::V4(address) => Ipv4Addr::octets(&address)[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    lookup.addresses().map(last).collect()
}

#[test]
fn an_address_goes_after_three_answers_without_it_and_comes_back_with_one() {
    let mut lookup = Lookup::default();
    take(&mut lookup, answer(&[2, 1]));
    for left in [[1, 2].as_slice(), &[1, 2], &[1]] {
        take(&mut lookup, answer(&[1]));
        assert_eq!(numbers(&lookup), left);
    }
    take(&mut lookup, answer(&[1, 2]));
    assert_eq!(numbers(&lookup), [1, 2]);
    // It comes and goes: this time it is waited for twice as long.
    for left in [6, 5, 4, 3, 2, 1] {
        assert_eq!(numbers(&lookup), [1, 2], "{left} answers before it goes");
        take(&mut lookup, answer(&[1]));
    }
    assert_eq!(numbers(&lookup), [1]);
}

#[test]
fn no_failure_takes_an_address_away() {
    let failures = [
        Asked::Failed("servfail".to_owned()),
        Asked::Nothing("nxdomain"),
        Asked::Nothing("no A record"),
        addresses([]),
        // What some resolvers say for names that they block.
        addresses([Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()]),
        addresses((0..=MOST as u8).map(v4)),
    ];
    for failure in failures {
        let mut lookup = Lookup::default();
        take(&mut lookup, answer(&[1, 2]));
        for _ in 0..20 {
            let taken = take(&mut lookup, [Some(failure.clone()), None]);
            assert!(!taken.good && !taken.counts, "{failure:?}");
            assert!(taken.trouble.is_some() || failure == addresses([]), "{failure:?}");
            assert_eq!(numbers(&lookup), [1, 2], "{failure:?}");
        }
        assert!(take(&mut lookup, answer(&[1, 2])).good);
    }
}

#[test]
fn the_next_question_waits_for_the_time_to_live_within_bounds_and_after_failures_longer_and_longer() {
    let mut lookup = Lookup::default();
    let wait = |lookup: &mut Lookup, ttl: u64| {
        let asked = Asked::Addresses { addresses: [v4(1)].into(), ttl: Duration::from_secs(ttl) };
        take(lookup, [Some(asked), None]).wait.as_secs()
    };
    assert_eq!([0, 30, 86_400].map(|ttl| wait(&mut lookup, ttl)), [1, 30, 300]);
    let fail = |lookup: &mut Lookup| take(lookup, [Some(Asked::Failed(String::new())), None]).wait.as_secs();
    let waits: Vec<_> = (0..9).map(|_| fail(&mut lookup)).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    wait(&mut lookup, 30);
    assert_eq!(fail(&mut lookup), 1);
    // The shorter of both families'.
    let of = |ttl: u64, address: &str| {
        let addresses = [address.parse().expect("an address")].into();
        Some(Asked::Addresses { addresses, ttl: Duration::from_secs(ttl) })
    };
    let taken = take(&mut lookup, [of(50, "10.0.0.1"), of(40, "2001:db8::1")]);
    assert_eq!((taken.good, taken.wait.as_secs()), (true, 40));
}

#[test]
fn a_family_that_fails_keeps_its_addresses_and_one_that_has_none_loses_them() {
    let six: IpAddr = "2001:db8::9".parse().expect("an address");
    let mut lookup = Lookup::default();
    let both = |v6: Asked| [Some(addresses([v4(1)])), Some(v6)];
    take(&mut lookup, both(addresses([six])));
    for _ in 0..10 {
        let taken = take(&mut lookup, both(Asked::Failed("servfail".to_owned())));
        assert_eq!((taken.good, taken.counts, taken.trouble.as_deref()), (false, true, Some("servfail")));
    }
    assert_eq!(numbers(&lookup), [1, 9]);
    for _ in 0..3 {
        assert!(take(&mut lookup, both(Asked::Nothing("no AAAA record"))).good);
    }
    assert_eq!(numbers(&lookup), [1]);
}

#[test]
fn addresses_that_can_not_be_backends_are_told_and_left_out() {
    let mut lookup = Lookup::default();
    let own = HashSet::from([v4(7)]);
    let bad = ["127.0.0.1", "224.0.0.1", "169.254.1.1", "10.0.0.7"];
    let asked = addresses(bad.iter().map(|bad| bad.parse().expect("an address")).chain([v4(1)]));
    let taken = lookup.take([Some(asked), None], &own, &rules());
    assert!(taken.good);
    let trouble = taken.trouble.expect("told");
    assert!(trouble.contains("10.0.0.7 can't be a backend: it is an address of this host"), "{trouble}");
    assert!(trouble.contains("and 1 more"), "{trouble}");
    assert_eq!(numbers(&lookup), [1]);
}

#[test]
fn what_an_earlier_process_found_has_to_be_missing_as_often_as_anything_else() {
    let mut lookup = Lookup::knowing([v4(1), v4(2)].into_iter(), &rules());
    take(&mut lookup, answer(&[1]));
    take(&mut lookup, answer(&[1]));
    assert_eq!(numbers(&lookup), [1, 2]);
    take(&mut lookup, answer(&[1]));
    assert_eq!(numbers(&lookup), [1]);
}

#[test]
fn one_that_is_always_there_again_is_waited_for_as_any_other() {
    let mut lookup = Lookup::default();
    for _ in 0..4 {
        take(&mut lookup, answer(&[1, 2]));
        (0..200).for_each(|_| drop(take(&mut lookup, answer(&[1]))));
    }
    (0..10_000).for_each(|_| drop(take(&mut lookup, answer(&[1, 2]))));
    (0..3).for_each(|_| drop(take(&mut lookup, answer(&[1]))));
    assert_eq!(numbers(&lookup), [1]);
}

/// A round of any kind.
fn round() -> impl Strategy<Value = Round> {
    let some = prop::collection::btree_set(0..40_u8, 0..12);
    let asked = prop_oneof![
        6 => some.prop_map(|numbers| addresses(numbers.into_iter().map(v4))),
        1 => Just(Asked::Nothing("nxdomain")),
        1 => Just(Asked::Failed("servfail".to_owned())),
    ];
    asked.prop_map(|asked| [Some(asked), None])
}

proptest! {
    #[test]
    fn whatever_is_said_no_more_are_there_than_may_be_and_a_good_answer_is_there_whole(
        rounds in prop::collection::vec(round(), 1..200),
    ) {
        let mut lookup = Lookup::default();
        for round in rounds {
            let before = numbers(&lookup);
            let taken = take(&mut lookup, round.clone());
            let after = numbers(&lookup);
            prop_assert!(after.len() <= MOST as usize);
            prop_assert!(taken.wait >= rules().min_ttl && taken.wait <= rules().max_ttl);
            prop_assert!(lookup.gone.len() <= MOST_GONE * MOST as usize);
            match (&round[0], taken.good) {
                (Some(Asked::Addresses { addresses, .. }), true) => {
                    let now: BTreeSet<_> = lookup.addresses().collect();
                    prop_assert!(addresses.iter().all(|address| now.contains(address)));
                    // Nothing comes from nowhere.
                    let known = |number: &u8| before.contains(number) || addresses.contains(&v4(*number));
                    prop_assert!(after.iter().all(known));
                }
                _ => prop_assert_eq!(after, before),
            }
        }
    }

    /// A server that hands out any three of eight addresses: each of them goes a few times, and then no more.
    #[test]
    fn a_server_that_hands_out_a_part_at_a_time_ends_with_all_of_them(seed in any::<u64>()) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut lookup = Lookup::default();
        let mut some = || {
            let mut all: Vec<u8> = (0..MOST as u8).collect();
            random.shuffle(&mut all);
            answer(&all[..3])
        };
        let mut changes = 0;
        for _ in 0..5_000 {
            let before = numbers(&lookup);
            take(&mut lookup, some());
            changes += u32::from(before != numbers(&lookup));
        }
        // All that three answers forgive would be over a thousand.
        prop_assert!(changes < 100, "{changes}");
        // Chance leaves one out for long enough now and then, and never for good.
        let all_are_there = (0..100).any(|_| {
            take(&mut lookup, some());
            numbers(&lookup).len() == MOST as usize
        });
        prop_assert!(all_are_there, "{:?}", numbers(&lookup));
    }

    #[test]
    fn the_order_of_the_answers_is_of_no_account(seed in any::<u64>(), numbers_ in prop::collection::vec(0..50_u8, 1..8)) {
        let mut random = fastrand::Rng::with_seed(seed);
        let [mut one, mut other] = [Lookup::default(), Lookup::default()];
        let mut shuffled = numbers_.clone();
        random.shuffle(&mut shuffled);
        take(&mut one, answer(&numbers_));
        take(&mut other, answer(&shuffled));
        prop_assert_eq!(numbers(&one), numbers(&other));
    }
}
