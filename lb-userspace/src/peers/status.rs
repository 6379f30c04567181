//! How replication is going.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{
    Endpoint, FlowFate, LinkCounts, Refusal,
    exchange::Figures,
    link::{DEAD_AFTER, Link},
};

/// Of all peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeersStatus {
    pub is_joining: bool,
    /// In the order of the configuration.
    pub peers: Vec<PeerStatus>,
    /// What became of flows that peers told.
    pub fates: BTreeMap<FlowFate, u64>,
    /// Datagrams that were not read.
    pub refused: BTreeMap<Refusal, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    pub address: SocketAddr,
    pub is_up: bool,
    /// Since its last sign of life; `None` where there was none.
    pub silent: Option<Duration>,
    /// Whether its hash key is ours; `None` while nobody says.
    pub has_our_key: Option<bool>,
    /// Whether it maps every client alike; `None` while it is not there.
    pub has_our_tables: Option<bool>,
    /// Datagrams' contents that it has not taken yet.
    pub pending: usize,
    pub counts: LinkCounts,
}

pub(super) fn of(endpoint: &Endpoint, figures: Figures, now: Duration) -> PeersStatus {
    PeersStatus {
        is_joining: figures.is_joining,
        peers: endpoint.links().iter().map(|link| of_link(link, endpoint.tables(), now)).collect(),
        fates: figures.fates,
        refused: endpoint.refused().clone(),
    }
}

fn of_link(link: &Link, tables: u64, now: Duration) -> PeerStatus {
    // Of another key nobody has proof; but a peer that is heard has ours.
    let claims = link.claims_other_key.is_some_and(|last| now.saturating_sub(last) <= DEAD_AFTER);
    PeerStatus {
        address: link.address,
        is_up: link.is_up,
        silent: link.heard.map(|heard| now.saturating_sub(heard)),
        has_our_key: link.is_up.then_some(true).or(claims.then_some(false)),
        has_our_tables: link.tables.filter(|_| link.is_up).map(|theirs| theirs == tables),
        pending: link.pending(),
        counts: link.counts.clone(),
    }
}
