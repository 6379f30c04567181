//! Everything dies and comes back under the clients' eyes: docs/high-availability.md.

use std::time::Duration;

use anyhow::Result;
use lb_tests::lab::require_root;
use lb_tests::storm::{Settings, storm};

#[test]
#[ignore = "long: three minutes of every kind of fault"]
fn no_request_fails_in_a_storm_but_for_those_that_a_death_costs() -> Result<()> {
    require_root!(Ok(()));
    storm(Settings::steady(7, Duration::from_secs(180)))?.verdict()
}
