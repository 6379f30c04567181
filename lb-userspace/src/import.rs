//! Configurations of other load balancers, as Ballast's.

pub mod haproxy;

use std::net::IpAddr;

use crate::domain::Forwarding;

/// What another's configuration does not say.
#[derive(Clone, Debug)]
pub struct Choices {
    /// Addresses that stand for "every address of the host": Ballast's services have VIPs.
    pub vips: Vec<IpAddr>,
    pub interfaces: Vec<String>,
    pub forwarding: Forwarding,
}

/// A configuration, and what it lacks of the one it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// TOML.
    pub config: String,
    /// In the order of their lines.
    pub notes: Vec<Note>,
}

/// What has no equal, or another meaning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// From 1.
    pub line: usize,
    /// What is there.
    pub text: String,
    pub why: String,
}
