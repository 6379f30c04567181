//! Says in the log when a service gets into trouble and out of it.

use super::Snapshot;
use crate::domain::policy::ServiceState;

/// What differs between two snapshots.
pub(super) fn tell(before: &Snapshot, after: &Snapshot) {
    for view in &after.services {
        let name = &view.service.name;
        let known = before.services.iter().find(|known| known.service.name == *name);
        let was = known.map_or(ServiceState::Healthy, |known| known.state);
        match view.state {
            state if state == was => {}
            ServiceState::Panic => log::error!(
                "service {name} panics: too few backends are healthy, so that those that are not get traffic as well"
            ),
            // It has just been declared, and its backends have no verdict yet.
            ServiceState::Failing if known.is_none() => {}
            ServiceState::Failing => log::error!("service {name} fails: no backend gets traffic"),
            state => log::info!("service {name} is {}, and was {}", state.as_str(), was.as_str()),
        }
    }
}
