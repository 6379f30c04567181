//! Policy: from a service, what was observed of its backends and what the administrator wants, to weights.
//!
//! Everything that decides weights is here, and nothing else: no clock, no sockets, no tables.

use std::collections::BTreeMap;

use super::{Admin, Health, Name, OnAllDown, Service};

/// What policy decides for a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Weights of the backends that get new flows. Empty: packets are dropped and counted.
    pub weights: BTreeMap<Name, u16>,
    pub state: ServiceState,
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

/// Decides who gets new flows of `service`, given the health of each of its backends.
pub fn decide(service: &Service, health: impl Fn(&Name) -> Health) -> Decision {
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
        return Decision { weights: healthy, state };
    }
    // A backend without a verdict never got traffic, so that failing open doesn't start with it.
    let unhealthy = weights_where(Health::Unhealthy);
    if !unhealthy.is_empty() && service.on_all_down == OnAllDown::FailOpen {
        return Decision { weights: unhealthy, state: ServiceState::Panic };
    }
    Decision { weights: BTreeMap::new(), state: ServiceState::Failing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::{name, service};

    const ALL: [Health; 3] = [Health::Unknown, Health::Healthy, Health::Unhealthy];

    fn decided(health: &[Health], on_all_down: OnAllDown) -> (Vec<usize>, ServiceState) {
        let names: Vec<_> = (0..health.len()).map(|n| format!("b{n}")).collect();
        let backends: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let service = Service { on_all_down, ..service("web", &backends) };
        let position =
            |name: &Name| names.iter().position(|known| known == name.as_str()).unwrap_or_default();
        let decision = decide(&service, |name| health[position(name)]);
        (decision.weights.keys().map(position).collect(), decision.state)
    }

    /// Every combination of three backends' health against the rules in words.
    #[test]
    fn only_healthy_backends_get_traffic_unless_none_is() {
        for a in ALL {
            for b in ALL {
                for c in ALL {
                    let health = [a, b, c];
                    let having = |wanted| (0..3).filter(|&n| health[n] == wanted).collect::<Vec<_>>();
                    let (healthy, unhealthy) = (having(Health::Healthy), having(Health::Unhealthy));
                    let expected = match (healthy.len(), unhealthy.len()) {
                        (3, _) => (healthy, ServiceState::Healthy),
                        (1.., _) => (healthy, ServiceState::Degraded),
                        (0, 1..) => (unhealthy, ServiceState::Panic),
                        (0, 0) => (vec![], ServiceState::Failing),
                    };
                    assert_eq!(decided(&health, OnAllDown::FailOpen), expected, "{health:?}");
                    if expected.1 == ServiceState::Panic {
                        assert_eq!(decided(&health, OnAllDown::Drop), (vec![], ServiceState::Failing));
                    }
                }
            }
        }
    }

    #[test]
    fn a_backend_of_weight_0_gets_no_new_flows_and_spoils_nothing() {
        let service = service("web", &[("a", 0), ("b", 3)]);
        let decision = decide(&service, |_| Health::Healthy);
        assert_eq!(decision.weights, BTreeMap::from([(name("b"), 3)]));
        assert_eq!(decision.state, ServiceState::Healthy);
    }
}
