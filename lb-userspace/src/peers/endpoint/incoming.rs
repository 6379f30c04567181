//! What comes: whether it counts, and what it says.

use std::{net::SocketAddr, time::Duration};

use super::{Endpoint, Event, PeerId};
use crate::peers::{
    counts::Refusal,
    link::Greeted,
    session::Freshness,
    wire::{Ack, Flows, HEADER, Header, Hello, Kind, Slots, Wrong},
};

impl Endpoint {
    /// Takes in a datagram, or counts why not. What is cheap to see is looked at first: only who knows a session's number, or
    /// says hello (50 times a second), has the authentication computed.
    pub fn receive(&mut self, from: SocketAddr, datagram: &[u8], now: Duration) {
        if let Err(refusal) = self.take(from, datagram, now) {
            *self.refused.entry(refusal).or_default() += 1;
        }
    }

    fn take(&mut self, from: SocketAddr, datagram: &[u8], now: Duration) -> Result<(), Refusal> {
        let peer = self.links.iter().position(|link| link.address == from).ok_or(Refusal::Stranger)?;
        let link = &mut self.links[peer];
        let header = Header::decode(datagram).map_err(refusal)?;
        if header.fingerprint != self.identity.fingerprint {
            link.claims_other_key = Some(now);
            return Err(Refusal::OtherKey);
        }
        let freshness = link.judge(header.session, header.sequence);
        let is_unproven = header.kind == Kind::Hello && header.session == 0;
        match freshness {
            Freshness::Begins | Freshness::Follows => {}
            Freshness::Old => return Err(Refusal::Replayed),
            Freshness::Stranger if is_unproven => {
                if !link.may_doubt(now) {
                    return Err(Refusal::Limited);
                }
            }
            Freshness::Stranger => {
                link.estranged(now);
                return Err(Refusal::Session);
            }
        }
        let signed = self.identity.keys.open(datagram).ok_or(Refusal::Unauthentic)?;
        let body = signed.get(HEADER..).unwrap_or_default();
        if is_unproven {
            let hello = Hello::decode(body).map_err(refusal)?;
            // Our own is of no use to whoever throws it back.
            return if link.doubt(hello, now) { Ok(()) } else { Err(Refusal::Replayed) };
        }
        let event = self.read(peer, &header, body, freshness == Freshness::Begins, now)?;
        let Self { links, identity, events, .. } = self;
        let link = &mut links[peer];
        link.receiving.accept(header.session, header.sequence, || (identity.random)() | 1);
        link.heard = Some(now);
        *link.counts.received.entry(header.kind).or_default() += 1;
        link.counts.received_bytes += datagram.len() as u64;
        if !matches!(header.kind, Kind::Hello | Kind::Ack) {
            link.received(header.sequence);
        }
        events.extend(event.map(|event| (peer, event)));
        Ok(())
    }

    /// Reads the body of an authentic datagram that is new.
    fn read(
        &mut self,
        peer: PeerId,
        header: &Header,
        body: &[u8],
        begins: bool,
        now: Duration,
    ) -> Result<Option<Event>, Refusal> {
        let is_full = self.events.len() >= MAX_EVENTS * self.links.len();
        let link = &mut self.links[peer];
        if !matches!(header.kind, Kind::Hello) && !link.is_up {
            return Err(Refusal::Session);
        }
        let delay = link.delay(header.sent, now);
        if !matches!(header.kind, Kind::Hello | Kind::Ack) {
            if delay > MAX_DELAY {
                return Err(Refusal::Late);
            }
            if is_full {
                return Err(Refusal::Full);
            }
        }
        Ok(match header.kind {
            Kind::Hello => {
                let hello = Hello::decode(body).map_err(refusal)?;
                if !link.is_newest(header.sequence, begins) {
                    return Err(Refusal::Replayed);
                }
                match link.greet(hello, begins, now).ok_or(Refusal::Malformed)? {
                    Greeted::Up => {
                        log::info!("peer {} is there", link.address);
                        Some(Event::Up)
                    }
                    Greeted::Down => {
                        log::warn!("peer {} does not hear us any more", link.address);
                        Some(Event::Down)
                    }
                    Greeted::Nothing => None,
                }
            }
            Kind::Ack => {
                link.acknowledged(&Ack::decode(body).map_err(refusal)?, now);
                None
            }
            Kind::Slots => Some(Event::Slots(Slots::decode(body).map_err(refusal)?)),
            Kind::Flows => {
                let flows = Flows::decode(body).map_err(refusal)?;
                link.counts.flows_received += flows.records.len() as u64;
                let on_its_way = Duration::from_millis(header.held.into()) + delay;
                Some(Event::Flows(flows, now.saturating_sub(on_its_way)))
            }
            Kind::Complete if body.is_empty() => Some(Event::Complete),
            Kind::Complete => return Err(Refusal::Malformed),
        })
    }
}

const fn refusal(wrong: Wrong) -> Refusal {
    match wrong {
        Wrong::Malformed => Refusal::Malformed,
        Wrong::Version => Refusal::Version,
    }
}

/// Longer on its way than this, and what it says of times is of no use.
const MAX_DELAY: Duration = Duration::from_secs(2);
/// Messages that may wait to be taken in, for each peer: at 80 Mbit/s those of a tenth of a second.
const MAX_EVENTS: usize = 1024;
