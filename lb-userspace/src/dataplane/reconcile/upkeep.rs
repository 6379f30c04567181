//! What time brings: flows that are gone leave their tables, and drains end.

use super::{
    super::{nat, scan::Moment},
    ApplyError, Reconciler,
    published::Published,
};

/// What a turn of the clock brought.
#[derive(Debug, Default)]
pub struct Ticked {
    /// Whether what is [`Published`] has changed.
    pub changed: bool,
    /// What went wrong. The next turn tries again.
    pub trouble: Option<ApplyError>,
}

impl Reconciler {
    /// Does the work that time brings: a step of the scan for flows that are gone and of NAT's sweep, and the end of
    /// drains. To be called every 100 ms; `published` is brought up to date.
    pub fn tick(&mut self, now: Moment, published: &mut Published) -> Ticked {
        self.dataplane.store_clock(now.coarse());
        let budget = nat::budget(self.limits.nat_flows);
        let swept = self.sweeper.step(&mut *self.dataplane, &self.nat_world, now, budget);
        let trouble = match swept {
            Ok(Some(census)) => {
                self.allocation.observe_nat(&census);
                self.nat_census = census;
                None
            }
            Ok(None) => None,
            Err(error) => Some(error.into()),
        };
        // Neither has to wait for the other's troubles.
        let ticked = match self.scan(now, published) {
            Ok(changed) => Ticked { changed, trouble },
            Err(error) => Ticked { changed: false, trouble: Some(error) },
        };
        self.replicate(now);
        ticked
    }

    /// A step of the scan for flows that are gone, and what follows from a pass that ends.
    fn scan(&mut self, now: Moment, published: &mut Published) -> Result<bool, ApplyError> {
        let Some(mut census) = self.scanner.step(self.dataplane.words(), &mut self.world, now, SCAN_BUDGET)
        else {
            return Ok(false);
        };
        self.allocation.observe(&census);
        census.join(&self.nat_census);
        self.census = census;
        let boot = now.boot_seconds();
        let has_left = |index: &u32| {
            let value = self.backends.get(index);
            value.is_none_or(|value| boot >= value.drain_deadline || self.is_drained(*index, value))
        };
        if self.leaving.iter().any(has_left)
            && let Some(desired) = self.desired.clone()
        {
            *published = self.apply(&desired, now)?;
            return Ok(true);
        }
        if self.tables.is_empty() && !published.services.is_empty() {
            // A change failed half-way. What is published is as good as known until it is made again.
            return Ok(false);
        }
        let services = self.published();
        let changed = services != published.services;
        published.services = services;
        Ok(changed)
    }
}

/// Flow entries that one step of the scan looks at: some milliseconds.
const SCAN_BUDGET: usize = 4 << 20;
