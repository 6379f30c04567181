//! What `/v1` says, field by field. Names are stable: scripts and dashboards read them.

mod announce;
mod capture;
mod explain;
mod fleet;
mod peers;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use announce::{Announce, AnnouncedVip, Announcing, HeldVip};
pub use capture::{Capture, CapturedPacket, MissedPackets, RunningCapture};
pub use explain::{Explained, HeaderPair, Question};
pub use fleet::{Fleet, FleetMember, FleetWithdrawals, RefusedDocument};
pub use peers::{Peer, Peers};

/// `GET /v1/status`: everything at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Number of the control state; grows by one with each applied change.
    pub revision: u64,
    /// Interfaces attached and the last change published; never backend health.
    pub ready: bool,
    /// What is missing, in words; `null` where nothing is.
    #[serde(default)]
    pub not_ready: Option<String>,
    pub interfaces: Vec<Interface>,
    /// Only frames for these MAC addresses are looked at, others are the host's; `null`: for any.
    pub own_macs: Option<Vec<String>>,
    /// Tells the hash key from others, in hexadecimal digits: to be the same on every load balancer of a fleet. `null` from a
    /// daemon that does not say.
    #[serde(default)]
    pub hash_key_fingerprint: Option<String>,
    pub services: Vec<Service>,
    /// Packets dropped, by reason; every reason is present.
    pub drops: BTreeMap<String, u64>,
    pub verdicts: Verdicts,
    /// Packets received, counted apart: equal to the sum of the verdicts once traffic stops.
    pub packets: u64,
    /// Why the configuration file is not what runs; `null` if it is.
    pub config_error: Option<String>,
    /// Why what the API made and changed was not all there when the daemon started; `null` if it was.
    pub state_error: Option<String>,
    /// Why failed health checks don't count at the moment, in words: this host has no link. `null` while they do.
    #[serde(default)]
    pub checks_held: Option<String>,
    /// For packets of which services replies through NAT may be taken, in words, because the host's addresses or routes have
    /// changed.
    #[serde(default)]
    pub nat_clashes: Vec<String>,
    pub flow_table: FlowTable,
    /// Flows through `dnat` and `nat`.
    pub nat_table: FlowTable,
    /// ICMP messages by what was done: `echo_reply`, `too_big`, `time_exceeded`, `port_unreachable`, `relayed`, `limited`.
    pub icmp: BTreeMap<String, u64>,
    /// RSTs made for segments of services that reject them.
    pub resets: u64,
    /// Slots in which flows are tracked because of a change.
    pub tracked_slots: u64,
    /// The fleet that this load balancer is a member of; `null` where it is in none.
    #[serde(default)]
    pub fleet: Option<Fleet>,
    /// The capture that is running; `null` if none is.
    #[serde(default)]
    pub capture: Option<RunningCapture>,
    /// What the network is told of VIPs; `null` where this host makes no routes.
    #[serde(default)]
    pub announce: Option<Announce>,
    /// VIPs that are addresses of this host.
    #[serde(default)]
    pub held_vips: Vec<HeldVip>,
    /// With whom flows are replicated, and how that goes; `null` without `[peers]`.
    #[serde(default)]
    pub peers: Option<Peers>,
}

/// The flow table, or NAT's, as the last whole scan found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTable {
    pub entries: u64,
    pub capacity: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
    pub attached: bool,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    pub tx: u64,
    pub redirect: u64,
    pub pass: u64,
    /// Sum over all reasons.
    pub drop: u64,
}

/// `GET /v1/services` is an array of these, `GET /v1/services/NAME` is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    /// `203.0.113.10:80`, `[2001:db8::10]:443`; port `*` is every port.
    pub address: String,
    pub protocol: String,
    pub forwarding: String,
    pub algorithm: String,
    /// `healthy`, `degraded`, `panic` or `failing`.
    pub state: String,
    /// Client to backend.
    pub packets: u64,
    /// Of received frames, without FCS.
    pub bytes: u64,
    /// SYNs forwarded, retransmitted ones included, or first packets of udp flows; `null` for udp with
    /// tracking = "never", where nobody knows which packet is the first.
    pub new_flows: Option<u64>,
    /// Backend to client; `null` where replies do not pass the load balancer.
    pub reply_packets: Option<u64>,
    pub reply_bytes: Option<u64>,
    /// Hash of the lookup table in hexadecimal digits: equal on two hosts that map every client alike.
    pub fingerprint: String,
    /// All settings beyond those above, with their defaults filled in, as the configuration file writes them.
    pub settings: ServiceSettings,
    pub origin: Origin,
    /// Settings changed over what `origin` declares.
    pub overrides: Vec<String>,
    pub backends: Vec<Backend>,
    /// Backends that are gone from the service and keep their existing flows for a while.
    pub leaving: Vec<Leaving>,
    /// What else backends are looked up in, in the order in which it counts.
    #[serde(default)]
    pub discovery: Vec<Discovery>,
}

