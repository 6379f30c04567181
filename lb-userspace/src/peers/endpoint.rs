//! All peers: what comes is taken in, what is to go is handed out, and what it means is told. No socket, no clock.

mod incoming;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    auth::Keys,
    counts::Refusal,
    link::{Link, Outgoing, Own, Parcel},
    wire::{Flows, Header, Kind, MAX_BODY, Slots},
};
use crate::dataplane::KeyFingerprint;

/// Which peer: its place in the configuration.
pub type PeerId = usize;

/// What peers bring about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is there, and has nothing of ours.
    Up,
    Down,
    Slots(Slots),
    /// And when they were made, in boot time.
    Flows(Flows, Duration),
    /// It has sent all that it had.
    Complete,
}

/// Who this load balancer is to its peers.
pub struct Identity {
    pub keys: Keys,
    pub fingerprint: KeyFingerprint,
    /// Numbers that nobody can guess.
    pub random: Box<dyn FnMut() -> u64 + Send>,
}

pub struct Endpoint {
    identity: Identity,
    links: Vec<Link>,
    /// Bytes a second to each peer.
    rate: f64,
    own: Own,
    events: Vec<(PeerId, Event)>,
    refused: BTreeMap<Refusal, u64>,
    has_begun: bool,
    /// Whose turn it is.
    turn: usize,
}

impl Endpoint {
    pub fn new(mut identity: Identity, peers: &[SocketAddr], rate: f64, now: Duration) -> Self {
        let mut random = || (identity.random)() | 1;
        let links = peers.iter().map(|peer| Link::new(*peer, random(), random(), now)).collect();
        Self {
            identity,
            links,
            rate,
            own: Own::default(),
            events: Vec::new(),
            refused: Refusal::ALL.map(|refusal| (refusal, 0)).into(),
            has_begun: false,
            turn: 0,
        }
    }

    /// What peers have brought about, in its order.
    pub fn events(&mut self) -> Vec<(PeerId, Event)> {
        std::mem::take(&mut self.events)
    }

    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Gives up those that have been silent for too long, or take nothing.
    pub fn look_after(&mut self, now: Duration) {
        for (peer, link) in self.links.iter_mut().enumerate() {
            if let Some(why) = link.dies(now, || (self.identity.random)() | 1) {
                self.events.push(gone(peer, link, why));
            }
        }
    }

    /// The next datagram to send, if there is one now.
    pub fn transmit(&mut self, now: Duration) -> Option<(SocketAddr, Vec<u8>)> {
        let (own, rate) = (self.own, self.rate);
        let count = self.links.len();
        let turns = (0..count).map(|step| (self.turn + step) % count);
        for peer in turns {
            let link = &mut self.links[peer];
            let Some(parcel) = link.next(own, rate, now) else { continue };
            self.turn = (peer + 1) % count;
            let datagram = seal(&self.identity, &parcel, now);
            *link.counts.sent.entry(parcel.kind).or_default() += 1;
            link.counts.sent_bytes += datagram.len() as u64;
            return Some((link.address, datagram));
        }
        None
    }

    /// When to ask for something to send if nothing happens before.
    pub fn wake(&self, now: Duration) -> Duration {
        self.links.iter().map(|link| link.wake(self.rate, now)).min().unwrap_or(now)
    }

    /// Has this body sent to a peer, or to all that are there. `flows`: how many it holds.
    pub fn send(&mut self, to: Option<PeerId>, kind: Kind, body: Vec<u8>, flows: u64, now: Duration) {
        debug_assert!(body.len() <= MAX_BODY);
        let body: Arc<[u8]> = body.into();
        let Self { links, identity, events, .. } = self;
        let links = links.iter_mut().enumerate();
        for (peer, link) in links.filter(|(peer, link)| link.is_up && to.is_none_or(|to| to == *peer)) {
            // What is asked for by a peer alone is bounded by whoever sends it.
            if link.room() == 0 && to.is_none() {
                link.restart((identity.random)() | 1, now);
                events.push(gone(peer, link, "it has fallen behind by all that may wait for it"));
                continue;
            }
            link.push(Outgoing { kind, body: Arc::clone(&body), made: now });
            link.counts.flows_sent += flows;
        }
    }

