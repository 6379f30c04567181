//! The first table of a service, whose backends come into it together.
//!
//! Each that joins a table later moves clients, and so opens a window in which flows are tracked to whom they meet (docs/flow-tracking.md).
//! On a host that starts from nothing the flows that other hosts had would meet a table that is still to change, and follow it.

use std::time::Duration;

use super::choose;
use crate::domain::{Health, Name, Service};

/// Whether a verdict that is missing could change who is chosen.
pub fn is_open(service: &Service, panicked: bool, health: impl Fn(&Name) -> Health) -> bool {
    let chosen = |missing| {
        let health = |name: &Name| match health(name) {
            Health::Unknown => missing,
            known => known,
        };
        choose(service, panicked, health).weights
    };
    let now = chosen(Health::Unknown);
    [Health::Healthy, Health::Unhealthy].into_iter().any(|missing| chosen(missing) != now)
}

/// How long the first backends of a service wait for verdicts of the others: as long as these take for a first check that passes.
pub fn patience(service: &Service) -> Duration {
    let health = &service.health;
    let backends = u32::try_from(service.backends.len()).unwrap_or(u32::MAX);
    health.timeout.min(LONGEST) + health.first_checks_gap(backends) * backends
}

/// For a check that has time. Whoever is well answers sooner, and clients wait, too.
const LONGEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Fraction, OnAllDown,
        testing::{name, service},
    };

    use Health::{Healthy, Ineligible, Unhealthy, Unknown};

    fn waits(service: &Service, healths: &[(&str, Health)]) -> bool {
        let of = |wanted: &Name| healths.iter().find(|(name, _)| *name == wanted.as_str());
        is_open(service, false, |name| of(name).map_or(Unknown, |(_, health)| *health))
    }

    #[test]
    fn verdicts_that_could_change_nothing_are_not_waited_for() {
        let mut web = service("web", &[("a", 1), ("b", 1), ("c", 0)]);
        assert!(waits(&web, &[("a", Healthy)]));
        assert!(!waits(&web, &[("a", Healthy), ("b", Unhealthy)]));
        assert!(!waits(&web, &[("a", Ineligible), ("b", Healthy)]), "nobody asks one of weight 0");
        // A backup beside one that is well.
        web.backends.get_mut(&name("b")).expect("b").backup = true;
        assert!(!waits(&web, &[("a", Healthy)]));
        assert!(waits(&web, &[("b", Healthy)]));
        // Unless it may be needed.
        web.panic.threshold = Fraction::new(0.6).expect("a fraction");
        web.backends.get_mut(&name("c")).expect("c").weight = 1;
        assert!(waits(&web, &[("a", Healthy), ("c", Unhealthy)]));
    }

    #[test]
    fn a_table_of_the_dead_waits_as_well() {
        let mut web = service("web", &[("a", 1), ("b", 1)]);
        assert!(waits(&web, &[("a", Unhealthy)]));
        assert!(!waits(&web, &[("a", Unhealthy), ("b", Unhealthy)]));
        web.on_all_down = OnAllDown::Drop;
        assert!(waits(&web, &[("a", Unhealthy)]), "one that is well would be chosen");
    }

    #[test]
    fn patience_is_a_check_and_the_way_through_the_backends() {
        let mut web = service("web", &[("a", 1), ("b", 1)]);
        web.health.timeout = Duration::from_millis(200);
        assert_eq!(patience(&web), Duration::from_millis(220));
        web.health.timeout = Duration::from_secs(20);
        assert_eq!(patience(&web), Duration::from_millis(1_020));
        let names: Vec<_> = (0..1_000).map(|number| format!("b{number}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        // Their first checks take no longer than an interval.
        assert_eq!(patience(&service("web", &many)), Duration::from_secs(1) + Duration::from_millis(1_600));
    }
}
