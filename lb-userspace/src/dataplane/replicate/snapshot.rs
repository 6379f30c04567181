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
    /// Next place in the flow table; `None` where flows are not asked for.
    pub(super) place: Option<usize>,
}

impl Snapshot {
    pub(super) const fn new(peer: PeerId, scope: Scope, place: Option<usize>) -> Self {
        Self { peer, next: Some((0, 0)), generation: 0, scope, place }
    }
}

impl Replicator {
    pub(super) fn snapshots<S>(&mut self, tables: &Tables<'_, S>, post: &mut Post, now: Moment) {
        let mut snapshots = std::mem::take(&mut self.snapshots);
        snapshots.retain_mut(|snapshot| !self.go_on(snapshot, tables, post, now));
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
            let (chunks, next) =
                view.chunks(service, world, chunk, most, snapshot.scope, &mut self.announcer);
            snapshot.next = Some(next.map_or((number + 1, 0), |next| (number, next)));
            self.tell_slots(post, Some(peer), service.id, &chunks);
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
