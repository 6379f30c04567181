//! Says in the log when a service gets into trouble and out of it, and what the kernel's news has made wrong.

use super::{ServiceView, Snapshot};
use crate::domain::{Health, policy::ServiceState};

/// What differs between two snapshots.
pub(super) fn tell(before: &Snapshot, after: &Snapshot) {
    for view in &after.services {
        let name = &view.service.name;
        let known = before.services.iter().find(|known| known.service.name == *name);
        match news(known, view) {
            Some(ServiceState::Panic) => log::error!(
                "service {name} panics: too few backends are healthy, so that those that are not get traffic as well"
            ),
            Some(ServiceState::Failing) => log::error!("service {name} fails: no backend gets traffic"),
            Some(state) => {
                let was = known.map_or(ServiceState::Healthy, |known| known.state);
                log::info!("service {name} is {}, and was {}", state.as_str(), was.as_str());
            }
            None => {}
        }
    }
    let (were, are) = (&before.nat_clashes, &after.nat_clashes);
    for (_, clash) in are.iter().filter(|(name, _)| !were.contains_key(*name)) {
        log::error!("{clash}");
    }
    for name in were.keys().filter(|name| !are.contains_key(*name)) {
        log::info!("service {name} shares no address and port with replies through NAT any more");
    }
}

/// The state of a service, if that is news. One that fails because it has just come and waits for its first verdicts is none
/// until they are there.
fn news(before: Option<&ServiceView>, after: &ServiceView) -> Option<ServiceState> {
    let was = before.map_or(ServiceState::Healthy, |known| known.state);
    match (after.state, was) {
        (ServiceState::Failing, ServiceState::Failing) => {
            let waited = before.is_some_and(waits);
            (waited && !waits(after)).then_some(ServiceState::Failing)
        }
        (ServiceState::Failing, _) if before.is_none() && waits(after) => None,
        (state, was) => (state != was).then_some(state),
    }
}

/// Whether a verdict is still to come, or a backend.
fn waits(view: &ServiceView) -> bool {
    view.gathers
        || view.backends.is_empty()
        || view.backends.iter().any(|backend| backend.health == Health::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::testing::{backend_view, service_view},
        domain::testing::{name, service},
    };

    fn view(state: ServiceState, healths: &[Health]) -> ServiceView {
        let address = "10.0.0.1:80".parse().expect("an address");
        let backends = healths.iter().map(|health| backend_view(name("a"), address, *health));
        service_view(service("web", &[]), state, backends)
    }

    #[test]
    fn a_new_service_whose_backends_all_turn_out_down_is_told_once() {
        use Health::{Healthy, Unhealthy, Unknown};
        use ServiceState::{Degraded, Failing, Panic};
        let waiting = view(Failing, &[Unknown, Unknown]);
        assert_eq!(news(None, &waiting), None);
        let half = view(Failing, &[Unhealthy, Unknown]);
        assert_eq!(news(Some(&waiting), &half), None);
        let down = view(Failing, &[Unhealthy, Unhealthy]);
        assert_eq!(news(Some(&half), &down), Some(Failing));
        assert_eq!(news(Some(&down), &down), None);
        // After a restart, and of one that gets its first backends later.
        assert_eq!(news(None, &down), Some(Failing));
        assert_eq!(
            (news(None, &view(Failing, &[])), news(Some(&view(Failing, &[])), &down)),
            (None, Some(Failing))
        );
        assert_eq!(news(Some(&down), &view(Degraded, &[Unhealthy, Healthy])), Some(Degraded));
        assert_eq!(news(Some(&half), &view(Panic, &[Unhealthy, Unhealthy])), Some(Panic));
        // Whoever had traffic and has none is told, whatever it waits for.
        assert_eq!(news(Some(&view(Degraded, &[Healthy])), &half), Some(Failing));
    }
}
