//! Policy: from a service, what was observed of its backends, what the administrator wants, what time it is and what was
//! decided last, to weights and to whether existing flows may stay.
//!
//! Everything that decides weights is here, and nothing else: no clock, no sockets, no tables.

mod choice;
mod first;
mod slow_start;

use std::collections::BTreeMap;

use super::{Admin, Backend, Health, Name, Protocol, Service};
pub use choice::{Choice, ServiceState, choose};
pub use first::{is_open, patience};
use slow_start::Start;

/// What policy decides for a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// One for each backend.
    pub backends: BTreeMap<Name, Verdict>,
    pub state: ServiceState,
    /// Both as in the [`Choice`].
    pub panics: bool,
    pub rejects: bool,
    /// Boot-time seconds at which it next decides otherwise although nothing but time has changed.
    pub next_change: Option<u64>,
}

/// What policy decides for a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// 0: no new flows, and no slots.
    pub weight: u16,
    pub accepts_existing: bool,
}

/// What is known of a backend beyond its declaration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub health: Health,
    /// Boot-time seconds at which it left the lookup table; 0 while it is in it or never was.
    pub left_table_at: u64,
    /// Boot-time seconds at which its drain ends; 0 where it doesn't drain.
    pub drain_deadline: u64,
    /// Boot-time seconds at which its slow start began; 0 where it has none.
    pub started_at: u64,
}

/// Decides who gets new flows of `service`, of those that were chosen, and who keeps those there are, at `now` in boot-time
/// seconds.
pub fn decide(service: &Service, choice: Choice, now: u64, standing: impl Fn(&Name) -> Standing) -> Decision {
    let Choice { mut weights, state, panics, rejects } = choice;
    let mut decision = Decision { state, panics, rejects, ..Decision::default() };
    // Who panics needs everybody.
    if state != ServiceState::Panic {
        let start = |name: &Name| Start::of(service.slow_start, standing(name).started_at, now);
        decision.next_change = slow_start::reduce(&mut weights, now, start);
    }
    for backend in service.backends.values() {
        let weight = weights.get(&backend.name).copied().unwrap_or_default();
        let keeps = if weight > 0 { Keeps::Always } else { keeps(service, backend, standing(&backend.name)) };
        let accepts_existing = match keeps {
            Keeps::Always => true,
            Keeps::Never => false,
            Keeps::Until(deadline) => now < deadline,
        };
        if let Keeps::Until(deadline) = keeps
            && now < deadline
        {
            let sooner = decision.next_change.is_none_or(|next| deadline < next);
            decision.next_change = if sooner { Some(deadline) } else { decision.next_change };
        }
        decision.backends.insert(backend.name.clone(), Verdict { weight, accepts_existing });
    }
    decision
}

/// How long a backend keeps its existing flows.
enum Keeps {
    Always,
    Never,
    /// Boot-time seconds.
    Until(u64),
}

