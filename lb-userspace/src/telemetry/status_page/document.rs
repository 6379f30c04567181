//! What the status page draws, as JSON. It is made for the page that comes from the same daemon, and changes with it;
//! `/v1/status` is what scripts read.
//!
//! Whoever reaches the listener may read it. So what only the control socket's users are told is not in it: why a
//! configuration is refused (the message shows its line), what programs of `exec` checks say, and settings.

use std::{fmt::Display, net::SocketAddr};

use lb_common::abi::{DropReason, TrafficCounters};
use serde::{Serialize, Serializer};

use super::network::{Announce, Fleet, Held, Peers};
use crate::{
    boards::Boards,
    control::{self, BackendView, ServiceView, Snapshot},
    dataplane::{CounterReader, Error, reconcile::LeavingBackend},
    discovery::DiscoveryStats,
    domain::{Admin, Filling, Probe, Service as Declared, Vip},
    sysctl,
    telemetry::{
        drops,
        traffic::{Counted, count},
    },
};

/// Fields that are usual are left out: the page knows what their absence means.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    /// Which page can read this.
    pub(super) page: &'a str,
    pub(super) version: &'static str,
    pub(super) host: String,
    /// Seconds on a clock that goes on while the machine sleeps: what rates are taken over.
    pub(super) at: f64,
    pub(super) revision: u64,
    pub(super) ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_ready: Option<String>,
    pub(super) config_current: bool,
    /// Whether all that was made over the control socket was there when the daemon started.
    pub(super) state_complete: bool,
    pub(super) heartbeat_seconds: f64,
    /// Whether failed health checks don't count, because this host has no link.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) checks_held: bool,
    pub(super) interfaces: Vec<Interface<'a>>,
    pub(super) packets: Packets,
    pub(super) drops: Vec<Dropped>,
    pub(super) flow_table: Table,
    pub(super) nat_table: Table,
    pub(super) tracked_slots: u64,
    pub(super) flows_refused: u64,
    /// What the network is told of VIPs; absent where nobody asked for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) announce: Option<Announce>,
    /// VIPs that are addresses of this host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) held: Vec<Held>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fleet: Option<Fleet>,
    /// Absent where flows are not replicated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peers: Option<Peers>,
    pub(super) services: Vec<Service<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Interface<'a> {
    pub(super) name: &'a str,
    pub(super) mode: &'static str,
    pub(super) attached: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Packets {
    pub(super) received: u64,
    pub(super) tx: u64,
    pub(super) redirect: u64,
    pub(super) pass: u64,
    pub(super) drop: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Dropped {
    pub(super) reason: &'static str,
    pub(super) count: u64,
    pub(super) meaning: &'static str,
    pub(super) advice: &'static str,
    /// Whether somebody should look at it.
    pub(super) alarming: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Table {
    pub(super) entries: u64,
    pub(super) capacity: u64,
    /// Whether it is so full that somebody should look.
    pub(super) fills: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Service<'a> {
    pub(super) name: &'a str,
    #[serde(serialize_with = "as_shown")]
    pub(super) address: Vip,
    pub(super) protocol: &'static str,
    pub(super) forwarding: &'static str,
    pub(super) algorithm: &'static str,
    pub(super) state: &'static str,
    #[serde(flatten)]
    pub(super) traffic: Traffic,
    pub(super) backends: Vec<Backend<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) leaving: Vec<Leaving<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sources: Vec<Source>,
}

#[derive(Debug, Serialize)]
pub(super) struct Backend<'a> {
    pub(super) name: &'a str,
    #[serde(serialize_with = "as_shown")]
    pub(super) address: SocketAddr,
    pub(super) weight: u16,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) backup: bool,
    #[serde(skip_serializing_if = "is_active")]
    pub(super) admin: &'static str,
    pub(super) health: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) detail: &'a str,
    pub(super) share: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) drain_seconds_left: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) drained: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) unreachable: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) overrides: &'a [&'static str],
    #[serde(flatten)]
    pub(super) traffic: Traffic,
}

