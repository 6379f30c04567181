//! Figures of replication.

use std::collections::BTreeMap;

use super::wire::Kind;

/// Of one peer, since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    pub sent: BTreeMap<Kind, u64>,
    /// Authentic and new ones.
    pub received: BTreeMap<Kind, u64>,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Datagrams whose content was sent before and not acknowledged in time.
    pub repeated: u64,
    pub flows_sent: u64,
    pub flows_received: u64,
}

/// Why a datagram was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Its sender is no peer.
    Stranger,
    Malformed,
    Version,
    /// Its sender's hash key has another fingerprint.
    OtherKey,
    /// It was not signed with the peers' key.
    Unauthentic,
    /// Of a session that is over, or never was.
    Session,
    /// It has come before, or was sent before one that has come.
    Replayed,
    /// It was on its way for too long.
    Late,
    /// Too many of its kind came.
    Limited,
    /// What came before it is not taken in yet. It is not acknowledged, so it comes again.
    Full,
}

impl Refusal {
    pub const ALL: [Self; 10] = [
        Self::Stranger,
        Self::Malformed,
        Self::Version,
        Self::OtherKey,
        Self::Unauthentic,
        Self::Session,
        Self::Replayed,
        Self::Late,
        Self::Limited,
        Self::Full,
    ];

    /// As metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::OtherKey => "other_key",
            Self::Unauthentic => "unauthentic",
            Self::Session => "session",
            Self::Replayed => "replayed",
            Self::Late => "late",
            Self::Limited => "limited",
            Self::Full => "full",
        }
    }
}

/// What became of a flow that a peer told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlowFate {
    /// The table has it now as the peer has.
    Taken,
    /// There is no such service here.
    UnknownService,
    /// It has another mode, table size or algorithm here, or its flows are not tracked.
    OtherService,
    /// There is no such backend here.
    UnknownBackend,
    /// The flow table here has more entries than the sender's, whose word so does not say where it belongs.
    OtherTable,
    /// The flow was seen here later, with another backend.
    Outdated,
    /// The flow table is full.
    NoRoom,
}

impl FlowFate {
    /// Those that are refusals.
    pub const REFUSED: [Self; 6] = [
        Self::UnknownService,
        Self::OtherService,
        Self::UnknownBackend,
        Self::OtherTable,
        Self::Outdated,
        Self::NoRoom,
    ];

    /// As metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::UnknownService => "unknown_service",
            Self::OtherService => "other_service",
            Self::UnknownBackend => "unknown_backend",
            Self::OtherTable => "other_table",
            Self::Outdated => "outdated",
            Self::NoRoom => "no_room",
        }
    }
}
