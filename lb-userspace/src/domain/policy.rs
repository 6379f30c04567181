//! Policy: from a service, what was observed of its backends, what the administrator wants and what time it is, to
//! weights and to whether existing flows may stay.
//!
//! Everything that decides weights is here, and nothing else: no clock, no sockets, no tables.

use std::collections::BTreeMap;

use super::{Admin, Backend, Health, Name, OnAllDown, Protocol, Service};

/// What policy decides for a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// One for each backend.
    pub backends: BTreeMap<Name, Verdict>,
    pub state: ServiceState,
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
}

/// A service at a glance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceState {
    /// Every active backend is healthy.
    Healthy,
    /// Some are not; the rest carry the traffic.
    Degraded,
    /// Every active backend with a verdict is unhealthy, and they get traffic all the same (`fail-open`).
    Panic,
    /// No backend gets traffic.
    #[default]
    Failing,
}

impl ServiceState {
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Degraded, Self::Panic, Self::Failing];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Panic => "panic",
            Self::Failing => "failing",
        }
    }
}

/// Weights of the backends that get new flows, which depend on no time, and the state of the service. No weights:
/// packets of new flows are dropped and counted.
pub fn weights(service: &Service, health: impl Fn(&Name) -> Health) -> (BTreeMap<Name, u16>, ServiceState) {
    let active: Vec<_> = service
        .backends
        .values()
        .filter(|backend| backend.admin == Admin::Active && backend.weight > 0)
        .map(|backend| (backend, health(&backend.name)))
        .collect();
    let weights_where = |wanted: Health| -> BTreeMap<Name, u16> {
        let chosen = active.iter().filter(|(_, health)| *health == wanted);
        chosen.map(|(backend, _)| (backend.name.clone(), backend.weight)).collect()
    };

    let healthy = weights_where(Health::Healthy);
    if !healthy.is_empty() {
        let state =
            if healthy.len() == active.len() { ServiceState::Healthy } else { ServiceState::Degraded };
        return (healthy, state);
    }
    // A backend without a verdict never got traffic, so that failing open doesn't start with it.
    let unhealthy = weights_where(Health::Unhealthy);
    if !unhealthy.is_empty() && service.on_all_down == OnAllDown::FailOpen {
        return (unhealthy, ServiceState::Panic);
    }
    (BTreeMap::new(), ServiceState::Failing)
}

/// Decides who gets new flows of `service` and who keeps those there are, at `now` in boot-time seconds.
pub fn decide(service: &Service, now: u64, standing: impl Fn(&Name) -> Standing) -> Decision {
    let (weights, state) = weights(service, |name| standing(name).health);
    let mut decision = Decision { state, ..Decision::default() };
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
    use crate::domain::testing::{name, service};

    const GRACE: u64 = 30;

    /// Every combination of three backends' health against the rules in words.
    #[test]
    fn only_healthy_backends_get_traffic_unless_none_is() {
        let decided = |health: [Health; 3], on_all_down| {
            let service = Service { on_all_down, ..service("web", &[("b0", 1), ("b1", 1), ("b2", 1)]) };
            let number = |name: &Name| usize::from(name.as_str().as_bytes()[1] - b'0');
            let (weights, state) = weights(&service, |name| health[number(name)]);
            (weights.keys().map(number).collect::<Vec<_>>(), state)
        };
        for a in Health::ALL {
            for b in Health::ALL {
                for c in Health::ALL {
                    let health = [a, b, c];
                    let having = |wanted| (0..3).filter(|&n| health[n] == wanted).collect::<Vec<_>>();
                    let (healthy, unhealthy) = (having(Health::Healthy), having(Health::Unhealthy));
                    let expected = match (healthy.len(), unhealthy.len()) {
                        (3, _) => (healthy, ServiceState::Healthy),
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
    fn a_backend_of_weight_0_gets_no_new_flows_keeps_its_own_and_spoils_nothing() {
        let service = service("web", &[("a", 0), ("b", 3)]);
        let healthy = Standing { health: Health::Healthy, ..Standing::default() };
        let decision = decide(&service, 5, |_| healthy);
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
            (weight, admin, Standing { health, left_table_at: left, drain_deadline })
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
            let decision = decide(&web, now, of);
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
                prop_assert_eq!(&decide(&web, next - 1, of).backends, &decision.backends);
                prop_assert_ne!(&decide(&web, next, of).backends, &decision.backends);
            }
        }
    }
}
