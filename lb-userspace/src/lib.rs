//! Ballast's controller and command line, as a library so that the tests can drive its parts.

#![cfg_attr(
    not(feature = "fleet"),
    allow(dead_code, reason = "what a fleet's documents and views need is there, and nobody asks for it")
)]

pub mod announce;
pub mod api;
pub mod boards;
pub mod capture;
pub mod cli;
pub mod config;
pub mod console;
pub mod control;
pub mod daemon;
pub mod dataplane;
mod digits;
pub mod discovery;
mod disk;
mod dns;
pub mod doctor;
pub mod domain;
pub mod explain;
pub mod fleet;
pub mod health;
pub mod import;
mod interfaces;
pub mod keepalived;
pub mod lookup;
pub mod neighbour;
pub mod peers;
mod secret_file;
mod similar;
#[cfg(test)]
mod snapshot;
mod sysctl;
pub mod telemetry;
mod trace;