/// A watched file of backends, or a name in the DNS whose addresses are backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// `file` or `dns`.
    pub kind: String,
    /// The path, or the name and the port: `web.example.org:80`.
    pub source: String,
    /// Found by the last good answer.
    pub backends: usize,
    /// Whether there was a good answer since the daemon started; if not, what an earlier one found counts.
    pub answered: bool,
    /// Since the last good answer, or since it was first asked for.
    pub age_seconds: u64,
    /// Questions without a good answer since the daemon started.
    pub failures: u64,
    /// What is wrong with the latest answer; `null` if nothing is.
    pub trouble: Option<String>,
    /// Found, and can't be a backend.
    pub left_out: Vec<LeftOut>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub name: String,
    pub address: String,
    pub why: String,
}

/// A backend that is gone from its service, or has another address by now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// `null` where it is not known any more.
    pub name: Option<String>,
    pub address: String,
    /// Live tracked flows.
    pub flows: u64,
    /// Until its last flows end at the latest.
    pub drain_seconds_left: u64,
}

/// `GET /v1/services/NAME/backends` is an array of these, `GET /v1/services/NAME/backends/NAME` is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    pub name: String,
    pub address: String,
    pub weight: u16,
    /// Whether it gets traffic only while there are too few others.
    pub backup: bool,
    /// What the administrator wants: `active`, `draining` or `disabled`.
    pub admin: String,
    /// What probes observed: `healthy`, `unhealthy`, `unknown` or `ineligible`.
    pub health: String,
    /// Outcome of the latest check in words.
    pub health_detail: String,
    /// Part of the lookup table, 0 to 1.
    pub share: f64,
    /// Live tracked flows; `null` where not all of its flows are tracked.
    pub flows: Option<u64>,
    /// Whether packets of existing flows are sent to it.
    pub accepts_existing: bool,
    /// Until its drain ends at the latest; `null` where it doesn't drain.
    pub drain_seconds_left: Option<u64>,
    /// No flow is left, and none can come.
    pub drained: bool,
    pub packets: u64,
    pub bytes: u64,
    /// As in a service.
    pub new_flows: Option<u64>,
    /// As in a service.
    pub reply_packets: Option<u64>,
    pub reply_bytes: Option<u64>,
    /// Whether the kernel knows a MAC address on the way to it.
    pub reachable: bool,
    pub origin: Origin,
    /// Settings changed over what it was declared or made with: `weight`, `admin`.
    pub overrides: Vec<String>,
}

/// Where an object comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Origin {
    File {
        file: String,
        line: u32,
    },
    /// Made over the API.
    Cli,
    /// Agreed on by the fleet.
    Fleet,
    /// Found in a watched file of backends.
    Watched {
        file: String,
        line: u32,
    },
    /// Found in the DNS.
    Dns {
        /// With the port: `web.example.org:80`.
        name: String,
    },
}

pub use crate::config::{
    BackendShape as NewBackend, HealthShape as HealthSettings, ServiceShape as ServiceSettings,
};

/// `PATCH /v1/services/NAME/backends/NAME`: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackendSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// `active`, `draining` or `disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// Takes back what was set over the backend.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
}

/// Answer to everything that changes an object: what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The revision that is live now.
    pub revision: u64,
    /// Empty where there was nothing to change.
    pub changes: Vec<Change>,
    pub warnings: Vec<String>,
}

/// `POST /v1/reload?dry_run=true|false&disruptive=true|false`, `POST /v1/plan`: what it did, or would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reload {
    pub dry_run: bool,
    /// The revision that is live now.
    pub revision: u64,
    pub changes: Vec<Change>,
    pub warnings: Vec<String>,
    /// Of a dry run and a plan: the services whose clients would notice, once new backends have passed their first check.
    #[serde(default)]
    pub services: Vec<Impact>,
}

/// `POST /v1/plan`: files instead of those that the daemon reads. Without a body it is those.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The main file first, then those of `conf.d`.
    pub files: Vec<File>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What messages call it; nothing is read from there.
    pub path: String,
    pub text: String,
}

/// What a change would mean for the clients of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Impact {
    pub service: String,
    /// Slots of its lookup table.
    pub slots: u32,
    /// Slots whose backend would be another, or none.
    pub moved_slots: u32,
    /// The same as a part of the table, 0 to 1: the part of the clients whose new flows would go elsewhere.
    pub moved: f64,
    /// Live tracked flows that would end; `null` where not all flows are tracked, so that nobody knows.
    pub flows_ending: Option<u64>,
    /// Live tracked flows whose backend would begin to drain or to leave; `null` likewise.
    pub flows_draining: Option<u64>,
}

/// One difference between two states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `add`, `change` or `remove`.
    pub action: String,
    /// `service web` or `backend web/web-1`.
    pub object: String,
    /// What differs; empty where the object is new or gone.
    pub detail: String,
}

/// Body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// A word for programs, such as `not_found`.
    pub kind: String,
    /// A sentence for people.
    pub message: String,
    /// The part of the request, or the limit, that is at fault; `null` where none is.
    pub field: Option<String>,
}
