//! The reference of the configuration: every table of it, as `docs/` and the manual describe it.

#[cfg(test)]
mod tests;

use super::{
    announce, daemon, discovery, fleet,
    health::{self, probe},
    key::Described,
    limits, nat, peers, service,
};

/// A table of the configuration, or a part of one that is described under a heading of its own.
pub(crate) struct Section {
    /// The line in a page of `docs/` after which it is described.
    pub(crate) heading: &'static str,
    /// What it is for, in Markdown, on one line; nothing where the heading says it.
    pub(crate) says: &'static str,
    pub(crate) keys: &'static [&'static dyn Described],
}

/// In the order in which they are described.
pub(crate) static SECTIONS: [&Section; 21] = [
    &daemon::DAEMON,
    &limits::LIMITS,
    &daemon::FLOW_HASH,
    &nat::NAT,
    &discovery::DISCOVERY,
    &announce::ANNOUNCE,
    &fleet::FLEET,
    &peers::PEERS,
    &service::keys::SERVICE,
    &health::keys::HEALTH,
    &service::keys::BACKEND,
    &discovery::DNS,
    &health::keys::WHEN,
    &health::keys::WHERE,
    &probe::http::HTTP,
    &probe::tls::SECTION,
    &probe::database::DATABASES,
    &probe::GRPC,
    &probe::dns::DNS,
    &probe::AGENT,
    &probe::exec::EXEC,
];
