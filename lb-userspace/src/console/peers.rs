//! What is said of those with whom flows are replicated.

use std::time::Duration;

use super::units;
use crate::peers::DEAD_AFTER;

/// How a peer is doing, in words. `silent`: since its last sign of life; `None` where there was none.
pub fn state(is_up: bool, silent: Option<Duration>) -> String {
    match (is_up, silent) {
        (true, _) => "up".to_owned(),
        (false, Some(silent)) if silent < DEAD_AFTER => "does not hear us".to_owned(),
        (false, Some(silent)) => format!("silent, {}", units::time(silent)),
        (false, None) => "never heard".to_owned(),
    }
}

/// Whether both have the same of something, in a word.
pub fn equality(equal: Option<bool>) -> &'static str {
    match equal {
        Some(true) => "equal",
        Some(false) => "differs",
        None => "-",
    }
}