/// As in `/v1`.
#[derive(Debug, Serialize)]
pub(super) struct Traffic {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) new_flows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reply_packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reply_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Leaving<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(serialize_with = "as_shown")]
    pub(super) address: SocketAddr,
    pub(super) flows: u64,
    pub(super) drain_seconds_left: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Source {
    pub(super) kind: &'static str,
    pub(super) place: String,
    pub(super) backends: usize,
    pub(super) age_seconds: u64,
    pub(super) failing: bool,
}

/// What is asked besides the snapshot.
#[derive(Clone, Copy)]
pub(super) struct Daemon<'a> {
    pub(super) page: &'a str,
    pub(super) heartbeat_seconds: f64,
    pub(super) discovery: &'a DiscoveryStats,
    pub(super) boards: &'a Boards,
}

impl<'a> Document<'a> {
    /// Reads every counter on the way.
    pub(super) fn new(
        snapshot: &'a Snapshot,
        counters: &dyn CounterReader,
        daemon: Daemon<'a>,
    ) -> Result<Self, Error> {
        let totals = counters.totals()?;
        let services = count(&snapshot.services, counters)?;
        // After the counters: a rate is rather too low than too high.
        let at = control::now().boot.as_secs_f64();
        let dropped = |reason: DropReason| Dropped {
            reason: reason.name(),
            count: totals.drops.get(reason as usize).copied().unwrap_or_default(),
            meaning: drops::meaning(reason),
            advice: drops::advice(reason),
            alarming: drops::concern(reason) >= drops::Concern::Trouble,
        };
        let interface = |view: &'a control::InterfaceView| Interface {
            name: &view.name,
            mode: view.mode,
            attached: view.attached,
        };
        Ok(Self {
            page: daemon.page,
            version: env!("CARGO_PKG_VERSION"),
            host: host(),
            at,
            revision: snapshot.revision,
            ready: snapshot.ready,
            not_ready: snapshot.why_not_ready(),
            config_current: snapshot.config_error.is_none(),
            state_complete: snapshot.state_error.is_none(),
            heartbeat_seconds: daemon.heartbeat_seconds,
            checks_held: daemon.boards.links.why_checks_are_held().is_some(),
            interfaces: snapshot.interfaces.iter().map(interface).collect(),
            packets: Packets {
                received: totals.received,
                tx: totals.transmitted,
                redirect: totals.redirected,
                pass: totals.passed,
                drop: totals.drops.iter().sum(),
            },
            drops: DropReason::ALL.into_iter().map(dropped).collect(),
            flow_table: table(Filling::Flows, snapshot.flow_table),
            nat_table: table(Filling::Nat, snapshot.nat_table),
            tracked_slots: snapshot.tracked_slots,
            flows_refused: totals.flows_refused,
            announce: daemon.boards.announce.report().map(|report| Announce::new(&report)),
            held: daemon.boards.held.all().into_iter().map(Held::new).collect(),
            fleet: daemon.boards.fleet.as_ref().map(|views| Fleet::new(&views.now())),
            peers: daemon.boards.peers.as_ref().map(|peers| Peers::new(&peers.status(control::now().boot))),
            services: services.into_iter().map(|counted| service(counted, daemon.discovery)).collect(),
        })
    }
}

fn table(of: Filling, table: control::FlowTable) -> Table {
    let control::FlowTable { entries, capacity } = table;
    Table { entries, capacity, fills: of.is_alarming(entries, capacity) }
}

fn service<'a>(counted: Counted<'a>, discovery: &DiscoveryStats) -> Service<'a> {
    let Counted { view, traffic: forwarded, backends } = counted;
    let declared = &*view.service;
    let pairs = view.backends.iter().zip(backends);
    Service {
        name: declared.name.as_str(),
        address: declared.vip,
        protocol: declared.protocol.as_str(),
        forwarding: declared.forwarding.as_str(),
        algorithm: declared.algorithm.as_str(),
        state: view.state.as_str(),
        traffic: traffic(declared, &forwarded),
        backends: pairs.filter_map(|(backend, forwarded)| self::backend(view, backend, &forwarded)).collect(),
        leaving: view.leaving.iter().map(leaving).collect(),
        sources: view.sources.iter().map(|of| source(view, of, discovery)).collect(),
    }
}

