//! What the daemon says about itself: the status page, `/metrics`, `/healthz`, `/readyz` and the log.
//!
//! A metric is read at the moment it is asked for: per-CPU counters are summed, joined with the names of the current
//! snapshot and written out. Nothing is cached.

mod announce;
mod captures;
mod discovery;
pub mod drops;
mod fleet;
pub mod hosts;
pub mod icmp;
pub mod logging;
mod metrics;
mod peers;
pub mod server;
mod stats;
mod status_page;
mod text;
pub mod traffic;

pub use server::{Telemetry, serve};
pub use stats::{HealthStats, PublishStats};
