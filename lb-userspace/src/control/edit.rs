//! What the API may change, and what it may not: a pure function over what is kept.

use std::{collections::BTreeMap, net::IpAddr};

use super::{LeftOut, command::Rejected};
use crate::domain::{Admin, AnnounceOff, Backend, Kept, Name, Origin, Override, Service, Source};

/// A change asked for over the API. A refused one changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    AddService(Box<Service>),
    /// New settings for a service made over the API; its backends stay as they are.
    SetService {
        /// As they were seen: if they are others by now the change is refused.
        seen: Box<Service>,
        to: Box<Service>,
    },
    RemoveService(Name),
    AddBackend {
        service: Name,
        backend: Backend,
    },
    RemoveBackend {
        service: Name,
        backend: Name,
    },
    SetWeight {
        service: Name,
        backend: Name,
        weight: u16,
    },
    SetAdmin {
        service: Name,
        backend: Name,
        admin: Admin,
    },
    /// Takes back what was set over a backend.
    Reset {
        service: Name,
        backend: Name,
    },
    /// Lets the network know of VIPs, or not.
    Announce {
        /// `None`: all of them.
        vip: Option<IpAddr>,
        on: bool,
    },
}

impl Edit {
    /// What is kept after this change.
    pub(super) fn apply(
        &self,
        declared: &BTreeMap<Name, Service>,
        kept: &Kept,
        left_out: &BTreeMap<Name, Vec<LeftOut>>,
    ) -> Result<Kept, Rejected> {
        let mut edited = Edited { declared, left_out, kept: kept.clone() };
        match self {
            Self::AddService(service) => edited.add_service(service)?,
            Self::SetService { seen, to } => edited.set_service(seen, to)?,
            Self::RemoveService(name) => edited.remove_service(name)?,
            Self::AddBackend { service, backend } => edited.add_backend(service, backend)?,
            Self::RemoveBackend { service, backend } => edited.remove_backend(service, backend)?,
            Self::SetWeight { service, backend, weight } => edited.set_weight(service, backend, *weight)?,
            Self::SetAdmin { service, backend, admin } => {
                edited.find_backend(service, backend)?;
                let admin = Some(*admin).filter(|admin| *admin != Admin::Active);
                let over = Override { admin, ..edited.kept.over(service, backend) };
                edited.kept.set_over(service, backend, over);
            }
            Self::Announce { vip, on } => edited.announce(*vip, *on)?,
            Self::Reset { service, backend } => {
                edited.find_backend(service, backend)?;
                edited.kept.set_over(service, backend, Override::default());
            }
        }
        Ok(edited.kept)
    }

    /// As [`Self::apply`], where the API has made everything there is.
    pub(crate) fn apply_to_made(
        &self,
        made: &Kept,
        left_out: &BTreeMap<Name, Vec<LeftOut>>,
    ) -> Result<Kept, Rejected> {
        self.apply(&BTreeMap::new(), made, left_out)
    }

    /// The service that it is about, if it is about one.
    pub fn service(&self) -> Option<&Name> {
        Some(match self {
            Self::Announce { .. } => return None,
            Self::AddService(service) => &service.name,
            Self::SetService { seen, .. } => &seen.name,
            Self::RemoveService(service)
            | Self::AddBackend { service, .. }
            | Self::RemoveBackend { service, .. }
            | Self::SetWeight { service, .. }
            | Self::SetAdmin { service, .. }
            | Self::Reset { service, .. } => service,
        })
    }

    /// Backends whose existing flows end with this change.
    pub(super) fn cuts(&self) -> Option<(&Name, &Name)> {
        match self {
            Self::RemoveBackend { service, backend } => Some((service, backend)),
            _ => None,
        }
    }
}

struct Edited<'a> {
    declared: &'a BTreeMap<Name, Service>,
    left_out: &'a BTreeMap<Name, Vec<LeftOut>>,
    kept: Kept,
}

