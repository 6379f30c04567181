//! Snapshot and counters to what `/v1` says.

use lb_common::abi::{DropReason, TrafficCounters};

use super::v1;
use crate::{
    control::{Applied, BackendView, InterfaceView, ServiceView, Snapshot},
    dataplane::{CounterReader, Error},
    domain::{self, Protocol},
};

pub(super) fn status(snapshot: &Snapshot, counters: &dyn CounterReader) -> Result<v1::Status, Error> {
    let totals = counters.totals()?;
    let dropped = |reason: DropReason| totals.drops.get(reason as usize).copied().unwrap_or_default();
    Ok(v1::Status {
        revision: snapshot.revision,
        ready: snapshot.ready,
        interfaces: snapshot.interfaces.iter().map(interface).collect(),
        services: services(snapshot, counters)?,
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
    })
}

pub(super) fn services(snapshot: &Snapshot, counters: &dyn CounterReader) -> Result<Vec<v1::Service>, Error> {
    snapshot.services.iter().map(|view| service(view, counters)).collect()
}

pub(super) fn service(view: &ServiceView, counters: &dyn CounterReader) -> Result<v1::Service, Error> {
    let service = &*view.service;
    let traffic = counters.service(view.id)?;
    Ok(v1::Service {
        name: service.name.to_string(),
        address: service.vip.to_string(),
        protocol: service.protocol.as_str().to_owned(),
        forwarding: service.forwarding.as_str().to_owned(),
        algorithm: service.algorithm.as_str().to_owned(),
        state: view.state.as_str().to_owned(),
        packets: traffic.packets,
        bytes: traffic.bytes,
        new_flows: new_flows(service.protocol, &traffic),
        fingerprint: format!("{:016x}", view.fingerprint),
        origin: origin(&service.origin),
        overrides: Vec::new(),
        backends: backends(view, counters)?,
    })
}

pub(super) fn backends(view: &ServiceView, counters: &dyn CounterReader) -> Result<Vec<v1::Backend>, Error> {
    let declared = |backend: &BackendView| view.service.backends.get(&backend.name);
    let pairs = view.backends.iter().filter_map(|backend| Some((backend, declared(backend)?)));
    pairs.map(|(observed, declared)| backend(view.service.protocol, declared, observed, counters)).collect()
}

pub(super) fn backend(
    protocol: Protocol,
    declared: &domain::Backend,
    observed: &BackendView,
    counters: &dyn CounterReader,
) -> Result<v1::Backend, Error> {
    let traffic = counters.backend(observed.index)?;
    Ok(v1::Backend {
        name: declared.name.to_string(),
        address: observed.address.to_string(),
        weight: declared.weight,
        backup: false,
        admin: declared.admin.as_str().to_owned(),
        health: observed.health.as_str().to_owned(),
        health_detail: observed.health_detail.clone(),
        share: observed.share,
        flows: None,
        packets: traffic.packets,
        bytes: traffic.bytes,
        new_flows: new_flows(protocol, &traffic),
        reachable: observed.reachable,
        origin: origin(&declared.origin),
        overrides: Vec::new(),
    })
}

pub(super) fn reload(applied: Applied, dry_run: bool) -> v1::Reload {
    let changes = applied.changes.into_iter().map(|change| v1::Change {
        action: change.action.to_owned(),
        object: change.object,
        detail: change.detail,
    });
    v1::Reload { dry_run, revision: applied.revision, changes: changes.collect(), warnings: applied.warnings }
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
    }
}

/// Only TCP says in its packets that a flow begins.
fn new_flows(protocol: Protocol, traffic: &TrafficCounters) -> Option<u64> {
    match protocol {
        Protocol::Tcp => Some(traffic.new_flows),
        Protocol::Udp => None,
    }
}
