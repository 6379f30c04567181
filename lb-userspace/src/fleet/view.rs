//! What a member knows of its fleet, for all who ask.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{
    book::{Book, Entry, Event, Refused, Revision, Rules},
    keys::Key,
    marks::{Mark, judge},
    member::Record,
    permit::{Bond, Held, Leave, Wish},
};
use crate::domain::Name;

/// Who this member is, and what it knows. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Views {
    pub member: Name,
    pub rules: Arc<Rules>,
    views: Arc<watch::Sender<View>>,
    wishes: Arc<watch::Sender<Wish>>,
}

/// What is known at one moment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct View {
    /// As etcd had it when it was heard of last.
    pub book: Book,
    /// [`Book::revision`] of the book whose services are live.
    pub live: Revision,
    /// How many these are.
    pub live_services: usize,
    /// Which fleet they are of, if any is live.
    pub fleet: Option<String>,
    /// Why those of `book` are not.
    pub trouble: Option<String>,
    /// [`Book::revision`] of the book that was made live, or refused, last.
    pub tried: Revision,
    /// Every member that etcd has heard of lately.
    pub members: Arc<BTreeMap<Name, Member>>,
    /// Members that have leave to be off the network for want of backends.
    pub permits: Arc<BTreeMap<Name, Held>>,
    /// What this member's permit and its sign of life are bound to.
    pub bond: Option<Bond>,
    /// Why the others don't hear of this member, though etcd answers.
    pub unheard: Option<String>,
    /// Why etcd gave no leave when it was asked for it.
    pub unpermitted: Option<String>,
    pub link: Link,
    /// When etcd answered last.
    pub heard: Instant,
}

/// A member as it wrote itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub record: Record,
    /// Of its last change.
    pub revision: Revision,
}

/// Whether etcd can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    Connected {
        endpoint: String,
        since: Instant,
    },
    CutOff {
        /// Empty: not asked yet.
        why: String,
        since: Instant,
    },
}

impl Views {
    /// Nothing is known but what was kept.
    pub fn new(member: Name, rules: Rules, book: Book) -> Self {
        let now = Instant::now();
        let view = View {
            book,
            live: 0,
            live_services: 0,
            fleet: None,
            trouble: None,
            tried: 0,
            members: Arc::default(),
            permits: Arc::default(),
            bond: None,
            unheard: None,
            unpermitted: None,
            link: Link::CutOff { why: String::new(), since: now },
            heard: now,
        };
        Self {
            member,
            rules: Arc::new(rules),
            views: Arc::new(watch::Sender::new(view)),
            wishes: Arc::default(),
        }
    }

    pub fn now(&self) -> View {
        self.views.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<View> {
        self.views.subscribe()
    }

    /// Whether this member may be off the network for want of backends.
    pub fn leave(&self) -> Leave {
        self.views.borrow().leave(&self.member, Instant::now())
    }

    /// What this member wishes of the fleet from now on.
    pub fn wish(&self, wish: Wish) {
        self.wishes.send_if_modified(|known| {
            let is_news = *known != wish;
            *known = wish;
            is_news
        });
    }

    pub fn wishes(&self) -> watch::Receiver<Wish> {
        self.wishes.subscribe()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut View)) {
        self.views.send_modify(change);
    }
}

impl View {
    pub fn is_connected(&self) -> bool {
        matches!(self.link, Link::Connected { .. })
    }

    /// Why nothing can be asked, in words; `None` where it can.
    pub fn cut_off(&self) -> Option<String> {
        let Link::CutOff { why, since } = &self.link else { return None };
        Some(match why.is_empty() {
            true => "etcd has not answered yet".to_owned(),
            false => format!("cut off from etcd for {} s: {why}", since.elapsed().as_secs()),
        })
    }

    /// Time since etcd answered last.
    pub fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    pub fn refused(&self, rules: &Rules) -> Vec<Refused> {
        self.book.refused(&rules.keys)
    }

    /// Everything that is not as it should be, by member.
    pub fn marks(&self) -> BTreeMap<Name, Vec<Mark>> {
        let records = self.members.iter().map(|(name, member)| (name.clone(), member.record.clone()));
        judge(&records.collect(), self.book.revision())
    }

    /// After a look at everything that etcd has.
    pub(super) fn list(&mut self, entries: &[Entry], rules: &Rules) {
        self.book = self.book.listed(entries, rules);
        (self.members, self.permits) = (Arc::default(), Arc::default());
        self.unpermitted = None;
        entries.iter().for_each(|entry| self.put(entry, rules));
    }

    /// After these changes. Returns whether services may be among them.
    pub(super) fn follow(&mut self, events: &[Event], rules: &Rules) -> bool {
        let before = self.book.clone();
        self.book = self.book.after(events, rules);
        for event in events {
            match event {
                Event::Put(entry) => self.put(entry, rules),
                Event::Deleted { key } => match rules.keys.parse(key) {
                    Key::Member(name) => drop(Arc::make_mut(&mut self.members).remove(name)),
                    Key::Permit(name) => drop(Arc::make_mut(&mut self.permits).remove(name)),
                    _ => {}
                },
            }
        }
        self.book != before
    }

    /// What is no document. What is none of ours says nothing, and is there all the same.
    fn put(&mut self, entry: &Entry, rules: &Rules) {
        let Entry { key, value, revision } = entry;
        match rules.keys.parse(key) {
            Key::Member(name) => {
                let member = || Member { record: read(value), revision: *revision };
                insert(&mut self.members, name, member);
            }
            Key::Permit(name) => {
                insert(&mut self.permits, name, || Held { permit: read(value), revision: *revision });
            }
            _ => {}
        }
    }
}

fn read<T: DeserializeOwned + Default>(value: &[u8]) -> T {
    serde_json::from_slice(value).unwrap_or_default()
}

fn insert<T: Clone>(known: &mut Arc<BTreeMap<Name, T>>, name: &str, of: impl FnOnce() -> T) {
    if let Ok(name) = name.parse() {
        Arc::make_mut(known).insert(name, of());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::testing::name, fleet::keys::Keys};

    fn entry(key: &str, value: &str, revision: Revision) -> Entry {
        Entry { key: format!("/ballast/{key}"), value: value.as_bytes().to_vec(), revision }
    }

    #[test]
    fn members_come_and_go_without_a_word_about_services() {
        let rules = Rules { keys: Keys::new("/ballast"), local_files: false };
        let views = Views::new(name("lb-1"), rules.clone(), Book::default());
        let mut view = views.now();
        view.list(&[entry("members/lb-1", r#"{"revision": 3}"#, 5)], &rules);
        assert_eq!(view.members[&name("lb-1")].record.revision, 3);
        let come = Event::Put(entry("members/lb-2", "garbage", 7));
        let gone = Event::Deleted { key: "/ballast/members/lb-1".to_owned() };
        assert!(!view.follow(&[come, gone], &rules));
        assert_eq!(view.members.keys().map(Name::as_str).collect::<Vec<_>>(), ["lb-2"]);
        assert!(view.follow(&[Event::Put(entry("fleet", "version = 1\nid = \"a\"", 8))], &rules));
    }
}
