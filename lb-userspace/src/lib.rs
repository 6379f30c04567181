//! Ballast's controller and command line, as a library so that the tests can drive its parts.

pub mod api;
pub mod capture;
pub mod cli;
pub mod config;
pub mod console;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod discovery;
mod disk;
mod dns;
pub mod doctor;
pub mod domain;
pub mod explain;
pub mod health;
pub mod import;
pub mod lookup;
pub mod neighbour;
pub mod peers;
#[cfg(test)]
mod snapshot;
mod sysctl;
pub mod telemetry;
mod trace;
