//! The one task that owns the state: commands in, revisions and snapshots out.

mod alarm;
mod clock;
mod command;
mod describe;
mod edit;
mod found;
mod merge;
mod snapshot;
mod state;
pub mod store;
mod task;
#[cfg(test)]
mod tests;
mod warnings;

pub use clock::{now, seconds_left};
pub use command::{
    Applied, Change, Command, FoundBackends, HealthReport, Hop, NextHopUpdate, OwnMacs, Rejected,
};
pub use edit::Edit;
#[cfg(test)]
pub(crate) use snapshot::testing;
pub use snapshot::{BackendView, FlowTable, InterfaceView, LeftOut, ServiceView, Snapshot, SourceView};
pub use state::State;
pub use task::{Handle, start};
