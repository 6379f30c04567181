use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use super::{
    admission,
    diagnostic::Diagnostic,
    discovery,
    failure::{self, FailureDraft},
    health,
    report::{At, Place, Report, Source, Wrong},
    table::Table,
};
use crate::domain::{
    Admin, Admission, Algorithm, Backend, Forwarding, HealthCheck, Name, OnAllDown, Origin, Protocol,
    Service, TableSize, Tracking, Vip, name_of,
};

pub(super) mod keys;

/// A `[[service]]` with positions, for the checks across services. `None`: it was wrong, which is reported.
pub(super) struct Draft {
    pub(super) place: Place,
    pub(super) name: Option<At<Name>>,
    pub(super) vip: Option<At<Vip>>,
    pub(super) protocol: Option<At<Protocol>>,
    pub(super) forwarding: Option<At<Forwarding>>,
    pub(super) table_size: Option<At<TableSize>>,
    pub(super) health: Option<At<HealthCheck>>,
    pub(super) admission: Option<At<Admission>>,
    pub(super) discovery: discovery::Draft,
    pub(super) backends: Vec<BackendDraft>,
    algorithm: Option<At<Algorithm>>,
    failure: FailureDraft,
    tracking: Option<At<Tracking>>,
    flow_idle_timeout: Option<At<Duration>>,
    unhealthy_grace: Option<At<Duration>>,
    drain_timeout: Option<At<Duration>>,
}

/// A `[[service.backend]]` with positions.
pub(super) struct BackendDraft {
    pub(super) place: Place,
    pub(super) name: Option<At<Name>>,
    pub(super) address: Option<At<SocketAddr>>,
    pub(super) weight: Option<At<u32>>,
    /// `None`: it was wrong.
    backup: Option<bool>,
}

pub(super) fn read_all(document: &mut Table<'_>, report: &mut Report<'_>) -> Vec<Draft> {
    let tables = document.tables("service", "[[service]]", report);
    tables.into_iter().map(|table| read(table, report)).collect()
}

pub(super) fn read(mut table: Table<'_>, report: &mut Report<'_>) -> Draft {
    let place = table.place();
    let name = table.required(&keys::NAME, report);
    let vip = table.required(&keys::ADDRESS, report);
    let protocol = table.read_or(&keys::PROTOCOL, Protocol::Tcp, report);
    let forwarding = table.read_or(&keys::FORWARDING, Forwarding::L2Dsr, report);
    let algorithm = table.read_or(&keys::ALGORITHM, Algorithm::SourceHash, report);
    let table_size = read_table_size(&mut table, report);
    let failure = failure::read(&mut table, report);
    let tracking = read_tracking(&mut table, algorithm, forwarding, report);
    let idle = match (protocol, algorithm, forwarding) {
        (Some(protocol), Some(algorithm), Some(forwarding)) => {
            Service::default_flow_idle_timeout(protocol.value, algorithm.value, forwarding.value)
        }
        // Never used: the service is refused for the other mistake.
        _ => keys::MAX_SERVICE_TIME,
    };
    let flow_idle_timeout = table.read_or(&keys::FLOW_IDLE_TIMEOUT, idle, report);
    let unhealthy_grace = table.read_or(&keys::UNHEALTHY_GRACE, Service::DEFAULT_UNHEALTHY_GRACE, report);
    let drain_timeout = table.read_or(&keys::DRAIN_TIMEOUT, Service::DEFAULT_DRAIN_TIMEOUT, report);

    let of = admission::Of { vip, protocol, forwarding, tracking };
    let admission = admission::read(&mut table, &of, report);

    let discovery = discovery::read_of_service(&mut table, vip, report);
    let health = health::read(table.get("health"), place, protocol, forwarding, report);
    let backends = table.tables("backend", "[[service.backend]]", report);
    let backends = backends.into_iter().map(|table| read_backend(table, report)).collect();
    table.finish(report);
    Draft {
        place,
        name,
        vip,
        protocol,
        forwarding,
        table_size,
        health,
        admission,
        discovery,
        backends,
        algorithm,
        failure,
        tracking,
        flow_idle_timeout,
        unhealthy_grace,
        drain_timeout,
    }
}

fn read_tracking(
    table: &mut Table<'_>,
    algorithm: Option<At<Algorithm>>,
    forwarding: Option<At<Forwarding>>,
    report: &mut Report<'_>,
) -> Option<At<Tracking>> {
    let tracking = table.read_or(&keys::TRACKING, Tracking::Auto, report)?;
    if tracking.value != Tracking::Never {
        return Some(tracking);
    }
    let algorithm = algorithm.map(|algorithm| algorithm.value).filter(|algorithm| !algorithm.is_hash());
    let forwarding = forwarding.map(|mode| mode.value).filter(|mode| mode.translates());
    let (with, label) = match (algorithm, forwarding) {
        (_, Some(mode)) => (
            format!("forwarding = \"{}\"", mode.as_str()),
            "NAT keeps every flow, whatever is tracked: \"auto\" or \"always\"",
        ),
        (Some(algorithm), None) => (
            format!("algorithm = \"{}\"", algorithm.as_str()),
            "a flow has to be tracked to stay with its backend: \"auto\" or \"always\"",
        ),
        (None, None) => return Some(tracking),
    };
    report.error(tracking.place, Wrong::new(format!("`tracking` can't be \"never\" with {with}"), label));
    None
}

