//! Health checks: probe → `Machine::observe(now, outcome)` → transition → `Command::Health`.
//!
//! [`machine`] decides and [`agenda`] knows who is to be checked and when, both without sockets and clocks; [`probe`]
//! asks one backend once, [`real_path`] by the way of its traffic; [`links`] says whether a failure is this host's own; [`scheduler`] does what the agenda says for the backends of the snapshot, and hands what the
//! probes find to the control task.
//!
//! A backend that stops answering is unhealthy no later than `fall × interval + timeout` afterwards, as long as
//! `timeout` is at most `interval` and there are descriptors for the checks under way ([`sockets`]).

mod agenda;
mod links;
pub mod machine;
pub mod probe;
mod real_path;
pub mod scheduler;
mod sockets;

pub use links::Links;
pub use machine::{Machine, Transition};
pub use probe::Outcome;
pub use real_path::RealPath;
pub use scheduler::spawn;
