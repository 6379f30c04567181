//! What the network is told, and what this load balancer is to others: announced VIPs, those that are held, the fleet.
//!
//! Members are counted and not named, and of reasons only the word is told: `ballast announce status` and `ballast fleet status` say more.

use std::net::IpAddr;

use serde::Serialize;

use crate::{
    announce::{Reason, Report, VipReport, split_brain},
    fleet::Views,
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
}

impl Announce {
    pub(super) fn new(report: &Report) -> Self {
        let vip = |(vip, is): (&IpAddr, &VipReport)| Announced {
            vip: *vip,
            announced: is.announced,
            reason: is.reason.map(Reason::as_str),
            is_alright: matches!(is.reason, None | Some(Reason::Administrator | Reason::Starting)),
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
    pub(super) fn new(views: &Views) -> Self {
        let view = views.now();
        Self {
            connected: view.is_connected(),
            silent_seconds: view.silence().as_secs(),
            members: view.members.len(),
            marked: view.marks().values().filter(|marks| !marks.is_empty()).count(),
            refuses: view.trouble.is_some(),
        }
    }
}
