//! What no value shows by itself: names used twice, addresses that clash, limits.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    net::{IpAddr, SocketAddr},
};

use super::{
    announce::{AnnounceConfig, MAIN_TABLE},
    nat::NatDraft,
    report::{At, Place, Report, Wrong},
    service::{BackendDraft, Draft},
};
use crate::{
    dataplane::Limits,
    domain::{Misfit, Name, Protocol, Via, Vip, place},
};

pub(super) fn services(services: &[Draft], limits: Limits, report: &mut Report<'_>) {
    let mut names = Unique::default();
    let mut endpoints: Unique<(Vip, Protocol)> = Unique::default();
    let mut vips: HashMap<IpAddr, (Place, Option<&Name>)> = HashMap::new();
    for service in services {
        if let Some(name) = &service.name {
            names.insert(name, report, || format!("there already is a service \"{}\"", name.value));
        }
        if let (Some(vip), Some(protocol)) = (service.vip, service.protocol) {
            let endpoint = At::new((vip.value, protocol.value), vip.place);
            let protocol = protocol.value.as_str();
            endpoints.insert(&endpoint, report, || {
                format!("there already is a {protocol} service on {}", vip.value)
            });
        }
        if let Some(vip) = service.vip {
            let name = service.name.as_ref().map(|name| &name.value);
            vips.entry(vip.value.address).or_insert((vip.place, name));
        }
    }
    for service in services {
        backends(service, &vips, report);
    }
    check_limits(services, limits, report);
}

/// A reply to a service's address and port is for the service, not for a flow that NAT keeps.
pub(super) fn nat(services: &[Draft], nat: &NatDraft, report: &mut Report<'_>) {
    let pool = nat.pool();
    for address in &nat.addresses {
        let clash = services
            .iter()
            .filter_map(|service| service.vip)
            .find(|vip| vip.value.address == address.value && pool.clashes_with(vip.value));
        if let Some(vip) = clash {
            let message = format!("`addresses` can't hold {}: a service is on {}", address.value, vip.value);
            let label = format!("ports {}-{} of it have to be free", pool.first_port, pool.last_port);
            let wrong = Wrong::new(message, label);
            report.error(
                address.place,
                wrong.help(format!("the service's address stands at {}", report.locate(vip.place))),
            );
        }
    }
}

/// Checks over the VIP need a route of the administrator's for it, and of two routes of one table routing daemons export the
/// better one, if any.
pub(super) fn announce(services: &[Draft], announce: Option<&AnnounceConfig>, report: &mut Report<'_>) {
    if announce.and_then(AnnounceConfig::routes).is_none_or(|routes| routes.table != MAIN_TABLE) {
        return;
    }
    for health in services.iter().filter_map(|service| service.health.as_ref()) {
        if health.value.via == Via::Vip {
            let message = "checks over the VIP go by a route of the administrator's, which routing daemons take for the one to export";
            let wrong = Wrong::new(message, "with `[announce]` this takes a `table` of its own there");
            report.warning(health.place, wrong.help("docs/high-availability.md, \"A table of its own\""));
        }
    }
}

fn backends(service: &Draft, vips: &HashMap<IpAddr, (Place, Option<&Name>)>, report: &mut Report<'_>) {
    let mut names = Unique::default();
    let mut addresses: Unique<SocketAddr> = Unique::default();
    for backend in &service.backends {
        if let Some(name) = &backend.name {
            names.insert(name, report, || {
                format!("there already is a backend \"{}\" in this service", name.value)
            });
        }
        let Some(address) = backend.address else { continue };
        let ip = address.value.ip();
        if let (Some(vip), Some(mode)) = (service.vip, service.forwarding) {
            let place = place(vip.value, mode.value, address.value);
            addresses.insert(&At::new(place, address.place), report, || {
                let at = if place.port() == 0 { ip.to_string() } else { place.to_string() };
                format!("there already is a backend at {at} in this service")
            });
        }
        if let Some(&(vip, name)) = vips.get(&ip) {
            let owner = name.map(|name| format!(" of service \"{name}\"")).unwrap_or_default();
            let message = format!("{ip} is a VIP{owner} and can't be a backend's address as well");
            let wrong = Wrong::new(message, "the address of the backend itself is needed here");
            report.error(address.place, wrong.help(format!("the VIP stands at {}", report.locate(vip))));
            continue;
        }
        backend_fits(service, backend, report);
    }
    names_fit(service, report);
    let heavy = |backend: &BackendDraft| backend.weight.is_none_or(|weight| weight.value > 0);
    if !service.backends.iter().any(heavy) && service.discovery.is_empty() {
        let message = match service.backends.is_empty() {
            true => "this service has no backend",
            false => "every backend of this service has weight 0",
        };
        report.warning(service.place, Wrong::new(message, "its packets will be dropped"));
    }
    if let Some(least) = service.withdraw_below()
        && least.value as usize > service.backends.len()
        && service.discovery.is_empty()
    {
        let count = service.backends.len();
        let message =
            format!("this service has {count} backends, and `withdraw_below` asks for {}", least.value);
        report.warning(least.place, Wrong::new(message, "its VIP will never be announced"));
    }
    if let Some(size) = service.table_size {
        let advisable = size.value.advisable_backends();
        if service.backends.len() > advisable {
            let count = service.backends.len();
            let message = format!("{count} backends share a table of {} slots", size.value.slots());
            let label = format!("shares are uneven with more than {advisable}; a larger `table_size` helps");
            report.warning(size.place, Wrong::new(message, label));
        }
    }
}

