//! What the network is told, and what this load balancer is to others: announced VIPs, those that are held, the fleet, peers.
//!
//! Members are counted and not named, and of reasons only the word is told: `ballast announce status` and `ballast fleet status` say more.
//! Peers have their addresses, as in `/metrics`.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::{
    announce::{Reason, Report, VipReport, split_brain},
    console::peers,
    fleet::View,
    peers::{PeerStatus, PeersStatus},
};

#[derive(Debug, Serialize)]
pub(super) struct Announce {
    pub(super) vips: Vec<Announced>,
    /// Whether the kernel's routes can't be read or changed.
    pub(super) trouble: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Announced {
    pub(super) vip: IpAddr,
    pub(super) announced: bool,
    /// Why it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    /// Whether that is what somebody wanted, or will pass.
    pub(super) is_alright: bool,
    /// Whether a service asks for more healthy backends than there are, and the VIP stays all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) kept: bool,
}

/// A VIP that is an address of this host.
#[derive(Debug, Serialize)]
pub(super) struct Held {
    pub(super) vip: IpAddr,
    /// Whether another host says that it has it, too.
    pub(super) rival: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Fleet {
    /// Whether etcd can be asked.
    pub(super) connected: bool,
    /// Since etcd answered last.
    pub(super) silent_seconds: u64,
    pub(super) members: usize,
    /// Members of which something is to be said.
    pub(super) marked: usize,
    /// Whether what etcd has is not live here.
    pub(super) refuses: bool,
    /// Whether the others don't hear of this member, though etcd answers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) unheard: bool,
}

/// With whom flows are replicated.
#[derive(Debug, Serialize)]
pub(super) struct Peers {
    /// Whether they have not told yet which flows there are.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) joining: bool,
    pub(super) peers: Vec<Peer>,
}

#[derive(Debug, Serialize)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) up: bool,
    /// In words.
    pub(super) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hash_key_equal: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tables_equal: Option<bool>,
    pub(super) flows_sent: u64,
    pub(super) flows_received: u64,
    /// Messages that it has not taken yet.
    pub(super) pending: usize,
}

impl Announce {
    pub(super) fn new(report: &Report) -> Self {
        let vip = |(vip, is): (&IpAddr, &VipReport)| Announced {
            vip: *vip,
            announced: is.announced,
            reason: is.reason.map(Reason::as_str),
            is_alright: matches!(is.reason, None | Some(Reason::Administrator | Reason::Starting)),
            kept: is.kept.is_some(),
        };
        Self { vips: report.vips.iter().map(vip).collect(), trouble: report.trouble.is_some() }
    }
}

impl Held {
    pub(super) fn new((vip, held): (IpAddr, split_brain::Held)) -> Self {
        Self { vip, rival: held.rival.is_some() }
    }
}

impl Fleet {
    pub(super) fn new(view: &View) -> Self {
        Self {
            connected: view.is_connected(),
            silent_seconds: view.silence().as_secs(),
            members: view.members.len(),
            marked: view.marks().values().filter(|marks| !marks.is_empty()).count(),
            refuses: view.trouble.is_some(),
            unheard: view.unheard.is_some(),
        }
    }
}

impl Peers {
    pub(super) fn new(status: &PeersStatus) -> Self {
        let peer = |peer: &PeerStatus| Peer {
            address: peer.address,
            up: peer.is_up,
            state: peers::state(peer.is_up, peer.silent),
            hash_key_equal: peer.has_our_key,
            tables_equal: peer.has_our_tables,
            flows_sent: peer.counts.flows_sent,
            flows_received: peer.counts.flows_received,
            pending: peer.pending,
        };
        Self { joining: status.is_joining, peers: status.peers.iter().map(peer).collect() }
    }
}
