//! Snapshot and counters to what `/v1` says.

mod announce;
pub(super) mod fleet;
mod peers;

use lb_common::abi::{DropReason, TrafficCounters};

pub(super) use announce::{announce, held_vips};

use super::v1;
use crate::{
    boards::Boards,
    capture::Running,
    control::{self, Applied, BackendView, InterfaceView, ServiceView, Snapshot, SourceView},
    dataplane::{
        CounterReader, Error,
        reconcile::{Impact, LeavingBackend},
    },
    digits::mac,
    discovery::DiscoveryStats,
    domain::{self, Name, Service},
    telemetry::{
        icmp,
        traffic::{Counted, count, count_one},
    },
};

pub(super) fn status(
    snapshot: &Snapshot,
    counters: &dyn CounterReader,
    lookups: &DiscoveryStats,
    boards: &Boards,
) -> Result<v1::Status, Error> {
    let totals = counters.totals()?;
    let dropped = |reason: DropReason| totals.drops.get(reason as usize).copied().unwrap_or_default();
    Ok(v1::Status {
        revision: snapshot.revision,
        ready: snapshot.ready,
        not_ready: snapshot.why_not_ready(),
        interfaces: snapshot.interfaces.iter().map(interface).collect(),
        own_macs: snapshot.own_macs.as_ref().map(|macs| macs.iter().copied().map(mac).collect()),
        hash_key_fingerprint: snapshot.hash_key.as_ref().map(ToString::to_string),
        services: services(snapshot, counters, lookups)?,
        drops: DropReason::ALL
            .into_iter()
            .map(|reason| (reason.name().to_owned(), dropped(reason)))
            .collect(),
        verdicts: v1::Verdicts {
            tx: totals.transmitted,
            redirect: totals.redirected,
            pass: totals.passed,
            // All of them, named or not: the sum of the verdicts must be what was received.
            drop: totals.drops.iter().sum(),
        },
        packets: totals.received,
        config_error: snapshot.config_error.clone(),
        state_error: snapshot.state_error.clone(),
        checks_held: boards.links.why_checks_are_held(),
        nat_clashes: snapshot.nat_clashes.values().cloned().collect(),
        flow_table: v1::FlowTable {
            entries: snapshot.flow_table.entries,
            capacity: snapshot.flow_table.capacity,
        },
        nat_table: v1::FlowTable {
            entries: snapshot.nat_table.entries,
            capacity: snapshot.nat_table.capacity,
        },
        icmp: icmp::by_kind(&totals).map(|(kind, count)| (kind.to_owned(), count)).into(),
        resets: totals.resets_sent,
        tracked_slots: snapshot.tracked_slots,
        capture: boards.captures.running().map(running_capture),
        announce: announce(snapshot, counters, &boards.announce)?,
        held_vips: held_vips(&boards.held),
        fleet: boards.fleet.as_ref().map(fleet::fleet),
        peers: boards.peers.as_deref().map(|exchange| peers::peers(exchange, snapshot)),
    })
}

fn running_capture(running: Running) -> v1::RunningCapture {
    v1::RunningCapture {
        user: running.client.uid,
        process: running.client.process,
        seconds: running.age().as_secs(),
        packets: running.counts.captured,
        missed: running.counts.missed,
        filter: running.filter,
    }
}

pub(super) fn services(
    snapshot: &Snapshot,
    counters: &dyn CounterReader,
    lookups: &DiscoveryStats,
) -> Result<Vec<v1::Service>, Error> {
    let counted = count(&snapshot.services, counters)?;
    Ok(counted.iter().map(|counted| counted_service(counted, lookups)).collect())
}

pub(super) fn service(
    view: &ServiceView,
    counters: &dyn CounterReader,
    lookups: &DiscoveryStats,
) -> Result<v1::Service, Error> {
    Ok(counted_service(&count_one(view, counters)?, lookups))
}

fn counted_service(counted: &Counted<'_>, lookups: &DiscoveryStats) -> v1::Service {
    let Counted { view, traffic, .. } = counted;
    let service = &*view.service;
    v1::Service {
        name: service.name.to_string(),
        address: service.vip.to_string(),
        protocol: service.protocol.as_str().to_owned(),
        forwarding: service.forwarding.as_str().to_owned(),
        algorithm: service.algorithm.as_str().to_owned(),
        state: view.state.as_str().to_owned(),
        packets: traffic.packets,
        bytes: traffic.bytes,
        new_flows: new_flows(service, traffic),
        reply_packets: replies(service, traffic.reply_packets),
        reply_bytes: replies(service, traffic.reply_bytes),
        fingerprint: format!("{:016x}", view.fingerprint),
        settings: v1::ServiceSettings {
            name: None,
            address: None,
            protocol: None,
            forwarding: None,
            algorithm: None,
            backend: Vec::new(),
            ..v1::ServiceSettings::from(service).without_secrets()
        },
        origin: origin(&service.origin),
        overrides: Vec::new(),
        backends: counted_backends(counted),
        leaving: view.leaving.iter().map(leaving).collect(),
        discovery: view.sources.iter().map(|source| discovery(view, source, lookups)).collect(),
    }
}

pub(super) fn backends(view: &ServiceView, counters: &dyn CounterReader) -> Result<Vec<v1::Backend>, Error> {
    Ok(counted_backends(&count_one(view, counters)?))
}

