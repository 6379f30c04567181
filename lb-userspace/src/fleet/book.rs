//! What etcd says the services are, and of each document that makes no sense what it said before. Pure.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::keys::{Key, Keys};
use crate::{
    config::document::{Document, Reading},
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
    /// Why it is no fleet that this version understands.
    wrong: Option<String>,
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
    pub fn of(head: Revision, pages: impl IntoIterator<Item = (String, Good)>) -> Self {
        let page = |(name, good): (String, Good)| {
            (name, Arc::new(Page { revision: good.revision, good: Some(good), wrong: None }))
        };
        Self {
            head: (head > 0).then_some(Head { revision: head, wrong: None }),
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

    /// Whether etcd has a fleet there.
    ///
    /// # Errors
    ///
    /// Why this is none, or none that this version understands.
    pub fn check(&self, keys: &Keys) -> Result<(), String> {
        match &self.head {
            None => Err(format!(
                "etcd has no {}: there is no fleet, or its data is lost; `ballast fleet import` or the first `ballast service add` \
                 of a member without services makes one",
                keys.head()
            )),
            Some(Head { wrong: Some(wrong), .. }) => Err(format!("{}: {wrong}", keys.head())),
            Some(_) => Ok(()),
        }
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
    /// The text that says which version a fleet is of.
    fn read(entry: &Entry) -> Self {
        let text = String::from_utf8_lossy(&entry.value);
        let wrong = match text.trim() {
            HEAD => None,
            other => Some(format!(
                "it says {:?} where this version writes {HEAD:?}; an upgrade of this member may help",
                other.chars().take(MAX_QUOTED).collect::<String>()
            )),
        };
        Self { revision: entry.revision, wrong }
    }
}

impl Page {
    /// What becomes of a page that etcd has like this.
    fn after(before: Option<&Arc<Self>>, name: &str, entry: &Entry, rules: &Rules) -> Arc<Self> {
        if let Some(before) = before.filter(|before| before.revision == entry.revision) {
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

/// What the head says.
pub(super) const HEAD: &str = "version = 1";
const MAX_QUOTED: usize = 40;

#[cfg(test)]
mod tests;
