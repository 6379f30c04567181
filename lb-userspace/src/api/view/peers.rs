//! Flow replication, as `/v1` says it.

use std::collections::BTreeMap;

use crate::{
    api::v1,
    control::{self, Snapshot},
    domain::Tracking,
    peers::{Exchange, FlowFate, PeerStatus, Refusal, wire::Kind},
};

pub(in crate::api) fn peers(exchange: &Exchange, snapshot: &Snapshot) -> v1::Peers {
    let status = exchange.status(control::now().boot);
    let fates = FlowFate::REFUSED
        .map(|fate| (fate.as_str().to_owned(), status.fates.get(&fate).copied().unwrap_or_default()));
    let refused = Refusal::ALL.map(|refusal| {
        (refusal.as_str().to_owned(), status.refused.get(&refusal).copied().unwrap_or_default())
    });
    let services = snapshot.services.iter().map(|view| &view.service);
    let others =
        services.filter(|service| service.forwarding.translates() || service.tracking() == Tracking::Never);
    v1::Peers {
        joining: status.is_joining,
        peers: status.peers.iter().map(peer).collect(),
        flows_taken: status.fates.get(&FlowFate::Taken).copied().unwrap_or_default(),
        flows_refused: fates.into(),
        datagrams_refused: refused.into(),
        not_replicated: others.map(|service| service.name.to_string()).collect(),
    }
}

fn peer(peer: &PeerStatus) -> v1::Peer {
    let counts = &peer.counts;
    let by_kind = |counts: &BTreeMap<Kind, u64>| {
        let of = |kind: Kind| (kind.as_str().to_owned(), counts.get(&kind).copied().unwrap_or_default());
        Kind::ALL.map(of).into()
    };
    v1::Peer {
        address: peer.address.to_string(),
        up: peer.is_up,
        silent_seconds: peer.silent.map(|silent| silent.as_secs_f64()),
        hash_key_equal: peer.has_our_key,
        tables_equal: peer.has_our_tables,
        pending: peer.pending,
        flows_sent: counts.flows_sent,
        flows_received: counts.flows_received,
        datagrams_sent: by_kind(&counts.sent),
        datagrams_received: by_kind(&counts.received),
        datagrams_repeated: counts.repeated,
        bytes_sent: counts.sent_bytes,
        bytes_received: counts.received_bytes,
    }
}
