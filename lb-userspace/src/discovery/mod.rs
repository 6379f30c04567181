//! Backends that nobody names one by one: those of a watched file, and the addresses of a name in the DNS.
//!
//! A question → [`lookup`] or the reader of the file → what the service's backends are → `Command::Found`: the same road
//! as every other change. [`agenda`] knows who looks for what and when, [`lookup`] what an answer does to the set of
//! addresses, both without sockets and clocks; [`resolver`], [`file`] and [`watch`] look, and [`task`] does what the agenda
//! says. What was found last stays until there is a good answer that says otherwise: a failure empties no service.

mod agenda;
mod file;
mod lookup;
mod resolver;
mod stats;
mod task;
mod watch;

pub use stats::{DiscoveryStats, SourceStatus};
pub use task::{Settings, Submit, spawn};
