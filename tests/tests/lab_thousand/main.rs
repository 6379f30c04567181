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

/// Set in the long tier.
const LONG: &str = "BALLAST_LONG";

/// Every so manieth point, so that `few` are tried; all of them in the long tier.
fn step(points: usize, few: usize) -> usize {
    if env::var_os(LONG).is_some() { 1 } else { points.div_ceil(few).max(1) }
}