/// Whether packets of the service can be forwarded to this backend at all, and checks sent to it.
fn backend_fits(service: &Draft, backend: &BackendDraft, report: &mut Report<'_>) {
    if let (Some(health), Some(vip), Some(address)) = (&service.health, service.vip, backend.address)
        && let Some(misfit) = Misfit::of_check(&health.value, vip.value.address, address.value)
    {
        let wrong = Wrong::new(misfit.to_string(), "the address that is checked")
            .help(format!("the check stands at {}", report.locate(health.place)));
        report.error(address.place, wrong);
    }
    let (Some(vip), Some(forwarding), Some(address)) = (service.vip, service.forwarding, backend.address)
    else {
        return;
    };
    let checked = service.health.as_ref().is_some_and(|health| health.value.uses_own_port());
    let Some(misfit) = Misfit::of(vip.value, forwarding.value, address.value, checked) else { return };
    let mode = forwarding.value.as_str();
    let message = misfit.to_string();
    let wrong = match misfit {
        Misfit::Family { .. } => {
            Wrong::new(message, format!("{mode} needs both of the same family; ipip and gue do not"))
        }
        Misfit::Port { needed, .. } => Wrong::new(message, format!("port {needed} is needed here"))
            .help(format!("{mode} hands packets over as they are; a check may use another `port`")),
        Misfit::NoPort => Wrong::new(message, format!("the port that {mode} is to send to is needed here")),
        // Told above, with the place of the check.
        Misfit::CheckSource { .. } => return,
        Misfit::Unchecked => {
            Wrong::new(message, "a port is needed here, or `port` or type = \"none\" in [service.health]")
        }
    };
    report.error(address.place, wrong);
}

/// There is one place where services are.
pub(super) fn none_beside_fleet(services: &[Draft], report: &mut Report<'_>) {
    if let Some(first) = services.first() {
        let wrong =
            Wrong::new("there can't be a [[service]] beside [fleet]", "the services of a fleet are in etcd");
        let help =
            "`ballast fleet import FILE` takes those of a file there; after that they go out of the file";
        report.error(first.place, wrong.help(help));
    }
}

/// Whether any address of a name could be a backend, whatever it is.
fn names_fit(service: &Draft, report: &mut Report<'_>) {
    let (Some(vip), Some(forwarding)) = (service.vip, service.forwarding) else { return };
    let checked = service.health.as_ref().is_some_and(|health| health.value.uses_own_port());
    for name in service.discovery.names.iter().filter_map(|draft| draft.name.as_ref()) {
        let any = SocketAddr::new(vip.value.address, name.value.port);
        let Some(misfit) = Misfit::of(vip.value, forwarding.value, any, checked) else { continue };
        let label = match misfit {
            Misfit::Port { needed, .. } => format!("port {needed} is needed here, or none"),
            _ => "a port is needed here, or `port` or type = \"none\" in [service.health]".to_owned(),
        };
        report.error(name.place, Wrong::new(misfit.to_string(), label));
    }
}

fn check_limits(services: &[Draft], limits: Limits, report: &mut Report<'_>) {
    let mut over = |place: Place, what: &str, key: &str, limit: u32, room: &str| {
        let message = format!("too many {what}: `limits.{key}` is {limit}");
        let help = "raise it in `[limits]`; that takes effect after `ballast detach` and a start";
        report.error(place, Wrong::new(message, format!("there is room for {room}")).help(help));
    };
    if let Some(first) = services.get(limits.services as usize) {
        over(first.place, "services", "services", limits.services, &limits.services.to_string());
    }
    // Entry 0 of the map means "no backend".
    let room = limits.backends.saturating_sub(1);
    if let Some(first) = services.iter().flat_map(|service| &service.backends).nth(room as usize) {
        over(first.place, "backends", "backends", limits.backends, &format!("{room}: entry 0 is reserved"));
    }
    let mut prefixes = 0;
    for admission in services.iter().filter_map(|service| service.admission.as_ref()) {
        prefixes += admission.value.prefixes();
        if prefixes > limits.source_prefixes as usize {
            let room = format!("{} in all services together", limits.source_prefixes);
            over(admission.place, "source prefixes", "source_prefixes", limits.source_prefixes, &room);
            break;
        }
    }
    let mut slots = 0_u64;
    for service in services {
        let Some(size) = service.table_size else { continue };
        slots += u64::from(size.value.slots());
        if slots > u64::from(limits.lookup_slots) {
            let room = format!("{} in all tables together", limits.lookup_slots);
            over(size.place, "lookup-table slots", "lookup_slots", limits.lookup_slots, &room);
            break;
        }
    }
}

/// Things that may stand once only.
struct Unique<T>(HashMap<T, Place>);

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Clone + Eq + Hash> Unique<T> {
    fn insert(&mut self, thing: &At<T>, report: &mut Report<'_>, message: impl FnOnce() -> String) {
        match self.0.entry(thing.value.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(thing.place);
            }
            Entry::Occupied(first) => {
                let wrong = Wrong::new(message(), "another one is needed here");
                report.error(
                    thing.place,
                    wrong.help(format!("the first stands at {}", report.locate(*first.get()))),
                );
            }
        }
    }
}
