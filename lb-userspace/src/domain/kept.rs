use std::{collections::BTreeMap, sync::Arc};

use super::{Admin, AnnounceOff, Backend, Name, Service, Source};

/// What no configuration file says and a restart shall not forget, as the state directory keeps it: what was made and
/// changed over the API, and what was found last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Services that no file declares.
    pub services: BTreeMap<Name, Service>,
    /// Backends added to declared services, by service.
    pub backends: BTreeMap<Name, BTreeMap<Name, Backend>>,
    /// What was set over backends, whoever made them, by service.
    pub overrides: BTreeMap<Name, BTreeMap<Name, Override>>,
    /// The last good answer of each source of a service. None is empty.
    pub found: BTreeMap<Name, BTreeMap<Source, Found>>,
    /// Also of VIPs that are gone: they may come back.
    pub announce_off: AnnounceOff,
}

/// The backends that a source found.
pub type Found = Arc<BTreeMap<Name, Backend>>;

/// What holds instead of what a backend was made with, until it is reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Override {
    pub weight: Option<u16>,
    pub admin: Option<Admin>,
}

impl Kept {
    /// What a source of a service answered last, if it ever did.
    pub fn found(&self, service: &Name, source: &Source) -> Option<&Found> {
        self.found.get(service)?.get(source)
    }

    pub fn over(&self, service: &Name, backend: &Name) -> Override {
        self.overrides.get(service).and_then(|of| of.get(backend)).copied().unwrap_or_default()
    }

    /// An override that says nothing is none.
    pub fn set_over(&mut self, service: &Name, backend: &Name, to: Override) {
        if to != Override::default() {
            self.overrides.entry(service.clone()).or_default().insert(backend.clone(), to);
            return;
        }
        if let Some(of) = self.overrides.get_mut(service) {
            of.remove(backend);
            if of.is_empty() {
                self.overrides.remove(service);
            }
        }
    }
}

impl Override {
    /// The settings it changes, by their names in the API.
    pub fn names(self) -> Vec<&'static str> {
        let weight = self.weight.map(|_| "weight");
        weight.into_iter().chain(self.admin.map(|_| "admin")).collect()
    }
}
