//! States that are to be looked at, not applied.

use std::sync::Arc;

use super::State;
use crate::domain::Health;

impl State {
    /// This state as it will be when the backends that `before` had not have passed their first check, and those that come into
    /// their table with it are past their slow start. Until then they get no traffic or little, which is not what anybody
    /// wants to know of a change.
    pub(in crate::control) fn once_settled(&self, before: &Self) -> Self {
        let mut next = self.clone();
        for (name, entry) in &mut next.services {
            entry.wait_for_nobody();
            let spec = Arc::clone(&entry.spec);
            let old_entry = before.services.get(name);
            let old = before.service(name);
            for (backend, observed) in &mut entry.observed {
                let address = spec.backends.get(backend).map(|backend| backend.address);
                let known = old.and_then(|old| Some(old.backends.get(backend)?.address));
                if known != address && observed.standing.health == Health::Unknown {
                    observed.standing.health = Health::Healthy;
                }
                let started_before = old_entry.and_then(|entry| entry.observed.get(backend));
                if started_before.map(|observed| observed.standing.started_at)
                    != Some(observed.standing.started_at)
                {
                    observed.standing.started_at = 0;
                }
            }
        }
        next
    }
}