/// Every view has its backend in the service.
fn backend<'a>(
    view: &'a ServiceView,
    backend: &'a BackendView,
    forwarded: &TrafficCounters,
) -> Option<Backend<'a>> {
    let declared = view.service.backends.get(&backend.name)?;
    let draining = backend.drain_deadline != 0;
    Some(Backend {
        name: backend.name.as_str(),
        address: backend.address,
        weight: declared.weight,
        backup: declared.backup,
        admin: declared.admin.as_str(),
        health: backend.health.as_str(),
        detail: for_everybody(&view.service.health.probe, &backend.health_detail),
        share: (backend.share * SHARE_STEPS).round() / SHARE_STEPS,
        flows: backend.flows,
        drain_seconds_left: draining.then(|| control::seconds_left(backend.drain_deadline)),
        drained: backend.drained,
        unreachable: !backend.reachable,
        overrides: &backend.overrides,
        traffic: traffic(&view.service, forwarded),
    })
}

/// What programs and databases have to say is for their owner, who may use the control socket: they name users, databases
/// and addresses, and a program that can't be run is told of with its path. How it ended, in our own words, is for everybody.
fn for_everybody<'a>(probe: &Probe, detail: &'a str) -> &'a str {
    let begins = |words: &[&str]| words.iter().any(|word| detail.starts_with(word));
    let first = detail.split(':').next().unwrap_or_default();
    match probe {
        _ if detail.is_empty() || begins(&OWN_WORDS) => first,
        Probe::Exec(_) if begins(&["exit status ", "killed by signal ", "no exit status"]) => first,
        Probe::Exec(_) => "could not be run",
        Probe::Database(_) if begins(&["primary", "replica", "role is "]) => detail,
        // MySQL's number.
        Probe::Database(_) if begins(&["error "]) => first,
        Probe::Database(_) => "the server refused",
        _ => detail,
    }
}

fn traffic(service: &Declared, counters: &TrafficCounters) -> Traffic {
    let translates = service.forwarding.translates();
    Traffic {
        packets: counters.packets,
        bytes: counters.bytes,
        new_flows: service.counts_new_flows().then_some(counters.new_flows),
        reply_packets: translates.then_some(counters.reply_packets),
        reply_bytes: translates.then_some(counters.reply_bytes),
    }
}

fn leaving(backend: &LeavingBackend) -> Leaving<'_> {
    Leaving {
        name: backend.name.as_ref().map(|name| name.as_str()),
        address: backend.address,
        flows: backend.flows,
        drain_seconds_left: control::seconds_left(backend.drain_deadline),
    }
}

fn source(view: &ServiceView, of: &control::SourceView, discovery: &DiscoveryStats) -> Source {
    let status = discovery.of(&view.service.name, &of.source);
    Source {
        kind: of.source.kind(),
        place: of.source.place(),
        backends: of.backends.len(),
        age_seconds: status.as_ref().map_or(0, |status| status.age().as_secs()),
        failing: status.as_ref().is_some_and(|status| status.alarm().is_some()),
    }
}

/// The machine's name, so that one of many pages can be told from the others.
fn host() -> String {
    // Without it the page is as good.
    sysctl::text("kernel/hostname").unwrap_or_default()
}

fn as_shown<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_active(admin: &str) -> bool {
    admin == Admin::Active.as_str()
}

/// A hundred-thousandth is less than a slot of most tables, and shorter than all of a float's digits.
const SHARE_STEPS: f64 = 1e5;

/// What details of any check begin with that nobody else has written.
const OWN_WORDS: [&str; 11] = [
    "as before",
    "can't be checked",
    "closed without an answer",
    "connected",
    "connection refused",
    "connection reset",
    "connection timed out",
    "network unreachable",
    "no route to host",
    "not checked",
    "timed out",
];
