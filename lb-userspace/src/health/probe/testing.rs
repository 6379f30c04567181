//! What the tests of the probes share.

use std::time::Duration;

use super::Outcome;
use crate::domain::{HealthCheck, Probe};

pub(super) const TIMEOUT: Duration = Duration::from_millis(500);

/// A check of this kind that gives up soon.
pub(super) fn of(probe: Probe) -> HealthCheck {
    HealthCheck { probe, timeout: TIMEOUT, ..HealthCheck::default() }
}

pub(super) fn passed(detail: &str) -> Outcome {
    Outcome::Passed { detail: detail.into() }
}

pub(super) fn failed(detail: &str) -> Outcome {
    Outcome::Failed { detail: detail.into() }
}