fn read_table_size(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<At<TableSize>> {
    let slots = table.read_or(&keys::TABLE_SIZE, TableSize::DEFAULT.slots(), report)?;
    Some(At::new(TableSize::new(slots.value)?, slots.place))
}

pub(super) fn read_backend(mut table: Table<'_>, report: &mut Report<'_>) -> BackendDraft {
    let name = table.required(&keys::BACKEND_NAME, report);
    read_named(table, name, report)
}

/// As [`read_backend`]; one without a name is called by its address.
pub(super) fn read_found_backend(mut table: Table<'_>, report: &mut Report<'_>) -> BackendDraft {
    let name = table.read(&keys::BACKEND_NAME, report);
    let mut draft = read_named(table, None, report);
    let of_address = || draft.address.map(|address| At::new(name_of(address.value), address.place));
    draft.name = name.and_then(|name| name.or_else(of_address));
    draft
}

fn read_named(mut table: Table<'_>, name: Option<At<Name>>, report: &mut Report<'_>) -> BackendDraft {
    let draft = BackendDraft {
        place: table.place(),
        name,
        address: table.required(&keys::BACKEND_ADDRESS, report),
        weight: table.read_or(&keys::WEIGHT, 1, report),
        backup: table.read_or(&keys::BACKUP, false, report).map(|backup| backup.value),
    };
    table.finish(report);
    draft
}

impl Draft {
    /// Where the service and its backends' addresses stand, each with the name that a refusal gives it.
    pub(super) fn places(&self, sources: &[Source]) -> Vec<(String, Diagnostic)> {
        let (Some(name), Some(source)) = (&self.name, sources.get(self.place.file)) else {
            return Vec::new();
        };
        let show = |place: Place| source.diagnostic(place.start..place.end, "", "refused");
        let service = format!("service.{}", name.value);
        let addresses = self.backends.iter().filter_map(|backend| {
            let field = format!("{service}.backend.{}.address", backend.name.as_ref()?.value);
            Some((field, show(backend.address.as_ref()?.place)))
        });
        let mut places: Vec<_> = addresses.collect();
        // Where nothing is said of it this is the service itself.
        places.extend(
            self.admission.as_ref().map(|admission| (format!("{service}.admission"), show(admission.place))),
        );
        places.push((service, show(name.place)));
        places
    }

    /// `None` if anything in it was wrong.
    pub(super) fn into_domain(self, sources: &[Source]) -> Option<Service> {
        let source = sources.get(self.place.file)?;
        let path: Arc<PathBuf> = Arc::new(source.path().to_path_buf());
        let origin = |place: Place| Origin::File { path: Arc::clone(&path), line: source.line(place.start) };
        let backend = |draft: BackendDraft| {
            let origin = origin(draft.place);
            let backend = draft.into_domain(origin)?;
            Some((backend.name.clone(), backend))
        };
        let health = self.health?.value;
        Some(Service {
            name: self.name?.value,
            vip: self.vip?.value,
            protocol: self.protocol?.value,
            forwarding: self.forwarding?.value,
            algorithm: self.algorithm?.value,
            table_size: self.table_size?.value,
            on_all_down: self.failure.on_all_down?.unwrap_or(OnAllDown::default_of(&health)),
            health,
            panic: self.failure.panic?,
            slow_start: self.failure.slow_start?.value,
            withdraw_below: self.failure.withdraw_below?.value,
            tracking: self.tracking?.value,
            flow_idle_timeout: self.flow_idle_timeout?.value,
            unhealthy_grace: self.unhealthy_grace?.value,
            drain_timeout: self.drain_timeout?.value,
            admission: self.admission?.value,
            discovery: self.discovery.into_domain()?,
            backends: self.backends.into_iter().map(backend).collect::<Option<_>>()?,
            origin: origin(self.place),
        })
    }
}

impl Draft {
    /// Of healthy backends, the fewest that will do to announce the VIP.
    pub(super) fn withdraw_below(&self) -> Option<At<u32>> {
        self.failure.withdraw_below
    }
}

impl BackendDraft {
    /// `None` if anything in it was wrong.
    pub(super) fn into_domain(self, origin: Origin) -> Option<Backend> {
        Some(Backend {
            name: self.name?.value,
            address: self.address?.value,
            weight: u16::try_from(self.weight?.value).ok()?,
            backup: self.backup?,
            admin: Admin::Active,
            origin,
        })
    }
}
