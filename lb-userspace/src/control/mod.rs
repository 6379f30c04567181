//! The one task that owns the state: commands in, revisions and snapshots out.

mod alarm;
mod command;
mod describe;
mod edit;
mod merge;
mod snapshot;
mod state;
pub mod store;
mod task;
#[cfg(test)]
mod tests;
mod warnings;

pub use command::{Applied, Change, Command, HealthReport, Hop, NextHopUpdate, OwnMacs, Rejected};
pub use edit::Edit;
pub use snapshot::{BackendView, FlowTable, InterfaceView, ServiceView, Snapshot};
pub use state::State;
pub use task::{Handle, begun_seconds, now, start};
