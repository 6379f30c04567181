//! The state as a value: a command makes a new one or is refused, and nothing else happens.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use super::command::{Change, Command, HealthReport, NextHopUpdate, Rejected};
use crate::{
    dataplane::{
        desired::{Desired, DesiredBackend, DesiredService, Way},
        encode::{self, StableId},
        reconcile::Recorded,
    },
    domain::{Backend, Forwarding, Health, Name, Probe, Service, policy},
};

/// Services, what was observed of their backends, and the ways to them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct State {
    services: BTreeMap<Name, Entry>,
    ways: HashMap<IpAddr, NextHopUpdate>,
}

#[derive(Clone, Debug)]
struct Entry {
    spec: Arc<Service>,
    observed: BTreeMap<Name, Observed>,
}

/// What probes last said of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub health: Health,
    pub detail: String,
}

/// What a previous controller recorded.
pub(super) type RecordedBackends = HashMap<StableId, Recorded>;

impl State {
    /// The state after `command`, and what differs. `recorded` is where the health of a backend new to this state
    /// starts.
    pub fn apply(
        &self,
        command: &Command,
        recorded: &RecordedBackends,
    ) -> Result<(Self, Vec<Change>), Rejected> {
        let mut next = self.clone();
        let changes = match command {
            Command::Declare { services, ways } => {
                // Only what is news: the neighbour task may have told a later state of the others.
                for way in ways.iter().filter(|way| !self.ways.contains_key(&way.backend)) {
                    next.lead(way);
                }
                next.declare(services, recorded)?
            }
            Command::Health(reports) => reports.iter().filter_map(|report| next.observe(report)).collect(),
            Command::NextHops(updates) => updates.iter().filter_map(|update| next.lead(update)).collect(),
            Command::Interfaces(_) | Command::ConfigRefused(_) => Vec::new(),
        };
        Ok((next, changes))
    }

    /// Services in the order of their names, each with what policy decides for it.
    pub fn services(
        &self,
    ) -> impl Iterator<Item = (&Arc<Service>, &BTreeMap<Name, Observed>, policy::Decision)> {
        self.services.values().map(|entry| (&entry.spec, &entry.observed, entry.decide()))
    }

    /// What the maps should say.
    pub fn desired(&self) -> Desired {
        let service = |entry: &Entry| {
            let decision = entry.decide();
            let backend = |backend: &Backend| DesiredBackend {
                id: encode::backend_id(&entry.spec.name, &backend.name, backend.address),
                name: backend.name.clone(),
                address: backend.address,
                admin: backend.admin,
                health: entry.health(&backend.name),
                weight: decision.weights.get(&backend.name).copied().unwrap_or_default(),
                accepts_existing: true,
                left_table_at: 0,
                drain_deadline: 0,
                way: self.way(&entry.spec, backend.address.ip()),
            };
            DesiredService {
                id: encode::service_id(&entry.spec.name),
                spec: Arc::clone(&entry.spec),
                backends: entry.spec.backends.values().map(backend).collect(),
                cut: Vec::new(),
            }
        };
        let ways = self.ways.iter().map(|(address, update)| {
            let way = update.hop.clone().map_or(Way::Unresolved, Way::Resolved);
            (*address, way)
        });
        Desired { services: self.services.values().map(service).collect(), ways: ways.collect() }
    }

    fn declare(
        &mut self,
        services: &[Service],
        recorded: &RecordedBackends,
    ) -> Result<Vec<Change>, Rejected> {
        for service in services {
            self.check_ways(service)?;
        }
        let mut changes = Vec::new();
        let mut next = BTreeMap::new();
        for service in services {
            let old = self.services.get(&service.name);
            describe(old.map(|entry| &*entry.spec), service, &mut changes);
            let observed = service
                .backends
                .values()
                .map(|backend| (backend.name.clone(), first_health(service, backend, old, recorded)))
                .collect();
            next.insert(service.name.clone(), Entry { spec: Arc::new(service.clone()), observed });
        }
        for name in self.services.keys().filter(|name| !next.contains_key(*name)) {
            changes.push(Change::removed(format!("service {name}")));
        }
        self.services = next;
        let used: HashSet<IpAddr> = services
            .iter()
            .flat_map(|service| service.backends.values().map(|backend| backend.address.ip()))
            .collect();
        self.ways.retain(|address, _| used.contains(address));
        Ok(changes)
    }

    /// A gateway would route a VIP's packet straight back here.
    fn check_ways(&self, service: &Service) -> Result<(), Rejected> {
        if service.forwarding != Forwarding::L2Dsr {
            return Ok(());
        }
        for backend in service.backends.values() {
            let gateway = self.ways.get(&backend.address.ip()).and_then(|way| way.gateway);
            if let Some(gateway) = gateway {
                return Err(Rejected::Invalid {
                    field: format!("service.{}.backend.{}.address", service.name, backend.name),
                    message: format!(
                        "backend {} of service {} at {} is behind the gateway {gateway}: l2-dsr needs its backends on \
                         a network of the load balancer; use forwarding = \"ipip\", or an address on that network",
                        backend.name,
                        service.name,
                        backend.address.ip(),
                    ),
                });
            }
        }
        Ok(())
    }

