use proptest::prelude::*;

use super::*;
use crate::domain::{
    Fraction, Panic,
    testing::{name, service},
};

/// "web" with `primaries` backends p0 and on, and `backups` backups b0 and on, all of weight 1.
fn web(primaries: usize, backups: usize, threshold: f64) -> Service {
    let primaries = (0..primaries).map(|n| format!("p{n}"));
    let names: Vec<String> = primaries.chain((0..backups).map(|n| format!("b{n}"))).collect();
    let backends: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let mut web = service("web", &backends);
    web.panic = Panic { threshold: Fraction::new(threshold).expect("a fraction"), action: OnPanic::FailOpen };
    for backend in web.backends.values_mut() {
        backend.backup = backend.name.as_str().starts_with('b');
    }
    web
}

/// Who gets new flows while these are dead and all others healthy.
fn chosen(web: &Service, panicked: bool, dead: &[&str]) -> (Vec<String>, ServiceState, bool) {
    let health = |name: &Name| match dead.contains(&name.as_str()) {
        true => Health::Unhealthy,
        false => Health::Healthy,
    };
    let Choice { weights, state, panics, .. } = choose(web, panicked, health);
    (weights.keys().map(ToString::to_string).collect(), state, panics)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Every combination of three backends' health against the rules in words.
#[test]
fn only_healthy_backends_get_traffic_unless_none_is() {
    let decided = |health: [Health; 3], on_all_down| {
        let service = Service { on_all_down, ..web(3, 0, 0.0) };
        let number = |name: &Name| usize::from(name.as_str().as_bytes()[1] - b'0');
        let choice = choose(&service, false, |name| health[number(name)]);
        assert!(!choice.panics, "{health:?}");
        (choice.weights.keys().map(number).collect::<Vec<_>>(), choice.state)
    };
    for a in Health::ALL {
        for b in Health::ALL {
            for c in Health::ALL {
                let health = [a, b, c];
                let having = |wanted| (0..3).filter(|&n| health[n] == wanted).collect::<Vec<_>>();
                let (healthy, unhealthy) = (having(Health::Healthy), having(Health::Unhealthy));
                let ineligible = having(Health::Ineligible).len();
                let expected = match (healthy.len(), unhealthy.len()) {
                    (1.., _) if healthy.len() + ineligible == 3 => (healthy, ServiceState::Healthy),
                    (1.., _) => (healthy, ServiceState::Degraded),
                    (0, 1..) => (unhealthy, ServiceState::Panic),
                    (0, 0) => (vec![], ServiceState::Failing),
                };
                assert_eq!(decided(health, OnAllDown::FailOpen), expected, "{health:?}");
                if expected.1 == ServiceState::Panic {
                    assert_eq!(decided(health, OnAllDown::Drop), (vec![], ServiceState::Failing));
                }
            }
        }
    }
}

#[test]
fn backups_wait_until_no_other_is_healthy() {
    let web = web(3, 2, 0.0);
    assert_eq!(chosen(&web, false, &["p0", "p1"]), (names(&["p2"]), ServiceState::Degraded, false));
    assert_eq!(
        chosen(&web, false, &["p0", "p1", "p2", "b1"]),
        (names(&["b0"]), ServiceState::Degraded, false)
    );
    assert_eq!(chosen(&web, false, &[]), (names(&["p0", "p1", "p2"]), ServiceState::Healthy, false));
    // A dead one in reserve is worth knowing of.
    assert_eq!(chosen(&web, false, &["b0"]).1, ServiceState::Degraded);
}

#[test]
fn below_the_threshold_backups_join_and_where_they_suffice_nobody_panics() {
    let web = web(4, 1, 0.5);
    assert_eq!(chosen(&web, false, &["p0", "p1"]).0, names(&["p2", "p3"]));
    assert_eq!(
        chosen(&web, false, &["p0", "p1", "p2"]),
        (names(&["b0", "p3"]), ServiceState::Degraded, false)
    );
}

#[test]
fn where_backups_do_not_suffice_all_active_backends_get_traffic() {
    let mut web = web(4, 1, 0.5);
    let dead = ["b0", "p0", "p1", "p2"];
    let all = names(&["b0", "p0", "p1", "p2", "p3"]);
    assert_eq!(chosen(&web, false, &dead), (all, ServiceState::Panic, true));
    web.panic.action = OnPanic::HealthyOnly;
    assert_eq!(chosen(&web, false, &dead), (names(&["p3"]), ServiceState::Degraded, true));
}

#[test]
fn panic_begins_below_the_threshold_and_ends_a_tenth_above() {
    let web = web(10, 0, 0.5);
    let all = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"];
    let panics = |panicked: bool| [3, 4, 5, 6].map(|count: usize| chosen(&web, panicked, &all[..count]).2);
    assert_eq!(panics(false), [false, false, false, true]);
    assert_eq!(panics(true), [false, false, true, true]);
    // All down is fewer still, with whatever that means for them.
    assert_eq!([false, true].map(|panicked| chosen(&web, panicked, &all).2), [true, true]);
    let get = |panicked| chosen(&web, panicked, &all[..5]).0.len();
    assert_eq!((get(false), get(true)), (5, 10));
}

#[test]
fn what_all_down_means_is_not_panics_to_say() {
    let web = Service { on_all_down: OnAllDown::Drop, ..web(3, 0, 0.5) };
    assert_eq!(chosen(&web, false, &["p0", "p1", "p2"]), (vec![], ServiceState::Failing, true));
    // One that comes back does not have to carry everything alone.
    assert_eq!(chosen(&web, false, &["p0", "p1"]).1, ServiceState::Panic);
}

#[test]
fn who_is_not_active_or_has_no_verdict_counts_for_nothing() {
    let mut web = web(6, 0, 0.5);
    web.backends.get_mut("p0").unwrap().admin = Admin::Draining;
    web.backends.get_mut("p1").unwrap().admin = Admin::Disabled;
    web.backends.get_mut("p2").unwrap().weight = 0;
    let health = |name: &Name| match name.as_str() {
        "p3" => Health::Unknown,
        "p4" => Health::Healthy,
        _ => Health::Unhealthy,
    };
    let choice = choose(&web, false, health);
    assert_eq!((choice.weights.into_keys().collect::<Vec<_>>(), choice.panics), (vec![name("p4")], false));
}

#[test]
fn who_comes_is_told_when_all_are_down_and_not_when_nobody_is_there() {
    let mut web = Service { on_all_down: OnAllDown::Reject, ..web(2, 0, 0.0) };
    let rejects = |web: &Service, a, b| {
        let choice = choose(web, false, |name| if name.as_str() == "p0" { a } else { b });
        assert!(!choice.rejects || (choice.weights.is_empty() && choice.state == ServiceState::Failing));
        choice.rejects
    };
    use Health::{Healthy, Ineligible, Unhealthy, Unknown};
    assert!(rejects(&web, Unhealthy, Unhealthy) && rejects(&web, Ineligible, Ineligible));
    assert!(rejects(&web, Unhealthy, Unknown));
    assert!(!rejects(&web, Unknown, Unknown) && !rejects(&web, Healthy, Unhealthy));
    web.backends.values_mut().for_each(|backend| backend.admin = Admin::Disabled);
    assert!(!rejects(&web, Unhealthy, Unhealthy));
}

#[test]
fn a_three_node_primary_never_panics() {
    let web = web(3, 0, 0.5);
    let with = |of: [Health; 3], panicked| {
        let choice = choose(&web, panicked, |name| of[usize::from(name.as_str().as_bytes()[1] - b'0')]);
        (choice.weights.into_keys().collect::<Vec<_>>(), choice.state, choice.panics)
    };
    use Health::{Healthy, Ineligible, Unhealthy};
    for panicked in [false, true] {
        let one = with([Ineligible, Healthy, Ineligible], panicked);
        assert_eq!(one, (vec![name("p1")], ServiceState::Healthy, false));
        // A failover under way: the old one is gone, and nobody writes to a replica.
        let none = with([Ineligible, Ineligible, Ineligible], panicked);
        assert_eq!(none, (vec![], ServiceState::Failing, false));
    }
    // A dead replica is no reason to send anybody to it.
    assert_eq!(
        with([Unhealthy, Healthy, Ineligible], false),
        (vec![name("p1")], ServiceState::Degraded, false)
    );
}

proptest! {
    /// A choice made again from what it said is the same: a restart, or a report of nothing new, moves nobody. And
    /// nobody gets traffic who has no verdict or isn't active.
    #[test]
    fn a_choice_stands_until_something_changes(
        all in prop::collection::vec((any::<bool>(), 0u16..3, 0usize..3, 0usize..4), 0..9),
        threshold in 0u16..=20,
        panicked in any::<bool>(),
        (answer, only) in (0usize..3, any::<bool>()),
    ) {
        let named: Vec<String> = (0..all.len()).map(|n| format!("p{n}")).collect();
        let backends: Vec<_> = named.iter().zip(&all).map(|(n, one)| (n.as_str(), one.1)).collect();
        let mut web = service("web", &backends);
        web.on_all_down = OnAllDown::ALL[answer];
        web.panic.threshold = Fraction::new(f64::from(threshold) / 20.0).expect("a fraction");
        web.panic.action = if only { OnPanic::HealthyOnly } else { OnPanic::FailOpen };
        for (n, (backup, _, admin, _)) in named.iter().zip(&all) {
            let backend = web.backends.get_mut(n.as_str()).unwrap();
            (backend.backup, backend.admin) = (*backup, Admin::ALL[*admin]);
        }
        let health = |n: &Name| Health::ALL[all[named.iter().position(|known| known == n.as_str()).unwrap()].3];
        let choice = choose(&web, panicked, health);
        prop_assert_eq!(&choose(&web, choice.panics, health), &choice);
        for (n, weight) in &choice.weights {
            let backend = &web.backends[n];
            prop_assert!(*weight == backend.weight && *weight > 0 && backend.admin == Admin::Active);
            prop_assert!(matches!(health(n), Health::Healthy | Health::Unhealthy));
        }
        // Wherever a healthy backend is, somebody gets traffic; and unhealthy ones do where it is called panic.
        let active = |n: &&Name| web.backends[*n].admin == Admin::Active && web.backends[*n].weight > 0;
        let any_healthy = web.backends.keys().filter(active).any(|n| health(n) == Health::Healthy);
        prop_assert!(!any_healthy || choice.weights.keys().any(|n| health(n) == Health::Healthy));
        let sends_to_the_dead = choice.weights.keys().any(|n| health(n) == Health::Unhealthy);
        prop_assert!(!sends_to_the_dead || choice.state == ServiceState::Panic);
        prop_assert_eq!(choice.weights.is_empty(), choice.state == ServiceState::Failing);
    }
}
