//! Backends that were found join those that somebody named one by one. Nobody is there to hear that one of them can't be a
//! backend: it is left out, and the others are not.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use super::{Command, FoundBackends, LeftOut, SourceView, State};
use crate::domain::{Backend, Kept, Name, Service, Source};

/// Puts what was found last into its services. `gateway` is that of an address, as far as the kernel has said.
///
/// In one order, so that two hosts that find the same leave out the same.
pub(super) fn join(
    services: &mut BTreeMap<Name, Service>,
    kept: &Kept,
    gateway: impl Fn(&Service, IpAddr) -> Option<IpAddr>,
) -> BTreeMap<Name, Vec<LeftOut>> {
    let vips: HashMap<IpAddr, Name> =
        services.values().map(|service| (service.vip.address, service.name.clone())).collect();
    let mut left_out = BTreeMap::new();
    for (name, service) in services {
        let mut out = Vec::new();
        let own = service.backends.values();
        let mut places: HashMap<SocketAddr, Name> =
            own.map(|backend| (service.place_of(backend.address), backend.name.clone())).collect();
        let sources: Vec<_> = service.discovery.sources().collect();
        for source in sources {
            for backend in kept.found(name, &source).into_iter().flat_map(|found| found.values()) {
                let backend = as_declared(service, &source, backend);
                let place = service.place_of(backend.address);
                let why = match (service.backends.get(&backend.name), places.get(&place)) {
                    // The same one by two ways is no news.
                    (Some(same), _) if same.address == backend.address => continue,
                    (Some(other), _) => Some(format!(
                        "there already is a backend {} at {} ({})",
                        other.name, other.address, other.origin
                    )),
                    (None, Some(other)) => Some(format!("there already is a backend there: {other}")),
                    (None, None) => unfit(service, &backend, &vips, &gateway),
                };
                match why {
                    Some(why) => out.push(LeftOut {
                        source: source.clone(),
                        name: backend.name,
                        address: backend.address,
                        why,
                    }),
                    None => {
                        places.insert(place, backend.name.clone());
                        service.backends.insert(backend.name.clone(), backend);
                    }
                }
            }
        }
        if !out.is_empty() {
            left_out.insert(name.clone(), out);
        }
    }
    left_out
}

/// With the weight that the configuration gives the backends of a name.
fn as_declared(service: &Service, source: &Source, found: &Backend) -> Backend {
    let of = match source {
        Source::Dns(name) => service.discovery.of_name(name),
        Source::File(_) => None,
    };
    let (weight, backup) = of.map_or((found.weight, found.backup), |of| (of.weight, of.backup));
    Backend { weight, backup, ..found.clone() }
}

fn unfit(
    service: &Service,
    backend: &Backend,
    vips: &HashMap<IpAddr, Name>,
    gateway: &impl Fn(&Service, IpAddr) -> Option<IpAddr>,
) -> Option<String> {
    let address = backend.address.ip();
    if let Some(owner) = vips.get(&address) {
        return Some(format!("{address} is the VIP of service {owner}"));
    }
    if let Some(misfit) = service.misfit(backend.address) {
        return Some(misfit.to_string());
    }
    let gateway = gateway(service, address)?;
    Some(format!(
        "it is behind the gateway {gateway}: l2-dsr needs its backends on a network of the load balancer"
    ))
}

/// Takes the answers over that are asked for.
pub(super) fn learn(declared: &BTreeMap<Name, Service>, kept: &mut Kept, answers: &[FoundBackends]) {
    for FoundBackends { service, source, backends } in answers {
        let asked = declared.get(service).is_some_and(|declared| declared.discovery.has(source));
        if asked && !backends.is_empty() {
            kept.found.entry(service.clone()).or_default().insert(source.clone(), backends.clone());
        }
    }
}

/// Forgets what sources said that are no more.
pub(super) fn forget(declared: &BTreeMap<Name, Service>, kept: &mut Kept) {
    for (service, sources) in &mut kept.found {
        let declared = declared.get(service);
        sources.retain(|source, _| declared.is_some_and(|declared| declared.discovery.has(source)));
    }
    kept.found.retain(|_, sources| !sources.is_empty());
}

impl State {
    /// What a service's sources said last.
    pub(super) fn source_views(&self, service: &Service) -> Vec<SourceView> {
        let found = |source: Source| {
            let backends = self.kept().found(&service.name, &source).cloned().unwrap_or_default();
            SourceView { source, backends }
        };
        service.discovery.sources().map(found).collect()
    }
}

/// What a command means for those that are left out or not known yet, in words.
pub(super) fn warnings(command: &Command, before: &State, after: &State) -> Vec<String> {
    let known: HashSet<(&Name, &LeftOut)> = before.left_out().collect();
    let news = after.left_out().filter(|out| !known.contains(out));
    let mut warnings: Vec<_> = news
        .map(|(service, out)| {
            let LeftOut { source, name, address, why } = out;
            format!("backend {name} of service {service} at {address} ({source}) is left out: {why}")
        })
        .collect();
    if command.declares() {
        let sources = after
            .specs()
            .flat_map(|service| service.discovery.sources().map(move |source| (service, source)));
        let unknown = sources.filter(|(service, source)| after.kept().found(&service.name, source).is_none());
        warnings.extend(unknown.map(|(service, source)| {
            format!(
                "what {source} has for service {} is not known yet: its backends join when it is",
                service.name
            )
        }));
    }
    warnings
}