/// Of a backend that gets no new flows.
fn keeps(service: &Service, backend: &Backend, standing: Standing) -> Keeps {
    let unhealthy = matches!(standing.health, Health::Unhealthy | Health::Ineligible);
    match (backend.admin, service.protocol) {
        (Admin::Disabled, _) => Keeps::Never,
        // A datagram can go elsewhere at once, where a connection could only be reset.
        (_, Protocol::Udp) if unhealthy => Keeps::Never,
        (Admin::Draining, _) => Keeps::Until(standing.drain_deadline),
        (Admin::Active, Protocol::Tcp) if unhealthy => match standing.left_table_at {
            _ if service.unhealthy_grace.is_zero() => Keeps::Never,
            0 => Keeps::Never,
            left => Keeps::Until(left.saturating_add(service.unhealthy_grace.as_secs())),
        },
        (Admin::Active, _) => Keeps::Always,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{
        OnAllDown,
        testing::{name, service},
    };

    const GRACE: u64 = 30;

    #[test]
    fn a_backend_of_weight_0_gets_no_new_flows_keeps_its_own_and_spoils_nothing() {
        let service = service("web", &[("a", 0), ("b", 3)]);
        let healthy = Standing { health: Health::Healthy, ..Standing::default() };
        let decision = decide(&service, choose(&service, false, |_| Health::Healthy), 5, |_| healthy);
        assert_eq!(decision.backends[&name("a")], Verdict { weight: 0, accepts_existing: true });
        assert_eq!(decision.backends[&name("b")], Verdict { weight: 3, accepts_existing: true });
        assert_eq!((decision.state, decision.next_change), (ServiceState::Healthy, None));
    }

    fn standing() -> impl Strategy<Value = (u16, Admin, Standing)> {
        let admin = prop::sample::select(Admin::ALL.to_vec());
        let health = prop::sample::select(Health::ALL.to_vec());
        let left = prop_oneof![Just(0u64), 0u64..200];
        (0u16..3, admin, health, left, 0u64..200).prop_map(|(weight, admin, health, left, drain)| {
            // The fields that mean nothing are what the state leaves there.
            let drain_deadline = if admin == Admin::Draining { drain } else { 0 };
            (weight, admin, Standing { health, left_table_at: left, drain_deadline, started_at: 0 })
        })
    }

    proptest! {
        /// The rules in words, backend by backend.
        #[test]
        fn flows_stay_as_long_as_the_rules_say(
            all in prop::collection::vec(standing(), 1..5),
            udp in any::<bool>(),
            open in any::<bool>(),
            now in prop_oneof![1u64..GRACE, 0u64..300],
        ) {
            let names = ["a", "b", "c", "d"];
            let backends: Vec<_> = names.iter().zip(&all).map(|(name, (weight, ..))| (*name, *weight)).collect();
            let mut web = service("web", &backends);
            web.protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            web.on_all_down = if open { OnAllDown::FailOpen } else { OnAllDown::Drop };
            web.unhealthy_grace = Duration::from_secs(GRACE);
            for (name, (_, admin, _)) in names.iter().zip(&all) {
                web.backends.get_mut(*name).unwrap().admin = *admin;
            }
            let of = |name: &Name| all[names.iter().position(|known| *known == name.as_str()).unwrap()].2;
            let choice = choose(&web, false, |name| of(name).health);
            let decision = decide(&web, choice.clone(), now, of);
            let candidates =
                |health| all.iter().filter(|(weight, admin, standing)| {
                    *weight > 0 && *admin == Admin::Active && standing.health == health
                }).count();
            let fails_open = candidates(Health::Healthy) == 0 && open;
            let mut deadlines = Vec::new();
            for (name, (weight, admin, standing)) in names.iter().zip(&all) {
                let verdict = decision.backends[*name];
                let active = *admin == Admin::Active;
                // New flows.
                let gets = match standing.health {
                    Health::Unknown | Health::Ineligible => false,
                    Health::Healthy => active,
                    Health::Unhealthy => active && fails_open,
                };
                prop_assert_eq!(verdict.weight, if gets { *weight } else { 0 });
                // Existing flows.
                let unhealthy = matches!(standing.health, Health::Unhealthy | Health::Ineligible);
                let deadline = if *admin == Admin::Draining {
                    Some(standing.drain_deadline)
                } else if active && unhealthy && standing.left_table_at > 0 {
                    Some(standing.left_table_at + GRACE)
                } else {
                    None
                };
                let in_time = deadline.is_some_and(|deadline| now < deadline);
                let stays = match admin {
                    _ if verdict.weight > 0 => true,
                    Admin::Disabled => false,
                    _ if unhealthy && udp => false,
                    Admin::Draining => in_time,
                    Admin::Active if unhealthy => in_time,
                    Admin::Active => true,
                };
                prop_assert_eq!(verdict.accepts_existing, stays, "{}", name);
                if verdict.weight == 0 && stays && in_time {
                    deadlines.extend(deadline);
                }
            }
            prop_assert_eq!(decision.next_change, deadlines.iter().min().copied());
            // Until then nothing changes by itself; then something does.
            if let Some(next) = decision.next_change {
                prop_assert_eq!(&decide(&web, choice.clone(), next - 1, of).backends, &decision.backends);
                prop_assert_ne!(&decide(&web, choice, next, of).backends, &decision.backends);
            }
        }
    }
}
