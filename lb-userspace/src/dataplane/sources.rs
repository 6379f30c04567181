//! Source prefixes of services, in lists: pure.
//!
//! A list never changes while the service table names it. Another list is written under another number, the service
//! table leads there, and then the old one is removed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use lb_common::abi::{SOURCE_ALLOW, SOURCE_DENY};

use super::{
    allocate::Exhausted,
    encode::{self, StableId},
};
use crate::domain::{Prefix, Service};

/// A prefix as the maps keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePrefix {
    /// IPv6, or IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// How many bits of it count.
    pub length: u8,
}

/// `SOURCE_*` by prefix.
pub(super) type SourceList = BTreeMap<SourcePrefix, u32>;

/// The lists by their numbers, of which 0 is none.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceLists {
    lists: BTreeMap<u32, Arc<SourceList>>,
    /// What the list of a service was made from, as far as it was made here.
    made_from: HashMap<StableId, Arc<Service>>,
}

impl SourceLists {
    /// What the map holds.
    pub(super) fn restore(entries: Vec<(u32, SourcePrefix, u32)>) -> Self {
        let mut lists: BTreeMap<u32, SourceList> = BTreeMap::new();
        for (list, prefix, verdict) in entries {
            lists.entry(list).or_default().insert(prefix, verdict);
        }
        Self {
            lists: lists.into_iter().map(|(number, list)| (number, Arc::new(list))).collect(),
            made_from: HashMap::new(),
        }
    }

    /// Those that are not among the `named`.
    pub(super) fn without(&self, named: &HashSet<u32>) -> Vec<(u32, Arc<SourceList>)> {
        let unnamed = self.lists.iter().filter(|(number, _)| !named.contains(number));
        unnamed.map(|(number, list)| (*number, Arc::clone(list))).collect()
    }

    pub(super) fn forget(&mut self, number: u32) {
        self.lists.remove(&number);
    }

    /// Adds the list of a service whose list was `number` among those that are `live`. Returns its number.
    pub(super) fn add(&mut self, live: &Self, id: StableId, spec: &Arc<Service>, number: u32) -> u32 {
        if !spec.admission.asks_who() {
            return 0;
        }
        let known = live.lists.get(&number);
        let same = live.made_from.get(&id).is_some_and(|made_from| Arc::ptr_eq(made_from, spec));
        let wanted = match known {
            Some(known) if same => Arc::clone(known),
            _ => Arc::new(list_of(spec)),
        };
        let number = match known {
            Some(known) if *known == wanted => number,
            _ => self.unused(live),
        };
        self.lists.insert(number, wanted);
        self.made_from.insert(id, Arc::clone(spec));
        number
    }

    /// Whether the lists that are `live` and those that these add to them fit together.
    pub(super) fn fit(&self, live: &Self, limit: u32) -> Result<(), Exhausted> {
        let size =
            |lists: &mut dyn Iterator<Item = &Arc<SourceList>>| lists.map(|list| list.len()).sum::<usize>();
        let (there, added) =
            (size(&mut live.lists.values()), size(&mut self.beyond(live).map(|(_, list)| list)));
        match there + added <= limit as usize {
            true => Ok(()),
            false => Err(Exhausted::SourcePrefixes { there, added, limit }),
        }
    }

    /// Lists that the `others` lack.
    pub(super) fn beyond<'a>(&'a self, others: &'a Self) -> impl Iterator<Item = (u32, &'a Arc<SourceList>)> {
        let lists = self.lists.iter().map(|(number, list)| (*number, list));
        lists.filter(|(number, _)| !others.lists.contains_key(number))
    }

    fn unused(&self, live: &Self) -> u32 {
        let used = |number: &u32| self.lists.contains_key(number) || live.lists.contains_key(number);
        (1..u32::MAX).find(|number| !used(number)).unwrap_or(u32::MAX)
    }
}

fn list_of(spec: &Service) -> SourceList {
    let mut list = SourceList::new();
    if !spec.admission.allow.is_empty() {
        let everybody = if spec.vip.address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        list.extend(everybody.parse().ok().map(|all| (source_prefix(all), SOURCE_DENY)));
    }
    list.extend(spec.admission.deny.iter().map(|prefix| (source_prefix(*prefix), SOURCE_DENY)));
    list.extend(spec.admission.allow.iter().map(|prefix| (source_prefix(*prefix), SOURCE_ALLOW)));
    list
}

fn source_prefix(prefix: Prefix) -> SourcePrefix {
    let (address, length) = encode::mapped_prefix(prefix);
    SourcePrefix { address, length }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Admission, testing};

    fn service(allow: &[&str], deny: &[&str]) -> Arc<Service> {
        let prefixes = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a prefix")).collect();
        let admission = Admission { allow: prefixes(allow), deny: prefixes(deny), new_flow_rate: 0 };
        Arc::new(Service { admission, ..testing::service("web", &[]) })
    }

    fn only(spec: &Arc<Service>) -> Vec<(u8, u32)> {
        list_of(spec).into_iter().map(|(prefix, verdict)| (prefix.length, verdict)).collect()
    }

    #[test]
    fn whoever_is_not_among_those_allowed_is_denied() {
        assert_eq!(only(&service(&[], &["10.0.0.0/8"])), [(104, SOURCE_DENY)]);
        let some = service(&["10.1.0.0/16"], &["10.0.0.0/8"]);
        assert_eq!(only(&some), [(96, SOURCE_DENY), (104, SOURCE_DENY), (112, SOURCE_ALLOW)]);
        assert_eq!(some.admission.prefixes(), 3);
        let all = service(&["0.0.0.0/0"], &["10.0.0.0/8"]);
        assert_eq!(only(&all), [(96, SOURCE_ALLOW), (104, SOURCE_DENY)]);
        assert_eq!(all.admission.prefixes(), 2);
        let mut v6 = Service::clone(&service(&["2001:db8::/32"], &[]));
        v6.vip.address = "2001:db8::10".parse().expect("an address");
        assert_eq!(only(&Arc::new(v6)), [(0, SOURCE_DENY), (32, SOURCE_ALLOW)]);
    }

    #[test]
    fn a_list_keeps_its_number_until_it_changes_and_another_is_new() {
        let (id, before, after) = ([1; 16], service(&["10.0.0.0/8"], &[]), service(&["10.0.0.0/9"], &[]));
        let mut live = SourceLists::default();
        assert_eq!(live.add(&SourceLists::default(), id, &before, 0), 1);
        // As a restarted controller finds it.
        let entries = list_of(&before).into_iter().map(|(prefix, verdict)| (1, prefix, verdict));
        let found = SourceLists::restore(entries.collect());
        assert_eq!(SourceLists::default().add(&found, id, &before, 1), 1);
        let mut next = SourceLists::default();
        assert_eq!(next.add(&live, id, &after, 1), 2);
        assert_eq!(next.add(&live, [2; 16], &before, 0), 3);
        assert_eq!(next.beyond(&live).map(|(number, _)| number).collect::<Vec<_>>(), [2, 3]);
        assert!(next.fit(&live, 6).is_ok());
        assert_eq!(next.fit(&live, 5), Err(Exhausted::SourcePrefixes { there: 2, added: 4, limit: 5 }));
        assert_eq!(next.add(&live, id, &service(&[], &[]), 1), 0);
    }
}
