//! What a peer is sent when it comes.

use super::{
    Replicator, Tables,
    slots::{Scope, View},
    tell::{RESERVE, send_flows},
};
use crate::{
    dataplane::scan::Moment,
    peers::{PeerId, Post},
};

/// What a peer is sent when it comes: all that the others have got already.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) peer: PeerId,
    /// Next service and chunk of it; `None` when slots are told.
    pub(super) next: Option<(usize, u32)>,
    /// Of the map in which that service has this place.
    pub(super) generation: u64,
    pub(super) scope: Scope,
    /// Whether it has said more than all are told.
    is_more: bool,
    /// Nothing is sent before then, coarse time.
    from: u64,
    /// Next place in the flow table; `None` where flows are not asked for.
    pub(super) place: Option<usize>,
}

impl Snapshot {
    pub(super) const fn new(peer: PeerId, scope: Scope, place: Option<usize>) -> Self {
        Self { peer, next: Some((0, 0)), generation: 0, scope, is_more: false, from: 0, place }
    }
}

impl Replicator {
    pub(super) fn snapshots<S>(&mut self, tables: &Tables<'_, S>, post: &mut Post, now: Moment) {
        let mut snapshots = std::mem::take(&mut self.snapshots);
        let mut corrections = Vec::new();
        snapshots.retain_mut(|snapshot| {
            let is_all = self.go_on(snapshot, tables, post, now);
            if is_all && snapshot.is_more {
                // Of what is said there nobody says when it is no more.
                let from = now.coarse() + CORRECTED_SECONDS;
                corrections.push(Snapshot { from, ..Snapshot::new(snapshot.peer, Scope::All, None) });
            }
            !is_all
        });
        snapshots.extend(corrections);
        self.snapshots = snapshots;
    }

    /// Sends some more of a snapshot; says whether that was all.
    fn go_on<S>(
        &mut self,
        snapshot: &mut Snapshot,
        tables: &Tables<'_, S>,
        post: &mut Post,
        now: Moment,
    ) -> bool {
        let Tables { words, world, map, .. } = tables;
        let peer = snapshot.peer;
        if now.coarse() < snapshot.from {
            return false;
        }
        let view = View { words: *words, map, now: now.coarse() };
        if snapshot.next.is_some()
            && std::mem::replace(&mut snapshot.generation, map.generation) != map.generation
        {
            snapshot.next = Some((0, 0));
        }
        while let Some((number, chunk)) = snapshot.next {
            // A body has room for one chunk at least, of whatever many backends.
            let most = post.room_of(peer).saturating_sub(RESERVE);
            if most == 0 {
                return false;
            }
            let Some(service) = map.services.get(number) else {
                snapshot.next = None;
                break;
            };
            let portion = view.chunks(service, world, chunk, most, snapshot.scope, &self.announcer);
            snapshot.is_more |= portion.is_more;
            snapshot.next = Some(portion.next.map_or((number + 1, 0), |next| (number, next)));
            self.tell_slots(post, Some(peer), service.id, &portion.chunks);
        }
        let Some(place) = snapshot.place else { return true };
        let most = post.room_of(peer).saturating_sub(RESERVE);
        let (bodies, place) = self.records(tables, place, most, true, now);
        snapshot.place = Some(place);
        send_flows(post, Some(peer), bodies);
        let is_all = place >= words.flows.len();
        if is_all {
            post.complete(peer);
        }
        is_all
    }
}

/// A newcomer is told again after so long, as all are: it has taken what it was told first, or was given up.
const CORRECTED_SECONDS: u64 = 10;
