//! Health checks: probe → `Machine::observe(now, outcome)` → transition → `Command::Health`.
//!
//! [`machine`] decides and knows no sockets or clocks, [`probe`] asks one backend once, [`checker`] repeats that for
//! one backend, [`scheduler`] keeps one checker for each backend of the snapshot and hands what they find to the
//! control task.
//!
//! A backend that stops answering is unhealthy no later than `fall × interval + timeout` afterwards, as long as
//! `timeout` is at most `interval` and the checks under way need no more sockets than [`scheduler::MAX_SOCKETS`].

mod checker;
pub mod machine;
pub mod probe;
pub mod scheduler;

pub use machine::{Machine, Transition};
pub use probe::Outcome;
pub use scheduler::spawn;
