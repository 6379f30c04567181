//! States that are to be looked at, not applied.

use std::sync::Arc;

use super::State;
use crate::domain::Health;

impl State {
    /// This state as it will be when the backends that `before` had not have passed their first check. Until then they get
    /// no traffic, which is not what anybody wants to know of a change.
    pub(in crate::control) fn once_probed(&self, before: &Self) -> Self {
        let mut next = self.clone();
        for (name, entry) in &mut next.services {
            let spec = Arc::clone(&entry.spec);
            let old = before.service(name);
            for (backend, observed) in &mut entry.observed {
                let address = spec.backends.get(backend).map(|backend| backend.address);
                let known = old.and_then(|old| Some(old.backends.get(backend)?.address));
                if known != address && observed.standing.health == Health::Unknown {
                    observed.standing.health = Health::Healthy;
                }
            }
        }
        next
    }
}
