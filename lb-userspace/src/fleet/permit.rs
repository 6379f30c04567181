//! Leave to be off the network for want of backends. All members may find at once that backends are missing, and if all
//! went, nobody would be left to serve from those that there are; so only some have leave at a time. Pure.
//!
//! Whoever has leave has a key in etcd, bound to its lease. It is made by a transaction that holds only if no such key is
//! newer than those that were counted: two that count the same never both succeed.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};

use super::{
    book::Revision,
    member::Record,
    view::{Link, View},
};
use crate::domain::Name;

/// What announcing VIPs asks of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// A VIP should be off the network for want of backends, or is.
    pub permit: bool,
    /// One is.
    pub withdrawn: bool,
    /// VIPs that are announced, or would be but for want of backends.
    pub announces: BTreeSet<IpAddr>,
}

/// What the fleet says to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    Granted,
    /// There is no answer yet.
    Asked,
    /// And why, in words.
    Refused(String),
}

/// What a member writes that has leave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permit {
    /// The member's, as in its sign of life.
    pub id: String,
    /// To which it is bound. An earlier daemon's is of no use to the next one.
    pub lease: i64,
}

/// A permit as etcd has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub permit: Permit,
    pub revision: Revision,
}

/// The lease that this member has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bond {
    pub lease: i64,
    /// Until then etcd has not forgotten it, whatever else becomes of etcd.
    pub until: Instant,
}

/// Why whoever is the last one stays.
pub const LAST: &str = "no other member of the fleet would be left to announce it";

/// How many of so many members may be off the network at once for want of backends.
pub fn limit(members: usize) -> usize {
    (members / 5).max(1)
}

/// What is to be done about this member's permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Claim,
    Release,
}

impl View {
    /// Members that carry traffic, or would but for want of backends.
    pub fn announcing(&self) -> usize {
        self.members.values().filter(|member| member.record.announces).count()
    }

    /// Whether `member` may be off the network for want of backends.
    pub(super) fn leave(&self, member: &Name, now: Instant) -> Leave {
        match (self.answer(member, now), &self.unpermitted) {
            (Leave::Asked, Some(why)) => Leave::Refused(why.clone()),
            (answer, _) => answer,
        }
    }

    /// The same, whatever etcd has said when it was asked: it is asked again.
    fn answer(&self, member: &Name, now: Instant) -> Leave {
        let holds = self.holds(member) && self.bond.is_some_and(|bond| now < bond.until);
        let members = self.announcing();
        let limit = limit(members);
        let before = self.before(member);
        if holds && before.len() < limit && !self.is_last(member) {
            return Leave::Granted;
        }
        if let Some(why) = self.cut_off().filter(|_| !holds) {
            return match &self.link {
                Link::CutOff { why, .. } if why.is_empty() => Leave::Asked,
                _ => Leave::Refused(format!("{why}, and nobody can be asked who else withdraws")),
            };
        }
        if let Some(why) = &self.unheard {
            return Leave::Refused(why.clone());
        }
        if self.is_last(member) {
            return Leave::Refused(LAST.to_owned());
        }
        match before.len() < limit {
            true => Leave::Asked,
            false => Leave::Refused(format!(
                "withdrawn for want of backends already: {}, and of {members} members {limit} may be at once",
                before.join(", ")
            )),
        }
    }

    /// Who has a permit that is older than that of `member`, or at all where it has none. If members go, and with them a part
    /// of what may be withdrawn, the youngest are back first.
    fn before(&self, member: &Name) -> Vec<&str> {
        let own = self.permits.get(member).filter(|_| self.holds(member)).map(|held| held.revision);
        let is_before =
            |(name, held): &(&Name, &Held)| *name != member && own.is_none_or(|own| held.revision < own);
        self.permits.iter().filter(is_before).map(|(name, _)| name.as_str()).collect()
    }

    pub(super) fn deed(&self, member: &Name, wish: &Wish, now: Instant) -> Option<Deed> {
        let leave = self.answer(member, now);
        match self.holds(member) {
            true if wish.withdrawn || self.promises_too_much(member, wish) => None,
            true if !wish.permit || matches!(leave, Leave::Refused(_)) => Some(Deed::Release),
            true => None,
            false => (wish.permit && leave == Leave::Asked && self.is_connected()).then_some(Deed::Claim),
        }
    }

    /// Whether others would count on a VIP that it announces no more, as soon as it has no leave: they have to hear of that first.
    /// Where they hear nothing of it what stands there may be somebody else's.
    fn promises_too_much(&self, member: &Name, wish: &Wish) -> bool {
        if self.unheard.is_some() {
            return false;
        }
        let mut record = Record::default();
        record.set_vips(&wish.announces);
        self.members.get(member).is_some_and(|known| known.record.promises_more(&record))
    }

    /// Of the newest permit; 0 where there is none.
    pub(super) fn newest_permit(&self) -> Revision {
        self.permits.values().map(|held| held.revision).max().unwrap_or_default()
    }

    /// Forgets the permit of `member`, and returns its revision.
    pub(super) fn give_back(&mut self, member: &Name) -> Revision {
        Arc::make_mut(&mut self.permits).remove(member).map_or(0, |held| held.revision)
    }

    /// Whether its permit is of the lease that it has.
    fn holds(&self, member: &Name) -> bool {
        let held = self.permits.get(member).map(|held| held.permit.lease);
        held.is_some() && held == self.bond.map(|bond| bond.lease)
    }

    /// Whether there are others, and none of them announces anything. Alone, a member does what it would without a fleet.
    fn is_last(&self, member: &Name) -> bool {
        self.is_alone(member, |other| other.announces)
    }

    /// The same for one VIP.
    pub fn is_lone(&self, member: &Name, vip: IpAddr) -> bool {
        self.is_alone(member, |other| other.may_announce(vip))
    }

    /// Nobody counts on a member that has leave: what it announces still may go at any moment.
    fn is_alone(&self, member: &Name, announces: impl Fn(&Record) -> bool) -> bool {
        let mut others = self.members.iter().filter(|(name, _)| *name != member).peekable();
        others.peek().is_some()
            && !others.any(|(name, other)| announces(&other.record) && !self.permits.contains_key(name))
    }
}

#[cfg(test)]
mod tests;
