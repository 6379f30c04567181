//! Peers whose tables differ from ours.

use super::{Replicator, map::FleetMap, slots::Scope, snapshot::Snapshot};
use crate::{dataplane::scan::Moment, peers::Post};

/// That a peer's tables differ from our own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Differs {
    /// The hash over its tables, and over ours.
    tables: (u64, u64),
    /// For how long these have been so.
    since: u64,
    /// Whether it has been told all slots for these, and when it was told them last.
    is_told: bool,
    told: Option<u64>,
}

impl Replicator {
    /// Where tables differ for longer than a change takes to get everywhere, peers tell each other all slots, to find those that
    /// do; and again when one of the tables has changed and they still do.
    pub(super) fn compare(&mut self, map: &FleetMap, post: &Post, now: Moment) {
        for peer in post.up_peers() {
            let theirs = post.peer_tables(peer).unwrap_or_default();
            if theirs == map.tables {
                self.differs.remove(&peer);
                continue;
            }
            let (tables, now) = ((theirs, map.tables), now.coarse());
            let new = Differs { tables, since: now, is_told: false, told: None };
            let differs = self.differs.entry(peer).or_insert(new);
            if differs.tables != tables {
                // What was told was of others.
                *differs = Differs { told: differs.told, ..new };
            }
            let is_due = now.saturating_sub(differs.since) >= DIFFERS_SECONDS
                && differs.told.is_none_or(|told| now.saturating_sub(told) >= RETELL_SECONDS);
            if is_due && !differs.is_told {
                *differs = Differs { is_told: true, told: Some(now), ..*differs };
                self.snapshots.push(Snapshot::new(peer, Scope::All, None));
            }
        }
    }
}

/// After so long differing tables are more than a change on its way.
const DIFFERS_SECONDS: u64 = 3;
/// And at least so long after that they are not looked for again.
const RETELL_SECONDS: u64 = 10;
