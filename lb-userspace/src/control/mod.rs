//! The one task that owns the state: commands in, revisions and snapshots out.

mod command;
mod snapshot;
mod state;
mod task;
#[cfg(test)]
mod tests;

pub use command::{Applied, Change, Command, HealthReport, Hop, NextHopUpdate, Rejected};
pub use snapshot::{BackendView, InterfaceView, ServiceView, Snapshot};
pub use state::State;
pub use task::{Handle, start};
