//! The clocks that deadlines count by.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::dataplane::scan::Moment;

/// Pinned maps live as long as the kernel, so their deadlines count by its clocks.
pub fn now() -> Moment {
    let read = |clock| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    Moment { monotonic: read(ClockId::CLOCK_MONOTONIC), boot: read(ClockId::CLOCK_BOOTTIME) }
}

/// Seconds from now to a deadline, which is one of boot-time seconds.
pub fn seconds_left(deadline: u64) -> u64 {
    deadline.saturating_sub(begun_seconds(now()))
}

/// Boot-time seconds, the one that has begun counted: what lasts from then on is not over before its time.
pub(super) fn begun_seconds(now: Moment) -> u64 {
    now.boot_seconds() + u64::from(now.boot.subsec_nanos() > 0)
}
