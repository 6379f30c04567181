//! Two owners, one state: what the file declares and what the API made, put together.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use super::{LeftOut, command::Rejected, found};
use crate::domain::{Backend, Kept, Misfit, Name, Origin, Protocol, Service, Vip};

/// Everything there is, and what of it is still to be kept.
pub(super) struct Merged {
    pub(super) services: BTreeMap<Name, Service>,
    pub(super) kept: Kept,
    /// Backends that were found and can't be, by service.
    pub(super) left_out: BTreeMap<Name, Vec<LeftOut>>,
}

/// Puts both together. An object that the file declares as it was made here belongs to the file from then on; what was set
/// over it stays. Overrides of what is no more, and backends added to services that are no more, are forgotten.
///
/// `by_file`: the file is what is new, so in a conflict it is at fault. `gateway`: see [`found::join`].
pub(super) fn merge(
    declared: &BTreeMap<Name, Service>,
    kept: &Kept,
    by_file: bool,
    gateway: impl Fn(&Service, IpAddr) -> Option<IpAddr>,
) -> Result<Merged, Rejected> {
    let mut kept = kept.clone();
    let mut services = BTreeMap::new();
    for service in declared.values() {
        take_over(service, &mut kept)?;
        let mut whole = service.clone();
        whole.backends.extend(kept.backends.get(&service.name).cloned().unwrap_or_default());
        services.insert(service.name.clone(), whole);
    }
    services.extend(kept.services.iter().map(|(name, service)| (name.clone(), service.clone())));
    kept.backends.retain(|service, backends| declared.contains_key(service) && !backends.is_empty());
    check(&services, by_file)?;
    found::forget(declared, &mut kept);
    let left_out = found::join(&mut services, &kept, gateway);
    let Kept { overrides, found, .. } = &mut kept;
    for (service, over) in overrides {
        // What is left out for now comes back as it was.
        let is_found = |backend: &Name| {
            let sources = found.get(service).into_iter().flat_map(BTreeMap::values);
            sources.into_iter().any(|found| found.values().any(|found| found.name == *backend))
        };
        over.retain(|backend, _| {
            services.get(service).is_some_and(|known| known.backends.contains_key(backend))
                || is_found(backend)
        });
    }
    kept.overrides.retain(|_, over| !over.is_empty());
    for (name, service) in &mut services {
        for backend in service.backends.values_mut() {
            let over = kept.over(name, &backend.name);
            backend.weight = over.weight.unwrap_or(backend.weight);
            backend.admin = over.admin.unwrap_or(backend.admin);
        }
    }
    Ok(Merged { services, kept, left_out })
}

fn take_over(service: &Service, kept: &mut Kept) -> Result<(), Rejected> {
    let name = &service.name;
    if let Some(made) = kept.services.get(name) {
        if (made.vip, made.protocol) != (service.vip, service.protocol) {
            return Err(Rejected::Invalid {
                field: format!("service.{name}"),
                message: format!(
                    "service {name} was made over the command line, on {}/{}; `ballast service remove {name}` first, or \
                     declare another name",
                    made.vip,
                    made.protocol.as_str()
                ),
            });
        }
        // Its backends were made here and are the file's only as far as it names them.
        let made = kept.services.remove(name).map(|made| made.backends).unwrap_or_default();
        kept.backends.entry(name.clone()).or_default().extend(made);
    }
    let Some(added) = kept.backends.get_mut(name) else { return Ok(()) };
    for backend in service.backends.values() {
        match added.get(&backend.name) {
            Some(made) if made.address != backend.address => {
                return Err(Rejected::Invalid {
                    field: format!("service.{name}.backend.{}.address", backend.name),
                    message: format!(
                        "backend {0} of service {name} was made over the command line, at {1}; `ballast backend remove \
                         {name} {0}` first, or declare another name",
                        backend.name, made.address
                    ),
                });
            }
            Some(_) => {
                added.remove(&backend.name);
            }
            None => {}
        }
    }
    Ok(())
}

/// What each owner alone can't see. Everything else was checked when it was read.
fn check(services: &BTreeMap<Name, Service>, by_file: bool) -> Result<(), Rejected> {
    let mut endpoints: HashMap<(Vip, Protocol), &Service> = HashMap::new();
    let mut vips: HashMap<IpAddr, &Service> = HashMap::new();
    for service in services.values() {
        // Of several services on one address the one that is at fault is the one to name.
        let owner = vips.entry(service.vip.address).or_insert(service);
        if by_file && owner.origin == Origin::Cli {
            *owner = service;
        }
        if let Some(other) = endpoints.insert((service.vip, service.protocol), service) {
            let [new, old] = at_fault(service, other, by_file, |service| &service.origin);
            return Err(Rejected::Invalid {
                field: format!("service.{}", new.name),
                message: format!(
                    "there already is a {} service on {}: {} ({})",
                    new.protocol.as_str(),
                    new.vip,
                    old.name,
                    old.origin
                ),
            });
        }
    }
    for service in services.values() {
        let mut places: HashMap<SocketAddr, &Backend> = HashMap::new();
        for backend in service.backends.values() {
            // The file is at fault for what it does to a backend that it doesn't know.
            let field = |backend: &Backend| match backend.origin {
                Origin::Cli if by_file => format!("service.{}", service.name),
                _ => format!("service.{}.backend.{}.address", service.name, backend.name),
            };
            let address = backend.address.ip();
            let this = format!("backend {} of service {} ({})", backend.name, service.name, backend.origin);
            if let Some(owner) = vips.get(&address) {
                let field = match backend.origin {
                    Origin::Cli if by_file => format!("service.{}", owner.name),
                    _ => field(backend),
                };
                return Err(Rejected::Invalid {
                    field,
                    message: format!("{this}: {address} is the VIP of service {}", owner.name),
                });
            }
            let place = service.place_of(backend.address);
            if let Some(other) = places.insert(place, backend) {
                let [new, old] = at_fault(backend, other, by_file, |backend| &backend.origin);
                let at = if place.port() == 0 { address.to_string() } else { place.to_string() };
                let message = format!(
                    "there already is a backend at {at} in service {}: {} ({})",
                    service.name, old.name, old.origin
                );
                return Err(Rejected::Invalid { field: field(new), message });
            }
            if let Some(misfit) = service.misfit(backend.address) {
                let advice = match misfit {
                    Misfit::Family { .. } | Misfit::CheckSource { .. } => String::new(),
                    Misfit::NoPort => format!(": {} needs to know it", service.forwarding.as_str()),
                    Misfit::Port { .. } => {
                        format!(": {} hands packets over as they are", service.forwarding.as_str())
                    }
                    Misfit::Unchecked => ": name one, or set the service's health check port".to_owned(),
                };
                let message = format!("{this}: {misfit}{advice}");
                return Err(Rejected::Invalid { field: field(backend), message });
            }
        }
    }
    Ok(())
}

/// Whoever came last, and the other.
fn at_fault<'a, T>(a: &'a T, b: &'a T, by_file: bool, origin: impl Fn(&T) -> &Origin) -> [&'a T; 2] {
    if (*origin(a) == Origin::Cli) == by_file { [b, a] } else { [a, b] }
}
