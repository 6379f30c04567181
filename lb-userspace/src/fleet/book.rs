//! What etcd says the services are, and of each document that makes no sense what it said before. Pure.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use super::keys::{Key, Keys};
use crate::{
    config::{
        FleetConfig,
        document::{Document, Reading},
    },
    domain::{Name, Override, Service},
};

/// A revision of etcd. 0: none.
pub type Revision = i64;

/// A key with its value, as etcd has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    /// Of its last change.
    pub revision: Revision,
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put(Entry),
    Deleted { key: String },
}

/// How documents are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub keys: Keys,
    /// See [`Reading::local_files`].
    pub local_files: bool,
}

impl Rules {
    pub fn of(config: &FleetConfig) -> Self {
        Self { keys: Keys::new(config.prefix.clone()), local_files: config.local_files }
    }
}

/// All documents. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    head: Option<Head>,
    /// By the last part of their keys.
    pages: BTreeMap<String, Arc<Page>>,
}

/// The key that says that there is a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    revision: Revision,
    /// Which one it is, or why it is none that this version understands.
    id: Result<String, String>,
}

/// A document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// As etcd has it.
    pub revision: Revision,
    /// Of the last that made sense.
    pub good: Option<Good>,
    /// Why what etcd has makes none, with the place.
    pub wrong: Option<String>,
}

/// A document that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Good {
    pub revision: Revision,
    pub text: String,
    pub document: Document,
}

/// What a member is to make live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    pub services: BTreeMap<Name, Service>,
    /// What is set over backends, by service.
    pub overrides: BTreeMap<Name, BTreeMap<Name, Override>>,
}

/// A document that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub key: String,
    pub revision: Revision,
    /// With the place.
    pub why: String,
    /// Whether an earlier version of it goes on.
    pub goes_on: bool,
}

impl Book {
    /// The book of a fleet whose head and pages these are: what a member kept.
    pub fn of(
        revision: Revision,
        id: impl Into<String>,
        pages: impl IntoIterator<Item = (String, Good)>,
    ) -> Self {
        let page = |(name, good): (String, Good)| {
            (name, Arc::new(Page { revision: good.revision, good: Some(good), wrong: None }))
        };
        Self {
            head: Some(Head { revision, id: Ok(id.into()) }),
            pages: pages.into_iter().map(page).collect(),
        }
    }

    /// The book after a look at everything that etcd has.
    #[must_use]
    pub fn listed<'a>(&self, entries: impl IntoIterator<Item = &'a Entry>, rules: &Rules) -> Self {
        let mut next = Self::default();
        for entry in entries {
            match rules.keys.parse(&entry.key) {
                Key::Head => next.head = Some(Head::read(entry)),
                Key::Service(name) => {
                    let page = Page::after(self.pages.get(name), name, entry, rules);
                    next.pages.insert(name.to_owned(), page);
                }
                _ => {}
            }
        }
        next
    }

    /// The book after these changes, in their order.
    #[must_use]
    pub fn after<'a>(&self, events: impl IntoIterator<Item = &'a Event>, rules: &Rules) -> Self {
        let mut next = self.clone();
        for event in events {
            match event {
                Event::Put(entry) => match rules.keys.parse(&entry.key) {
                    Key::Head => next.head = Some(Head::read(entry)),
                    Key::Service(name) => {
                        let page = Page::after(next.pages.get(name), name, entry, rules);
                        next.pages.insert(name.to_owned(), page);
                    }
                    _ => {}
                },
                Event::Deleted { key } => match rules.keys.parse(key) {
                    Key::Head => next.head = None,
                    Key::Service(name) => drop(next.pages.remove(name)),
                    _ => {}
                },
            }
        }
        next
    }

    /// Whether etcd has a fleet there, and if one is `known` that one.
    ///
    /// # Errors
    ///
    /// Why not, for people.
    pub fn check(&self, keys: &Keys, known: Option<&str>) -> Result<(), String> {
        let key = keys.head();
        match (self.head.as_ref().map(|head| &head.id), known) {
            (None, _) => Err(format!(
                "etcd has no {key}: there is no fleet, or its data is lost; `ballast fleet import` or the first \
                 `ballast service add` of a member that never had services makes one"
            )),
            (Some(Err(wrong)), _) => Err(format!("{key}: {wrong}")),
            (Some(Ok(id)), Some(known)) if id != known => Err(format!(
                "{key} is another fleet's ({id}) than the one that runs here ({known}): `ballast fleet import --replace` on a member \
                 restores that one; to join the other one, stop this daemon, remove its fleet.toml and start it"
            )),
            (Some(Ok(_)), _) => Ok(()),
        }
    }

    /// Which fleet it is; `None` where it is none.
    pub fn id(&self) -> Option<&str> {
        self.head.as_ref()?.id.as_deref().ok()
    }

    /// Of the last change of services. Two books with the same documents have the same.
    pub fn revision(&self) -> Revision {
        let pages = self.pages.values().map(|page| page.revision);
        pages.chain([self.head_revision()]).max().unwrap_or_default()
    }

    /// Of the key that each change writes; 0 where there is none.
    pub fn head_revision(&self) -> Revision {
        self.head.as_ref().map_or(0, |head| head.revision)
    }

    pub fn page(&self, name: &str) -> Option<&Page> {
        self.pages.get(name).map(|page| &**page)
    }

    /// Everything that makes sense, or did.
    pub fn declared(&self) -> Declared {
        let mut declared = Declared::default();
        for Good { document, .. } in self.pages.values().filter_map(|page| page.good.as_ref()) {
            let name = &document.service.name;
            declared.services.insert(name.clone(), document.service.clone());
            if !document.overrides.is_empty() {
                declared.overrides.insert(name.clone(), document.overrides.clone());
            }
        }
        declared
    }

    /// What makes sense, or did, by the last part of its key.
    pub fn good(&self) -> impl Iterator<Item = (&str, &Good)> {
        self.pages.iter().filter_map(|(name, page)| Some((name.as_str(), page.good.as_ref()?)))
    }

    pub fn refused(&self, keys: &Keys) -> Vec<Refused> {
        let refused = |(name, page): (&String, &Arc<Page>)| {
            let why = page.wrong.clone()?;
            Some(Refused {
                key: keys.service(name),
                revision: page.revision,
                why,
                goes_on: page.good.is_some(),
            })
        };
        self.pages.iter().filter_map(refused).collect()
    }
}

