//! The controller's scan over slots and flows.

use std::{collections::HashMap, time::Duration};

/// What time it is, on the two clocks that matter. Passed in, so that tests decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// `CLOCK_MONOTONIC`: what the data plane's coarse time counts.
    pub monotonic: Duration,
    /// `CLOCK_BOOTTIME`: goes on while the machine is suspended. Deadlines in the maps count by it.
    pub boot: Duration,
}

impl Moment {
    /// Units of coarse time.
    pub const fn coarse(self) -> u64 {
        self.monotonic.as_secs()
    }

    pub const fn boot_seconds(self) -> u64 {
        self.boot.as_secs()
    }
}

/// What a whole scan counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Entries of the flow table that are not empty.
    pub entries: u64,
    /// All there are.
    pub capacity: u64,
    /// Slots of all services in which flows are tracked because of a change; services that track always not included.
    pub tracked_slots: u64,
    /// Live flows (neither closing nor gone) by backend index.
    pub flows: HashMap<u32, u64>,
}
