//! Metrics of flow replication. A label is a peer's address of the configuration, never a client's.

use super::text::Page;
use crate::peers::{FlowFate, PeerStatus, PeersStatus, Refusal, wire::Kind};

pub(super) fn render(page: &mut Page, status: &PeersStatus) {
    let all: Vec<_> = status.peers.iter().map(|peer| (peer.address.to_string(), peer)).collect();
    page.gauge(
        "ballast_peers_joining",
        "Whether the load balancer is new and has not heard yet which flows there are.",
    )
    .sample(&[], u8::from(status.is_joining));
    let mut gauge = |name, help, value: &dyn Fn(&PeerStatus) -> Option<f64>| {
        let mut family = page.gauge(name, help);
        for (address, peer) in &all {
            if let Some(value) = value(peer) {
                family.sample(&[("peer", address)], value);
            }
        }
    };
    let one = |is: bool| f64::from(u8::from(is));
    gauge("ballast_peers_up", "Whether the peer and this load balancer hear each other.", &|peer| {
        Some(one(peer.is_up))
    });
    gauge("ballast_peers_silent_seconds", "Time since the peer's last sign of life.", &|peer| {
        peer.silent.map(|silent| silent.as_secs_f64())
    });
    gauge(
        "ballast_peers_hash_key_equal",
        "Whether the peer has the same hash key; absent while it says nothing.",
        &|peer| peer.has_our_key.map(one),
    );
    gauge(
        "ballast_peers_tables_equal",
        "Whether the peer maps every client alike; absent while it is not there.",
        &|peer| peer.has_our_tables.map(one),
    );
    gauge("ballast_peers_pending", "Messages that the peer has not taken yet.", &|peer| {
        Some(peer.pending as f64)
    });
    let mut counter = |name, help, value: &dyn Fn(&PeerStatus, bool) -> u64| {
        let mut family = page.counter(name, help);
        for (address, peer) in &all {
            for (direction, is_sent) in DIRECTIONS {
                family.sample(&[("peer", address), ("direction", direction)], value(peer, is_sent));
            }
        }
    };
    counter("ballast_peers_flows_total", "Flows told to the peer, and by it.", &|peer, is_sent| {
        if is_sent { peer.counts.flows_sent } else { peer.counts.flows_received }
    });
    counter("ballast_peers_bytes_total", "Bytes of datagrams to the peer, and from it.", &|peer, is_sent| {
        if is_sent { peer.counts.sent_bytes } else { peer.counts.received_bytes }
    });
    let mut datagrams =
        page.counter("ballast_peers_datagrams_total", "Datagrams to the peer, and from it, by kind.");
    for (address, peer) in &all {
        for (direction, is_sent) in DIRECTIONS {
            let counts = if is_sent { &peer.counts.sent } else { &peer.counts.received };
            for kind in Kind::ALL {
                let labels = [("peer", address.as_str()), ("direction", direction), ("kind", kind.as_str())];
                datagrams.sample(&labels, counts.get(&kind).copied().unwrap_or_default());
            }
        }
    }
    let mut repeated = page.counter(
        "ballast_peers_datagrams_repeated_total",
        "Datagrams whose content was sent before and not acknowledged in time.",
    );
    for (address, peer) in &all {
        repeated.sample(&[("peer", address)], peer.counts.repeated);
    }
    let mut refused =
        page.counter("ballast_peers_datagrams_refused_total", "Datagrams that were not read, by reason.");
    for refusal in Refusal::ALL {
        let count = status.refused.get(&refusal).copied().unwrap_or_default();
        refused.sample(&[("reason", refusal.as_str())], count);
    }
    let mut refused = page.counter(
        "ballast_peers_flows_refused_total",
        "Flows that peers told and that were not taken in, by reason.",
    );
    for fate in FlowFate::REFUSED {
        refused.sample(&[("reason", fate.as_str())], status.fates.get(&fate).copied().unwrap_or_default());
    }
}

const DIRECTIONS: [(&str, bool); 2] = [("sent", true), ("received", false)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::LinkCounts;

    #[test]
    fn each_peer_and_each_reason_is_told() {
        let peer = PeerStatus {
            address: "192.0.2.2:9650".parse().expect("an address"),
            is_up: true,
            silent: None,
            has_our_key: Some(true),
            has_our_tables: Some(false),
            pending: 3,
            counts: LinkCounts { flows_sent: 7, sent: [(Kind::Flows, 2)].into(), ..LinkCounts::default() },
        };
        let status = PeersStatus {
            is_joining: true,
            peers: vec![peer],
            fates: [(FlowFate::NoRoom, 5)].into(),
            refused: [(Refusal::Replayed, 9)].into(),
        };
        let mut page = Page::default();
        render(&mut page, &status);
        let text = page.into_string();
        for expected in [
            "ballast_peers_joining 1",
            "ballast_peers_up{peer=\"192.0.2.2:9650\"} 1",
            "ballast_peers_hash_key_equal{peer=\"192.0.2.2:9650\"} 1",
            "ballast_peers_tables_equal{peer=\"192.0.2.2:9650\"} 0",
            "ballast_peers_pending{peer=\"192.0.2.2:9650\"} 3",
            "ballast_peers_flows_total{peer=\"192.0.2.2:9650\",direction=\"sent\"} 7",
            "ballast_peers_flows_total{peer=\"192.0.2.2:9650\",direction=\"received\"} 0",
            "ballast_peers_datagrams_total{peer=\"192.0.2.2:9650\",direction=\"sent\",kind=\"flows\"} 2",
            "ballast_peers_datagrams_refused_total{reason=\"replayed\"} 9",
            "ballast_peers_datagrams_refused_total{reason=\"late\"} 0",
            "ballast_peers_flows_refused_total{reason=\"no_room\"} 5",
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected} is not in\n{text}");
        }
        assert!(!text.contains("silent_seconds{"), "it was never heard");
    }
}