fn counted_backends(counted: &Counted<'_>) -> Vec<v1::Backend> {
    let service = &*counted.view.service;
    let pairs = counted.view.backends.iter().zip(&counted.backends);
    let declared = |backend: &BackendView| service.backends.get(&backend.name);
    let all = pairs.filter_map(|(observed, traffic)| Some((declared(observed)?, observed, traffic)));
    all.map(|(declared, observed, traffic)| counted_backend(service, declared, observed, traffic)).collect()
}

pub(super) fn backend(
    service: &Service,
    declared: &domain::Backend,
    observed: &BackendView,
    counters: &dyn CounterReader,
) -> Result<v1::Backend, Error> {
    Ok(counted_backend(service, declared, observed, &counters.backend(observed.index)?))
}

fn counted_backend(
    service: &Service,
    declared: &domain::Backend,
    observed: &BackendView,
    traffic: &TrafficCounters,
) -> v1::Backend {
    v1::Backend {
        name: declared.name.to_string(),
        address: observed.address.to_string(),
        weight: declared.weight,
        backup: declared.backup,
        admin: declared.admin.as_str().to_owned(),
        health: observed.health.as_str().to_owned(),
        health_detail: observed.health_detail.clone(),
        share: observed.share,
        flows: observed.flows,
        accepts_existing: observed.accepts_existing,
        drain_seconds_left: (observed.drain_deadline != 0)
            .then(|| control::seconds_left(observed.drain_deadline)),
        drained: observed.drained,
        packets: traffic.packets,
        bytes: traffic.bytes,
        new_flows: new_flows(service, traffic),
        reply_packets: replies(service, traffic.reply_packets),
        reply_bytes: replies(service, traffic.reply_bytes),
        reachable: observed.reachable,
        origin: origin(&declared.origin),
        overrides: observed.overrides.iter().map(|name| (*name).to_owned()).collect(),
    }
}

pub(super) fn reload(applied: Applied, dry_run: bool) -> v1::Reload {
    let services = applied.impacts.iter().map(|(service, impact)| self::impact(service, impact)).collect();
    let v1::Changed { revision, changes, warnings } = changed(applied);
    v1::Reload { dry_run, revision, changes, warnings, services }
}

fn impact(service: &Name, impact: &Impact) -> v1::Impact {
    v1::Impact {
        service: service.to_string(),
        slots: impact.slots,
        moved_slots: impact.moved,
        moved: f64::from(impact.moved) / f64::from(impact.slots.max(1)),
        flows_ending: impact.flows_ending,
        flows_draining: impact.flows_draining,
    }
}

pub(super) fn changed(applied: Applied) -> v1::Changed {
    let changes = applied.changes.into_iter().map(|change| v1::Change {
        action: change.action.to_owned(),
        object: change.object,
        detail: change.detail,
    });
    v1::Changed { revision: applied.revision, changes: changes.collect(), warnings: applied.warnings }
}

fn discovery(view: &ServiceView, of: &SourceView, lookups: &DiscoveryStats) -> v1::Discovery {
    let status = lookups.of(&view.service.name, &of.source);
    let left_out = view.left_out.iter().filter(|out| out.source == of.source);
    v1::Discovery {
        kind: of.source.kind().to_owned(),
        source: of.source.place(),
        backends: of.backends.len(),
        answered: status.as_ref().is_some_and(|status| status.answered),
        age_seconds: status.as_ref().map_or(0, |status| status.age().as_secs()),
        failures: status.as_ref().map_or(0, |status| status.failures),
        trouble: status.as_ref().and_then(|status| status.alarm()).map(ToOwned::to_owned),
        left_out: left_out
            .map(|out| v1::LeftOut {
                name: out.name.to_string(),
                address: out.address.to_string(),
                why: out.why.clone(),
            })
            .collect(),
    }
}

fn leaving(backend: &LeavingBackend) -> v1::Leaving {
    v1::Leaving {
        name: backend.name.as_ref().map(ToString::to_string),
        address: backend.address.to_string(),
        flows: backend.flows,
        drain_seconds_left: control::seconds_left(backend.drain_deadline),
    }
}

fn interface(view: &InterfaceView) -> v1::Interface {
    v1::Interface { name: view.name.clone(), mode: view.mode.to_owned(), attached: view.attached }
}

fn origin(origin: &domain::Origin) -> v1::Origin {
    match origin {
        domain::Origin::File { path, line } => {
            v1::Origin::File { file: path.display().to_string(), line: *line }
        }
        domain::Origin::Cli => v1::Origin::Cli,
        domain::Origin::Fleet => v1::Origin::Fleet,
        domain::Origin::Watched { path, line } => {
            v1::Origin::Watched { file: path.display().to_string(), line: *line }
        }
        domain::Origin::Dns(name) => v1::Origin::Dns { name: name.to_string() },
    }
}

fn replies(service: &Service, count: u64) -> Option<u64> {
    service.forwarding.translates().then_some(count)
}

/// TCP says in its packets that a flow begins; of UDP the flow table knows.
fn new_flows(service: &Service, traffic: &TrafficCounters) -> Option<u64> {
    service.counts_new_flows().then_some(traffic.new_flows)
}
