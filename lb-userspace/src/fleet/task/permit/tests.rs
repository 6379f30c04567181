//! Members with eyes of different age ask one etcd for leave.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    domain::testing::name,
    fleet::{
        book::{Book, Entry, Event, Revision},
        keys::Keys,
        member::Record,
        permit::{Bond, Leave, limit},
        view::{Link, Views},
    },
};

/// What etcd has, and everything that has happened there.
#[derive(Default)]
struct Store {
    entries: BTreeMap<String, Entry>,
    events: Vec<Event>,
    revision: Revision,
}

impl Store {
    fn put(&mut self, key: &str, value: &str) {
        self.revision += 1;
        let entry = Entry { key: key.to_owned(), value: value.as_bytes().to_vec(), revision: self.revision };
        self.entries.insert(key.to_owned(), entry.clone());
        self.events.push(Event::Put(entry));
    }

    fn delete(&mut self, key: &str) {
        if self.entries.remove(key).is_some() {
            self.revision += 1;
            self.events.push(Event::Deleted { key: key.to_owned() });
        }
    }

    /// Returns whether it was done.
    fn transact(&mut self, compare: &Compare, operation: &Operation) -> bool {
        let holds = match compare {
            Compare::At { key, revision } => self.entries.get(key).map_or(0, |one| one.revision) == *revision,
            Compare::NoneAfter { prefix, revision } => {
                self.entries.values().all(|one| !one.key.starts_with(prefix) || one.revision <= *revision)
            }
        };
        match operation {
            _ if !holds => {}
            Operation::Put { key, value, .. } => self.put(key, value),
            Operation::Delete { key } => self.delete(key),
        }
        holds
    }

    fn permits(&self) -> usize {
        self.entries.keys().filter(|key| key.contains("/withdrawals/")).count()
    }
}

struct Peer {
    name: Name,
    lease: Lease,
    view: View,
    /// Events that it has heard of.
    heard: usize,
    wish: Wish,
}

#[derive(Clone, Debug)]
enum Step {
    /// Whether backends are missing there.
    Lacks(usize, bool),
    Hears(usize, usize),
    /// It looks whether it has leave, and goes or comes back.
    Looks(usize),
    Acts(usize),
    /// Its lease ends, and a daemon of the same name starts.
    Restarts(usize),
    /// It is on the network or not, for what is its own fault.
    Announces(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..12_usize;
    prop_oneof![
        3 => (who.clone(), prop::bool::weighted(0.8)).prop_map(|(who, lacks)| Step::Lacks(who, lacks)),
        4 => (who.clone(), 1..6_usize).prop_map(|(who, count)| Step::Hears(who, count)),
        4 => who.clone().prop_map(Step::Looks),
        4 => who.clone().prop_map(Step::Acts),
        1 => who.clone().prop_map(Step::Restarts),
        1 => (who, any::<bool>()).prop_map(|(who, announces)| Step::Announces(who, announces)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// However late they hear of each other: nobody is off the network without a permit that etcd has, and whoever gets one
    /// is, with the others, no more than what may be.
    #[test]
    fn no_more_than_the_limit_have_leave_at_once(
        members in 1..=12_usize,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let rules = Rules { keys: Keys::new("/ballast"), local_files: false };
        let (mut store, now) = (Store::default(), Instant::now());
        let says = |announces| serde_json::to_string(&Record { announces, ..Record::default() }).expect("JSON");
        let mut leases = 1..;
        let mut born = |name: Name| {
            let mut view = Views::new(name.clone(), rules.clone(), Book::default()).now();
            let lease = leases.next().expect("without end");
            view.link = Link::Connected { endpoint: String::new(), since: now };
            view.bond = Some(Bond { lease, until: now + Duration::from_secs(600) });
            Peer { name, lease: Lease::of(lease), view, heard: 0, wish: Wish::default() }
        };
        let mut peers: Vec<_> = (0..members).map(|number| born(name(&format!("lb-{number}")))).collect();
        for peer in &peers {
            store.put(&rules.keys.member(&peer.name), &says(true));
        }
        for step in steps {
            let (Step::Lacks(who, _) | Step::Hears(who, _) | Step::Looks(who) | Step::Acts(who)
                | Step::Restarts(who) | Step::Announces(who, _)) = step;
            let Some(peer) = peers.get_mut(who) else { continue };
            match step {
                Step::Lacks(_, lacks) => peer.wish.permit = lacks || peer.wish.withdrawn,
                Step::Hears(_, count) => {
                    let to = (peer.heard + count).min(store.events.len());
                    peer.view.follow(&store.events[peer.heard..to], &rules);
                    peer.heard = to;
                }
                Step::Looks(_) => {
                    peer.wish.withdrawn = peer.wish.permit && peer.view.leave(&peer.name, now) == Leave::Granted;
                }
                Step::Acts(_) => {
                    let of = (&peer.name, "");
                    let made = transaction(&mut peer.view, &rules, of, &peer.wish, Some(peer.lease));
                    if let Some((compare, operation)) = made.expect("JSON")
                        && store.transact(&compare, &operation)
                        && matches!(operation, Operation::Put { .. })
                    {
                        let may = limit(peer.view.announcing());
                        prop_assert!(store.permits() <= may, "{} have leave of {may}", store.permits());
                    }
                }
                Step::Restarts(_) => {
                    let name = peer.name.clone();
                    store.delete(&rules.keys.permit(&name));
                    *peer = born(name);
                }
                Step::Announces(_, announces) => store.put(&rules.keys.member(&peer.name), &says(announces)),
            }
            for peer in peers.iter().filter(|peer| peer.wish.withdrawn) {
                prop_assert!(store.entries.contains_key(&rules.keys.permit(&peer.name)), "{} has none", peer.name);
            }
        }
        prop_assert!(store.permits() <= limit(members));
        // Once all have heard everything no more are out than those that are left allow.
        let mut out = 0;
        for peer in &mut peers {
            peer.view.follow(&store.events[peer.heard..], &rules);
            out += usize::from(peer.view.leave(&peer.name, now) == Leave::Granted);
            prop_assert!(out <= limit(peer.view.announcing()));
        }
    }
}
