//! What the owner of the maps takes from the endpoint and brings to it: it works on that for some milliseconds, and nobody waits
//! for it.

use std::time::Duration;

use super::{Endpoint, Event, MAX_QUEUE, PeerId, wire::Kind};

/// What has come, what there is room for, and what is to go.
#[derive(Debug, Default)]
pub struct Post {
    events: Vec<(PeerId, Event)>,
    /// By peer; `None` where it is not there.
    rooms: Vec<Option<usize>>,
    /// Peers that take nothing for now.
    stalled: Vec<bool>,
    tables: Vec<Option<u64>>,
    has_begun: bool,
    letters: Vec<Letter>,
    complete: Vec<PeerId>,
    /// Of peers' maps.
    ages: Vec<u8>,
    /// Those that are to tell all anew.
    restarts: Vec<PeerId>,
}

#[derive(Debug)]
struct Letter {
    to: Option<PeerId>,
    kind: Kind,
    body: Vec<u8>,
    flows: u64,
}

impl Post {
    /// Empties the endpoint's box. `tables` is the hash over our own.
    /// `age` is that of our maps, in seconds.
    pub fn collect(endpoint: &mut Endpoint, tables: u64, age: u8, now: Duration) -> Self {
        endpoint.say(tables, age);
        endpoint.look_after(now);
        let rooms = endpoint.rooms();
        Self {
            events: endpoint.events(),
            tables: (0..rooms.len()).map(|peer| endpoint.peer_tables(peer)).collect(),
            ages: (0..rooms.len()).map(|peer| endpoint.peer_age(peer)).collect(),
            rooms,
            stalled: endpoint.stalled(now),
            has_begun: endpoint.has_begun(),
            ..Self::default()
        }
    }

    /// Brings what is to go.
    pub fn deliver(self, endpoint: &mut Endpoint, now: Duration) {
        for Letter { to, kind, body, flows } in self.letters {
            endpoint.send(to, kind, body, flows, now);
        }
        self.complete.into_iter().for_each(|peer| endpoint.complete(peer));
        self.restarts.into_iter().for_each(|peer| endpoint.restart(peer, now));
    }

    pub fn events(&mut self) -> Vec<(PeerId, Event)> {
        std::mem::take(&mut self.events)
    }

    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub fn up_peers(&self) -> impl Iterator<Item = PeerId> {
        (0..).zip(&self.rooms).filter(|(_, room)| room.is_some()).map(|(peer, _)| peer)
    }

    /// Those of the configuration.
    pub fn all_peers(&self) -> std::ops::Range<PeerId> {
        0..self.rooms.len()
    }

    pub fn peer_tables(&self, peer: PeerId) -> Option<u64> {
        self.tables.get(peer).copied().flatten()
    }

    /// Bodies for all that the readiest peer has room for. Whoever falls behind by a whole queue is sent all anew.
    pub fn room(&self) -> usize {
        self.rooms.iter().copied().flatten().max().unwrap_or(MAX_QUEUE)
    }

    /// Bodies that all have room for who take any. Nobody waits for one that is dead, perhaps; if it is not, and falls behind by a
    /// whole queue, it is sent all anew.
    pub fn least_room(&self) -> usize {
        let rooms =
            || self.rooms.iter().zip(&self.stalled).filter_map(|(room, stalled)| Some(((*room)?, *stalled)));
        let taking = rooms().filter(|(_, stalled)| !stalled).map(|(room, _)| room).min();
        taking.or_else(|| rooms().map(|(room, _)| room).min()).unwrap_or(MAX_QUEUE)
    }

    pub fn room_of(&self, peer: PeerId) -> usize {
        self.rooms.get(peer).copied().flatten().unwrap_or_default()
    }

    /// To one peer, or to all that are there; `flows`: how many the body holds.
    pub fn send(&mut self, to: Option<PeerId>, kind: Kind, body: Vec<u8>, flows: u64) {
        for (peer, room) in self.rooms.iter_mut().enumerate() {
            if let Some(room) = room.as_mut().filter(|_| to.is_none_or(|to| to == peer)) {
                *room = room.saturating_sub(1);
            }
        }
        self.letters.push(Letter { to, kind, body, flows });
    }

    /// For how many seconds a peer says that it has had its maps.
    pub fn age(&self, peer: PeerId) -> u8 {
        self.ages.get(peer).copied().unwrap_or_default()
    }

    /// Has a peer tell all anew.
    pub fn ask_anew(&mut self, peer: PeerId) {
        self.restarts.push(peer);
    }

    /// That was all that there was for a peer.
    pub fn complete(&mut self, peer: PeerId) {
        self.complete.push(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_one_that_has_just_died_if_there_is_another() {
        let room = |rooms: [Option<usize>; 3], stalled: [bool; 3]| {
            Post { rooms: rooms.into(), stalled: stalled.into(), ..Post::default() }.least_room()
        };
        assert_eq!(room([Some(7), Some(900), None], [false, false, false]), 7);
        assert_eq!(room([Some(7), Some(900), None], [true, false, false]), 900);
        assert_eq!(room([Some(7), Some(900), None], [true, true, false]), 7);
        assert_eq!(room([None; 3], [false; 3]), MAX_QUEUE);
    }
}
