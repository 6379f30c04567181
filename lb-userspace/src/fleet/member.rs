//! What members say of themselves, and which of them is not as the others are. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hasher as _,
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::book::Revision;
use crate::{control::Snapshot, domain::Name};

/// What a member writes into etcd of itself. One of another version may leave fields out, and have others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Chosen once by each member, so that two of the same name are told apart.
    pub id: String,
    /// Of the daemon that wrote it: two that run with one id are told apart.
    pub boot: String,
    /// Ballast's.
    pub version: String,
    /// Of the last change of services that is live there.
    pub revision: Revision,
    /// Over all lookup tables: equal where every client is mapped alike.
    pub tables: String,
    /// The same by service, where these are not too many.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, String>,
    /// Of the flow hash's key, which is never told itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Interfaces attached and the last change published.
    pub ready: bool,
    /// A VIP is announced there, or would be but for want of backends.
    pub announces: bool,
    /// And which, where these are not too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vips: Option<BTreeSet<IpAddr>>,
    /// Documents that it refuses.
    pub refused: usize,
    /// Why the last change of services is not live there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Record {
    /// VIPs that are announced, or would be.
    pub fn set_vips(&mut self, vips: &BTreeSet<IpAddr>) {
        self.announces = !vips.is_empty();
        self.vips = (vips.len() <= MAX_VIPS_TOLD).then(|| vips.clone());
    }

    /// Whether it announces `vip`, as far as it says which.
    pub fn may_announce(&self, vip: IpAddr) -> bool {
        self.announces && self.vips.as_ref().is_none_or(|vips| vips.contains(&vip))
    }

    /// Whether others count on something by this that is not so by `newer`.
    pub fn promises_more(&self, newer: &Self) -> bool {
        match (&self.vips, &newer.vips) {
            _ if !self.announces || !newer.announces => self.announces,
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(vips), Some(newer)) => !vips.is_subset(newer),
        }
    }

    /// The tables as a snapshot has them.
    pub fn set_tables(&mut self, snapshot: &Snapshot) {
        let mut hasher = SipHasher13::new();
        for view in &snapshot.services {
            hasher.write(view.service.name.as_str().as_bytes());
            hasher.write(&[0]);
            hasher.write(&view.fingerprint.to_le_bytes());
        }
        self.tables = format!("{:016x}", hasher.finish());
        let few = snapshot.services.len() <= MAX_SERVICES_TOLD;
        let of = snapshot.services.iter().filter(|_| few);
        self.services =
            of.map(|view| (view.service.name.to_string(), format!("{:016x}", view.fingerprint))).collect();
    }
}

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

/// More would make a record that is written at each change of health large.
const MAX_SERVICES_TOLD: usize = 256;
const MAX_VIPS_TOLD: usize = 256;
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

    #[test]
    fn a_record_of_another_version_is_read_as_far_as_it_goes() {
        let read: Record = serde_json::from_str(r#"{"revision": 4, "later": [1]}"#).expect("read");
        assert_eq!(read, Record { revision: 4, ..Record::default() });
        let whole = member(7, "a", "k");
        let text = serde_json::to_string(&whole).expect("written");
        assert_eq!(serde_json::from_str::<Record>(&text).expect("read"), whole);
    }

    #[test]
    fn what_is_not_announced_any_more_is_known_and_of_too_many_nothing_is_said() {
        let vips = |count: usize| -> BTreeSet<_> {
            (0..count).map(|host| IpAddr::from((host as u128).to_be_bytes())).collect()
        };
        let of = |count| {
            let mut record = Record::default();
            record.set_vips(&vips(count));
            record
        };
        let vip = IpAddr::from(1_u128.to_be_bytes());
        assert_eq!(
            [0, 1, 2, 256, 257].map(|count| of(count).may_announce(vip)),
            [false, false, true, true, true]
        );
        assert!(of(257).vips.is_none() && of(256).vips.is_some());
        for (before, after, more) in [
            (0, 0, false),
            (0, 2, false),
            (2, 0, true),
            (2, 2, false),
            (1, 2, false),
            (2, 1, true),
            (2, 257, false),
            (257, 2, true),
            (257, 0, true),
        ] {
            assert_eq!(of(before).promises_more(&of(after)), more, "{before} and {after}");
        }
    }
}
