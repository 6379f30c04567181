//! What members say of themselves. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hasher as _,
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::book::Revision;
use crate::control::Snapshot;

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

/// More would make a record that is written at each change of health large.
const MAX_SERVICES_TOLD: usize = 256;
const MAX_VIPS_TOLD: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_version_is_read_as_far_as_it_goes() {
        let read: Record = serde_json::from_str(r#"{"revision": 4, "later": [1]}"#).expect("read");
        assert_eq!(read, Record { revision: 4, ..Record::default() });
        let whole = Record {
            revision: 7,
            tables: "a".to_owned(),
            services: [("web".to_owned(), "a".to_owned())].into(),
            key: Some("k".to_owned()),
            ready: true,
            ..Record::default()
        };
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
