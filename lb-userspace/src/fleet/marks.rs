//! Which members are not as the others are. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{book::Revision, member::Record};
use crate::domain::Name;

/// What is not as it should be with a member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// It has not made the last change of services live.
    Behind,
    /// It has, and maps clients in another way than most. With the services, as far as they are known.
    Tables(Vec<String>),
    /// It hashes flows with another key than most.
    Key,
    /// It is not attached everywhere.
    NotReady,
    /// It refuses documents.
    Refuses(usize),
}

impl Mark {
    /// A word for programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Tables(_) => "tables",
            Self::Key => "key",
            Self::NotReady => "not_ready",
            Self::Refuses(_) => "refuses",
        }
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Behind => f.write_str("behind"),
            Self::Tables(services) if services.is_empty() => f.write_str("other tables"),
            Self::Tables(services) => {
                let more = services.len().saturating_sub(MAX_NAMED);
                write!(f, "other tables: {}", services[..services.len() - more].join(", "))?;
                if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
            }
            Self::Key => f.write_str("another hash key"),
            Self::NotReady => f.write_str("not ready"),
            Self::Refuses(1) => f.write_str("refuses 1 document"),
            Self::Refuses(count) => write!(f, "refuses {count} documents"),
        }
    }
}

/// What is not as it should be with each, given the revision of the last change of services.
///
/// What most have is right; where there are as many of one kind as of another nobody knows, and all are marked.
pub fn judge(members: &BTreeMap<Name, Record>, revision: Revision) -> BTreeMap<Name, Vec<Mark>> {
    let current = || members.values().filter(|member| member.revision >= revision);
    let tables = most(current().map(|member| member.tables.as_str()));
    let key = most(members.values().filter_map(|member| member.key.as_deref()));
    let by_service =
        |service: &str| most(current().filter_map(|member| Some(member.services.get(service)?.as_str())));
    let marks = |member: &Record| {
        let mut marks = Vec::new();
        if member.revision < revision {
            marks.push(Mark::Behind);
        } else if tables != Some(member.tables.as_str()) {
            let differs = |(service, of): &(&String, &String)| by_service(service) != Some(of.as_str());
            let services = member.services.iter().filter(differs).map(|(service, _)| service.clone());
            marks.push(Mark::Tables(services.collect()));
        }
        if member.key.is_some() && member.key.as_deref() != key {
            marks.push(Mark::Key);
        }
        if !member.ready {
            marks.push(Mark::NotReady);
        }
        if member.refused > 0 {
            marks.push(Mark::Refuses(member.refused));
        }
        marks
    };
    members.iter().map(|(name, member)| (name.clone(), marks(member))).collect()
}

/// The one that there is most of; `None` where there are as many of another.
fn most<'a>(all: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    let highest = counts.values().copied().max()?;
    let with_it: BTreeSet<_> =
        counts.iter().filter(|(_, count)| **count == highest).map(|(one, _)| *one).collect();
    match with_it.len() {
        1 => with_it.first().copied(),
        _ => None,
    }
}

/// More would make a line long.
const MAX_NAMED: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::name;

    fn member(revision: Revision, tables: &str, key: &str) -> Record {
        Record {
            revision,
            tables: tables.to_owned(),
            services: [("web".to_owned(), tables.to_owned()), ("dns".to_owned(), "d".to_owned())].into(),
            key: Some(key.to_owned()),
            ready: true,
            ..Record::default()
        }
    }

    fn judged(members: &[Record]) -> Vec<Vec<Mark>> {
        let names = (0..).map(|number| name(&format!("lb-{number}")));
        judge(&names.zip(members.iter().cloned()).collect(), 7).into_values().collect()
    }

    #[test]
    fn who_differs_from_most_is_marked_with_what_differs() {
        let same = member(7, "a", "k");
        let web = vec!["web".to_owned()];
        assert_eq!(judged(&[same.clone(), same.clone()]), [vec![], vec![]]);
        assert_eq!(
            judged(&[same.clone(), member(7, "b", "k"), same.clone()]),
            [vec![], vec![Mark::Tables(web.clone())], vec![]]
        );
        assert_eq!(
            judged(&[same.clone(), member(7, "a", "other"), same.clone()]),
            [vec![], vec![Mark::Key], vec![]]
        );
        // Of two nobody knows who is right.
        assert_eq!(
            judged(&[same.clone(), member(7, "b", "k")]),
            [vec![Mark::Tables(web.clone())], vec![Mark::Tables(web)]]
        );
        let unready = Record { ready: false, refused: 2, ..same.clone() };
        assert_eq!(judged(&[same.clone(), unready]), [vec![], vec![Mark::NotReady, Mark::Refuses(2)]]);
        // One that does not say which key it has is not said to have another.
        assert_eq!(judged(&[same.clone(), Record { key: None, ..same }]), [vec![], vec![]]);
    }

    #[test]
    fn who_is_behind_is_so_and_his_tables_are_not_looked_at() {
        let same = member(7, "a", "k");
        assert_eq!(judged(&[same.clone(), member(6, "b", "k"), same]), [vec![], vec![Mark::Behind], vec![]]);
    }
}
