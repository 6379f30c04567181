//! Flow replication.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `peers` of `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// The load balancer is new and has not heard yet which flows there are: traffic had better wait.
    pub joining: bool,
    /// In the order of the configuration.
    pub peers: Vec<Peer>,
    /// Flows that peers told and that are in the table now as they have them, or were.
    pub flows_taken: u64,
    /// Flows that peers told and that were not taken in, by reason: `unknown_service`, `other_service`, `unknown_backend`,
    /// `other_table`, `outdated`, `no_room`.
    pub flows_refused: BTreeMap<String, u64>,
    /// Datagrams that were not read, by reason: `stranger`, `malformed`, `version`, `other_key`, `unauthentic`, `session`,
    /// `replayed`, `late`, `limited`, `full`.
    pub datagrams_refused: BTreeMap<String, u64>,
    /// Services whose flows are not replicated: those of `dnat` and `nat`, and those that are not tracked.
    pub not_replicated: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub address: String,
    /// Each hears the other.
    pub up: bool,
    /// Since its last sign of life; `null` where there was none since the daemon started.
    pub silent_seconds: Option<f64>,
    /// Whether it has the same hash key; `null` while it says nothing.
    pub hash_key_equal: Option<bool>,
    /// Whether it maps every client alike; `null` while it is not there. Differing is usual while something changes.
    pub tables_equal: Option<bool>,
    /// Messages that it has not taken yet.
    pub pending: usize,
    pub flows_sent: u64,
    pub flows_received: u64,
    /// Datagrams by kind: `hello`, `ack`, `slots`, `flows`, `complete`.
    pub datagrams_sent: BTreeMap<String, u64>,
    pub datagrams_received: BTreeMap<String, u64>,
    /// Those whose content was sent before and not acknowledged in time.
    pub datagrams_repeated: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}