impl Head {
    /// The text that says which version a fleet is of, and which one it is.
    fn read(entry: &Entry) -> Self {
        let text = String::from_utf8_lossy(&entry.value);
        let id = match toml::from_str::<WrittenHead>(&text) {
            Ok(WrittenHead { version: VERSION, id }) => Ok(id),
            Ok(WrittenHead { version, .. }) => Err(format!(
                "a fleet of version {version}, and this Ballast knows {VERSION}; an upgrade of this member may help"
            )),
            Err(error) => Err(format!("it makes no sense: {}", error.message())),
        };
        Self { revision: entry.revision, id }
    }
}

/// What the head of a fleet says.
///
/// # Errors
///
/// What can't be written as TOML.
pub fn head(id: &str) -> Result<String, toml::ser::Error> {
    toml::to_string(&WrittenHead { version: VERSION, id: id.to_owned() })
}

/// What tells a new fleet from every other.
pub fn new_id() -> String {
    format!("{:016x}", fastrand::u64(..))
}

#[derive(Serialize, Deserialize)]
struct WrittenHead {
    version: u32,
    id: String,
}

impl Page {
    /// What becomes of a page that etcd has like this.
    fn after(before: Option<&Arc<Self>>, name: &str, entry: &Entry, rules: &Rules) -> Arc<Self> {
        // An etcd that was restored from a backup gives revisions again.
        let is_same = |page: &&Arc<Self>| {
            let good = page.good.as_ref().filter(|good| good.revision == entry.revision);
            page.wrong.is_none() && good.is_some_and(|good| good.text.as_bytes() == entry.value)
        };
        if let Some(before) = before.filter(is_same) {
            return Arc::clone(before);
        }
        let revision = entry.revision;
        Arc::new(match read(name, entry, rules) {
            Ok(good) => Self { revision, good: Some(good), wrong: None },
            Err(wrong) => {
                let good = before.and_then(|before| before.good.clone());
                Self { revision, good, wrong: Some(wrong) }
            }
        })
    }
}

/// # Errors
///
/// What is wrong, and where.
fn read(name: &str, entry: &Entry, rules: &Rules) -> Result<Good, String> {
    let text = String::from_utf8(entry.value.clone()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("{}: byte {at} is no UTF-8", entry.key)
    })?;
    let name: Name =
        name.parse().map_err(|error| format!("{}: not the name of a service: {error}", entry.key))?;
    let reading = Reading { name: &name, local_files: rules.local_files };
    let place = PathBuf::from(&entry.key);
    match Document::read(place, text.clone(), reading) {
        Ok(document) => Ok(Good { revision: entry.revision, text, document }),
        Err(diagnostics) => Err(diagnostics.to_string()),
    }
}

/// Of what a fleet has in etcd.
const VERSION: u32 = 1;

#[cfg(test)]
mod tests;