impl Edited<'_> {
    fn add_service(&mut self, service: &Service) -> Result<(), Rejected> {
        let name = &service.name;
        if let Some(declared) = self.declared.get(name) {
            return Err(exists("name", format!("service {name} is declared at {}", declared.origin)));
        }
        // Backends that were added one by one are no difference where the request names none.
        let same = |known: &Service| match service.backends.is_empty() {
            true => bare(known) == bare(service),
            false => known == service,
        };
        match self.kept.services.get(name) {
            Some(known) if same(known) => Ok(()),
            Some(_) => Err(exists("name", format!("there already is a service {name} with other settings"))),
            None => {
                self.kept.services.insert(name.clone(), Service::clone(service));
                Ok(())
            }
        }
    }

    fn set_service(&mut self, seen: &Service, to: &Service) -> Result<(), Rejected> {
        let name = &seen.name;
        self.owned_service(name, "its settings can't be set over what the file says")?;
        let service = self.kept.services.get_mut(name).ok_or_else(|| no_service(name))?;
        if bare(service) != bare(seen) {
            return Err(Rejected::Outdated { what: format!("service {name}") });
        }
        // Their flows live by state that no other mode has.
        let translates = seen.forwarding.translates() || to.forwarding.translates();
        let fixed: [(&str, bool); 6] = [
            ("name", seen.name != to.name),
            ("address", seen.vip != to.vip),
            ("protocol", seen.protocol != to.protocol),
            ("algorithm", seen.algorithm != to.algorithm),
            ("table_size", seen.table_size != to.table_size),
            ("forwarding", translates && seen.forwarding != to.forwarding),
        ];
        if let Some((field, _)) = fixed.into_iter().find(|(_, differs)| *differs) {
            let limits = if field == "forwarding" { " to or from dnat and nat" } else { "" };
            let message = format!(
                "the {field} of a service can't change{limits}: remove service {name} and add another"
            );
            return Err(Rejected::Invalid { field: field.to_owned(), message });
        }
        let backends = std::mem::take(&mut service.backends);
        *service = Service { backends, ..to.clone() };
        Ok(())
    }

    fn remove_service(&mut self, name: &Name) -> Result<(), Rejected> {
        self.owned_service(name, "remove it from the file and reload")?;
        self.kept.services.remove(name).ok_or_else(|| no_service(name))?;
        self.kept.overrides.remove(name);
        Ok(())
    }

    fn add_backend(&mut self, service: &Name, backend: &Backend) -> Result<(), Rejected> {
        let name = &backend.name;
        if let Ok(known) = self.find_backend(service, name) {
            let same = known.address == backend.address
                && (known.weight, known.backup) == (backend.weight, backend.backup);
            return match &known.origin {
                made if made.is_made() && same => Ok(()),
                made if made.is_made() => {
                    let what = format!(
                        "there already is a backend {name} at {} in service {service}",
                        known.address
                    );
                    Err(exists("name", what))
                }
                declared @ Origin::File { .. } => Err(exists(
                    "name",
                    format!("backend {name} of service {service} is declared at {declared}"),
                )),
                found => {
                    Err(exists("name", format!("backend {name} of service {service} was found: {found}")))
                }
            };
        }
        self.check_found(service, backend)?;
        let backends = match self.kept.services.get_mut(service) {
            Some(made) => &mut made.backends,
            None if self.declared.contains_key(service) => {
                self.kept.backends.entry(service.clone()).or_default()
            }
            None => return Err(no_service(service)),
        };
        backends.insert(name.clone(), backend.clone());
        Ok(())
    }

    fn remove_backend(&mut self, service: &Name, name: &Name) -> Result<(), Rejected> {
        let known = self.find_backend(service, name)?;
        if let Origin::File { .. } = known.origin {
            return Err(Rejected::Owned {
                field: "backend",
                message: format!(
                    "backend {name} of service {service} is declared at {}: remove it from the file and reload, or \
                     disable it here",
                    known.origin
                ),
            });
        }
        if known.origin.is_found() {
            return Err(Rejected::Owned {
                field: "backend",
                message: format!(
                    "backend {name} of service {service} is there because it was found ({}): it goes when it is not found \
                     there any more; disable it here",
                    known.origin
                ),
            });
        }
        if let Some(made) = self.kept.services.get_mut(service) {
            made.backends.remove(name);
        }
        if let Some(added) = self.kept.backends.get_mut(service) {
            added.remove(name);
            if added.is_empty() {
                self.kept.backends.remove(service);
            }
        }
        self.kept.set_over(service, name, Override::default());
        Ok(())
    }

    fn set_weight(&mut self, service: &Name, name: &Name, weight: u16) -> Result<(), Rejected> {
        let known = self.find_backend(service, name)?;
        if !known.origin.is_made() {
            // What the file says needs no override. What a source says may be another thing tomorrow.
            let same = weight == known.weight && !known.origin.is_found();
            let over = Some(weight).filter(|_| !same);
            let over = Override { weight: over, ..self.kept.over(service, name) };
            self.kept.set_over(service, name, over);
            return Ok(());
        }
        let made = self.kept.services.get_mut(service).map(|service| &mut service.backends);
        let backends = made.or_else(|| self.kept.backends.get_mut(service));
        if let Some(backend) = backends.and_then(|backends| backends.get_mut(name)) {
            backend.weight = weight;
        }
        Ok(())
    }

    fn announce(&mut self, vip: Option<IpAddr>, on: bool) -> Result<(), Rejected> {
        let off = &mut self.kept.announce_off;
        match (vip, on) {
            (None, true) => *off = AnnounceOff::default(),
            (None, false) => off.all = true,
            (Some(vip), true) if off.all => {
                return Err(Rejected::Invalid {
                    field: "vip".to_owned(),
                    message: format!("all VIPs are off, and not {vip} alone: put them all on again"),
                });
            }
            (Some(vip), true) => drop(off.vips.remove(&vip)),
            (Some(vip), false) => {
                let mut services = self.declared.values().chain(self.kept.services.values());
                if !services.any(|service| service.vip.address == vip) {
                    let message = format!("no service has the VIP {vip}");
                    return Err(Rejected::Invalid { field: "vip".to_owned(), message });
                }
                self.kept.announce_off.vips.insert(vip);
            }
        }
        Ok(())
    }

    /// Backends that were found and are in their service.
    fn found(&self, service: &Name) -> impl Iterator<Item = &Backend> {
        let left_out = self.left_out.get(service).map_or(&[][..], Vec::as_slice);
        let is_in = move |source: &Source, backend: &Backend| {
            !left_out.iter().any(|out| (&out.source, &out.name) == (source, &backend.name))
        };
        let sources = self.kept.found.get(service).into_iter().flatten();
        sources.flat_map(move |(source, found)| found.values().filter(move |backend| is_in(source, backend)))
    }

    /// One that is found there has its flows, which nobody would want to end for a name.
    fn check_found(&self, service: &Name, backend: &Backend) -> Result<(), Rejected> {
        let Some(declared) = self.declared.get(service).or_else(|| self.kept.services.get(service)) else {
            return Ok(());
        };
        let place = declared.place_of(backend.address);
        match self.found(service).find(|found| declared.place_of(found.address) == place) {
            None => Ok(()),
            Some(Backend { name, origin, .. }) => Err(exists(
                "address",
                format!("backend {name} of service {service} was found there: {origin}"),
            )),
        }
    }

    fn owned_service(&self, name: &Name, instead: &str) -> Result<(), Rejected> {
        match self.declared.get(name) {
            None => Ok(()),
            Some(declared) => Err(Rejected::Owned {
                field: "service",
                message: format!("service {name} is declared at {}: {instead}", declared.origin),
            }),
        }
    }

    /// As it was declared or made, without what was set over it.
    fn find_backend(&self, service: &Name, name: &Name) -> Result<Backend, Rejected> {
        let known = self.declared.get(service).or_else(|| self.kept.services.get(service));
        let known = known.ok_or_else(|| no_service(service))?;
        let added = || self.kept.backends.get(service)?.get(name);
        let found = || self.found(service).find(|found| found.name == *name);
        let backend = known.backends.get(name).or_else(added).or_else(found);
        backend.cloned().ok_or_else(|| Rejected::Missing { what: "backend", name: name.clone() })
    }
}

/// Its settings alone.
fn bare(service: &Service) -> Service {
    Service { backends: BTreeMap::new(), ..service.clone() }
}

fn no_service(name: &Name) -> Rejected {
    Rejected::Missing { what: "service", name: name.clone() }
}

fn exists(field: &'static str, message: String) -> Rejected {
    Rejected::Exists { field, message }
}