    /// Has a peer, and us, tell all anew.
    pub fn restart(&mut self, peer: PeerId, now: Duration) {
        let Self { links, identity, events, .. } = self;
        if let Some(link) = links.get_mut(peer).filter(|link| link.is_up) {
            link.restart((identity.random)() | 1, now);
            events.push(gone(peer, link, "it is to tell all anew"));
        }
    }

    /// A peer has got, or is about to get, all that there is.
    pub fn complete(&mut self, peer: PeerId) {
        if let Some(link) = self.links.get_mut(peer) {
            link.complete();
        }
    }

    /// Bodies that there is room for, by peer; `None` where it is not there.
    pub fn rooms(&self) -> Vec<Option<usize>> {
        self.links.iter().map(|link| link.is_up.then(|| link.room())).collect()
    }

    /// Whether it takes nothing for now, by peer.
    pub fn stalled(&self, now: Duration) -> Vec<bool> {
        self.links.iter().map(|link| link.is_stalled(now)).collect()
    }

    /// From now on peers can be heard.
    pub fn begin(&mut self) {
        self.has_begun = true;
    }

    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    #[cfg(test)]
    pub(crate) fn up_peers(&self) -> impl Iterator<Item = PeerId> {
        (0..).zip(&self.links).filter(|(_, link)| link.is_up).map(|(peer, _)| peer)
    }

    /// Hash over a peer's lookup tables, as it last said.
    pub fn peer_tables(&self, peer: PeerId) -> Option<u64> {
        self.links.get(peer)?.tables
    }

    /// For how many seconds a peer has had its maps, as it last said.
    pub fn peer_age(&self, peer: PeerId) -> u8 {
        self.links.get(peer).map_or(0, |link| link.age)
    }

    /// From now on hellos say this.
    pub fn say(&mut self, tables: u64, age: u8) {
        self.own = Own { tables, age };
    }

    pub fn tables(&self) -> u64 {
        self.own.tables
    }

    /// How each link is, for whom a test tells.
    #[cfg(test)]
    pub(crate) fn lives(&self, now: Duration) -> String {
        let links: Vec<_> = self
            .links
            .iter()
            .map(|link| {
                let silent = link.heard.map(|heard| now.saturating_sub(heard));
                format!("up {} silent {silent:?} pending {} {:?}", link.is_up, link.pending(), link.counts)
            })
            .collect();
        let refused: Vec<_> = self.refused.iter().filter(|(_, count)| **count > 0).collect();
        format!("{links:?} {refused:?}")
    }

    /// Datagrams sent so far, hellos aside.
    #[cfg(test)]
    pub(crate) fn spoken(&self) -> u64 {
        let sent = self.links.iter().flat_map(|link| &link.counts.sent);
        sent.filter(|(kind, _)| **kind != Kind::Hello).map(|(_, count)| count).sum()
    }

    #[cfg(test)]
    pub(crate) fn flows_told(&self) -> u64 {
        self.links.iter().map(|link| link.counts.flows_sent).sum()
    }

    pub(super) fn links(&self) -> &[Link] {
        &self.links
    }

    pub(super) fn refused(&self) -> &BTreeMap<Refusal, u64> {
        &self.refused
    }
}

/// That a peer is not there any more.
fn gone(peer: PeerId, link: &Link, why: &str) -> (PeerId, Event) {
    log::warn!("peer {} is not there any more: {why}", link.address);
    (peer, Event::Down)
}

fn seal(identity: &Identity, parcel: &Parcel, now: Duration) -> Vec<u8> {
    let header = Header {
        kind: parcel.kind,
        fingerprint: identity.fingerprint,
        session: parcel.session,
        sequence: parcel.sequence,
        sent: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        held: u32::try_from(parcel.held.as_millis()).unwrap_or(u32::MAX),
    };
    identity.keys.seal(&header.encode(), &parcel.body)
}
