//! A thousand backends: a daemon that is killed at any point of a change of them, or whose calls fail there, and
//! backends that all come and go.
//!
//! Where packets go is asked of the attached program itself, frame by frame: before, after, and while a daemon starts.

mod cold;
mod kept;
mod kills;
mod refusals;
mod scene;
mod starts;
mod toggling;
mod view;

use std::env;
use std::time::SystemTime;

/// Set in the long tier.
const LONG: &str = "BALLAST_LONG";

/// So many points of each sweep, at most, in the long tier.
const MANY: usize = 50;

/// Every so manieth of `all` points, so that `few` are tried, or [`MANY`] in the long tier. There each day begins with another
/// one: runs of as many days as points are left out between two try them all.
fn points(all: usize, few: usize) -> impl Iterator<Item = usize> {
    let long = env::var_os(LONG).is_some();
    let step = all.div_ceil(if long { MANY.max(few) } else { few }).max(1);
    let days =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs() / 86_400);
    let first = if long { days as usize % step } else { 0 };
    if long {
        eprintln!("every {step}th of {all} points, from {first}");
    }
    (first..all).step_by(step)
}