    fn observe(&mut self, report: &HealthReport) -> Option<Change> {
        let entry = self.services.get_mut(&report.service)?;
        let backend = entry.spec.backends.get(&report.backend)?;
        if backend.address != report.address {
            return None;
        }
        let observed = entry.observed.get_mut(&report.backend)?;
        let new = Observed { health: report.health, detail: report.detail.clone() };
        if *observed == new {
            return None;
        }
        let change = Change {
            action: "change",
            object: format!("backend {}/{}", report.service, report.backend),
            detail: format!(
                "health {} -> {} ({})",
                observed.health.as_str(),
                report.health.as_str(),
                report.detail
            ),
        };
        *observed = new;
        Some(change)
    }

    fn lead(&mut self, update: &NextHopUpdate) -> Option<Change> {
        if self.ways.get(&update.backend) == Some(update) {
            return None;
        }
        let detail = match &update.hop {
            Some(hop) => format!("next hop {} on interface {}", mac(hop.mac), hop.ifindex),
            None => "next hop unresolved".to_owned(),
        };
        self.ways.insert(update.backend, update.clone());
        Some(Change { action: "change", object: format!("address {}", update.backend), detail })
    }

    fn way(&self, service: &Service, address: IpAddr) -> Way {
        match self.ways.get(&address) {
            None => Way::Unknown,
            Some(update) => match &update.hop {
                Some(hop) if service.forwarding != Forwarding::L2Dsr || update.gateway.is_none() => {
                    Way::Resolved(hop.clone())
                }
                _ => Way::Unresolved,
            },
        }
    }
}

impl Entry {
    fn decide(&self) -> policy::Decision {
        policy::decide(&self.spec, |name| self.health(name))
    }

    fn health(&self, backend: &Name) -> Health {
        self.observed.get(backend).map(|observed| observed.health).unwrap_or_default()
    }
}

/// Where a backend's health starts: where it was if it is the same backend, else where a previous controller left it.
fn first_health(
    service: &Service,
    backend: &Backend,
    old: Option<&Entry>,
    recorded: &RecordedBackends,
) -> Observed {
    if service.health.probe == Probe::None {
        return Observed { health: Health::Healthy, detail: "not checked".to_owned() };
    }
    let same = |entry: &&Entry| {
        entry.spec.health.probe != Probe::None
            && entry.spec.backends.get(&backend.name).is_some_and(|known| known.address == backend.address)
    };
    if let Some(observed) = old.filter(same).and_then(|entry| entry.observed.get(&backend.name)) {
        return observed.clone();
    }
    let id = encode::backend_id(&service.name, &backend.name, backend.address);
    match recorded.get(&id).copied().unwrap_or_default().health {
        Health::Unknown => Observed { health: Health::Unknown, detail: "not checked yet".to_owned() },
        health => Observed { health, detail: "as before".to_owned() },
    }
}

/// Adds the differences between two versions of a service.
fn describe(old: Option<&Service>, new: &Service, changes: &mut Vec<Change>) {
    let Some(old) = old else {
        changes.push(Change::added(format!("service {}", new.name)));
        changes.extend(new.backends.keys().map(|name| Change::added(format!("backend {}/{name}", new.name))));
        return;
    };
    let mut detail = Vec::new();
    let mut note = |what: &str, old: &dyn std::fmt::Display, new: &dyn std::fmt::Display| {
        let (old, new) = (old.to_string(), new.to_string());
        if old != new {
            detail.push(format!("{what} {old} -> {new}"));
        }
    };
    note("address", &old.vip, &new.vip);
    note("protocol", &old.protocol.as_str(), &new.protocol.as_str());
    note("forwarding", &old.forwarding.as_str(), &new.forwarding.as_str());
    note("algorithm", &old.algorithm.as_str(), &new.algorithm.as_str());
    note("table_size", &old.table_size.slots(), &new.table_size.slots());
    note("on_all_down", &old.on_all_down.as_str(), &new.on_all_down.as_str());
    if old.health != new.health {
        detail.push("health check".to_owned());
    }
    if !detail.is_empty() {
        changes.push(Change::changed(format!("service {}", new.name), detail.join(", ")));
    }
    for backend in new.backends.values() {
        let object = format!("backend {}/{}", new.name, backend.name);
        match old.backends.get(&backend.name) {
            None => changes.push(Change::added(object)),
            Some(known) => describe_backend(known, backend, object, changes),
        }
    }
    let gone = old.backends.keys().filter(|name| !new.backends.contains_key(*name));
    changes.extend(gone.map(|name| Change::removed(format!("backend {}/{name}", new.name))));
}

fn describe_backend(old: &Backend, new: &Backend, object: String, changes: &mut Vec<Change>) {
    let mut detail = Vec::new();
    if old.address != new.address {
        detail.push(format!("address {} -> {}", old.address, new.address));
    }
    if old.weight != new.weight {
        detail.push(format!("weight {} -> {}", old.weight, new.weight));
    }
    if !detail.is_empty() {
        changes.push(Change::changed(object, detail.join(", ")));
    }
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
