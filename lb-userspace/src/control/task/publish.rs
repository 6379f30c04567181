//! From a state to the maps, and to what is kept.

use std::time::Instant;

use super::Task;
use crate::{
    control::{Rejected, State},
    dataplane::{desired::Desired, scan::Moment},
};

impl Task {
    /// What has to survive a restart is written down before anybody sees it.
    pub(super) fn keep_and_publish(
        &mut self,
        next: &State,
        counts: bool,
        now: Moment,
    ) -> Result<(), Rejected> {
        self.mend(now)?;
        if *next.kept() == self.saved {
            return self.publish(next, counts, now);
        }
        self.reconciler.check(&next.desired(now.boot_seconds()), now)?;
        if let Err(error) = self.store.save(next.kept()) {
            // It may be there and only not known to be safe. Where this fails too, the first error is the one to report.
            let _ = self.store.restore(&self.saved);
            return Err(error.into());
        }
        let published = self.publish(next, counts, now);
        if published.is_ok() {
            self.saved = next.kept().clone();
        } else if let Err(error) = self.store.restore(&self.saved) {
            log::error!("a change was refused, and is kept all the same until the next one: {error}");
        }
        published
    }

    /// `counts`: it is another revision even if no map changes. Where it fails half-way the next turn of the clock makes
    /// the maps what they were.
    pub(super) fn publish(&mut self, next: &State, counts: bool, now: Moment) -> Result<(), Rejected> {
        let outcome = self.try_publish(next, counts, now);
        if let Err(Rejected::Dataplane(_)) = &outcome {
            // A first start that fails has nothing to go back to: what is there is an earlier daemon's.
            self.torn = self.declared;
            self.due = Some(now.boot);
        }
        outcome
    }

    /// Makes the maps again what they were before a change that failed half-way. If that was to replace a live service it may
    /// have done so, and going back is to replace it, too.
    pub(super) fn mend(&mut self, now: Moment) -> Result<(), Rejected> {
        if self.torn {
            let before = Desired { disruptive: true, ..self.state.desired(now.boot_seconds()) };
            self.published = self.reconciler.apply(&before, now)?;
            self.torn = false;
        }
        Ok(())
    }

    fn try_publish(&mut self, next: &State, counts: bool, now: Moment) -> Result<(), Rejected> {
        let started = Instant::now();
        let published = self.reconciler.apply(&next.desired(now.boot_seconds()), now)?;
        if published.changed || counts {
            self.reconciler.store_revision(self.revision + 1).map_err(Rejected::Dataplane)?;
            self.revision += 1;
            self.stats.observe(started.elapsed());
        }
        self.published = published;
        self.due = next.next_change(now);
        Ok(())
    }
}
