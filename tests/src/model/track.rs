//! Which backend a packet of a service goes to, and what it leaves behind: docs/flow-tracking.md, rule by rule.

use lb_common::abi::DropReason;

use super::effects::{Effects, Fate, Looked};
use super::flow::{self, EPOCHS, Flow, FlowState};
use super::headers::Kind;
use super::service::{Protocol, Selection, Service, Slot, Tracking};
use super::state::State;

/// What is known of a packet when its backend is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) kind: Kind,
    /// Names the slot.
    pub(super) slot_hash: u64,
    /// Of the 5-tuple.
    pub(super) flow_hash: u64,
}

/// The backend's index, 0 for none.
pub(super) fn send(
    state: &State,
    service: &Service,
    arrival: Arrival,
    effects: &mut Effects,
) -> Result<u32, DropReason> {
    let (number, slot) = named_slot(state, service, arrival.slot_hash)?;
    effects.slot = Some(number);
    let always = tracks_always(service);
    if !always && (service.tracking == Tracking::Never || !slot.tracked) {
        return Ok(slot.current);
    }
    let (bucket, tag) = flow::place(arrival.flow_hash, state.flows.len());
    let packet = Tracked { state, service, arrival, slot, bucket, tag };
    let (index, fate) = packet.send(effects)?;
    let leaves_traces = fate != Fate::Observed && arrival.kind != Kind::Observes && fate != Fate::NoBackend;
    effects.exception = leaves_traces && index != slot.current && !always;
    let (kind, selection) = (arrival.kind, service.selection);
    effects.looked_at =
        Some(Looked { bucket, tag, service: service.number, slot: number, kind, selection, fate });
    Ok(index)
}

/// Whether the flow table knows the flow.
pub(super) fn has_entry(state: &State, service: &Service, flow_hash: u64) -> bool {
    let (bucket, tag) = flow::place(flow_hash, state.flows.len());
    let known = state.flows[bucket].into_iter().filter_map(Flow::from_word).any(|flow| flow.tag == tag);
    tracks_always(service) && known
}

/// What the service's algorithm picks for a new flow, tracked by other means.
pub(super) fn pick(
    state: &State,
    service: &Service,
    arrival: Arrival,
    effects: &mut Effects,
) -> Result<u32, DropReason> {
    let (number, slot) = named_slot(state, service, arrival.slot_hash)?;
    effects.slot = Some(number);
    Tracked { state, service, arrival, slot, bucket: 0, tag: 0 }.choose(effects)
}

fn tracks_always(service: &Service) -> bool {
    match service.tracking {
        Tracking::Auto => service.protocol == Protocol::Udp || service.selection != Selection::Hash,
        Tracking::Always => true,
        Tracking::Never => false,
    }
}

/// A packet of a tracked flow.
struct Tracked<'a> {
    state: &'a State,
    service: &'a Service,
    arrival: Arrival,
    slot: Slot,
    bucket: usize,
    tag: u64,
}

impl Tracked<'_> {
    fn send(&self, effects: &mut Effects) -> Result<(u32, Fate), DropReason> {
        let kind = self.arrival.kind;
        let own = self.own_entry();
        if let Some((place, flow)) = own
            && self.state.accepts(self.service.number, flow.index, kind == Kind::Opens)
        {
            if kind != Kind::Observes {
                let seen = Flow { state: after(flow.state, kind), epoch: self.state.now % EPOCHS, ..flow };
                self.count(flow, -1, effects);
                self.count(seen, 1, effects);
                effects.entry = Some((place, seen.word()));
            }
            return Ok((flow.index, Fate::Hit));
        }
        let fallback = self.fallback();
        if kind == Kind::Observes {
            return Ok((fallback, Fate::Observed));
        }
        let (choice, state) = match kind {
            Kind::Opens | Kind::Datagram => (self.choose(effects)?, FlowState::Unconfirmed),
            Kind::Closes => (fallback, FlowState::Closing),
            _ => (fallback, FlowState::Confirmed),
        };
        if choice == 0 {
            return Ok((0, Fate::NoBackend));
        }
        let (place, fate) = if let Some((place, flow)) = own {
            self.count(flow, -1, effects);
            (place, Fate::Replaced)
        } else if let Some(place) = self.empty_place() {
            (place, Fate::Inserted)
        } else if let Some((place, flow)) = self.stale_place() {
            self.count(flow, -1, effects);
            (place, Fate::Evicted)
        } else {
            effects.failed = true;
            effects.refused = true;
            return Ok((fallback, Fate::Refused));
        };
        let made = Flow { tag: self.tag, state, epoch: self.state.now % EPOCHS, index: choice };
        self.count(made, 1, effects);
        effects.entry = Some((place, made.word()));
        effects.inserted = true;
        effects.evicted = fate == Fate::Evicted;
        Ok((choice, fate))
    }

    /// Entries of the bucket that are not empty, with their places.
    fn entries(&self) -> impl Iterator<Item = (usize, Flow)> {
        let words = self.state.flows[self.bucket].into_iter().enumerate();
        words.filter_map(|(place, word)| Flow::from_word(word).map(|flow| (place, flow)))
    }

    fn own_entry(&self) -> Option<(usize, Flow)> {
        self.entries().find(|(_, flow)| flow.tag == self.tag)
    }

    fn empty_place(&self) -> Option<usize> {
        self.state.flows[self.bucket].iter().position(|&word| Flow::from_word(word).is_none())
    }

    fn stale_place(&self) -> Option<(usize, Flow)> {
        self.entries().find(|(_, flow)| flow.state == FlowState::Unconfirmed && flow.age(self.state.now) > 3)
    }

    fn fallback(&self) -> u32 {
        let Slot { current, previous, .. } = self.slot;
        let usable = previous != 0 && self.state.accepts(self.service.number, previous, false);
        if usable { previous } else { current }
    }

    /// What the algorithm picks.
    fn choose(&self, effects: &mut Effects) -> Result<u32, DropReason> {
        match self.service.selection {
            Selection::Hash => Ok(self.slot.current),
            Selection::RoundRobin => {
                effects.rotated = Some(self.service.number);
                let placed = self.state.placed.get(&self.service.number).copied().unwrap_or_default();
                let number = placed % u64::from(self.service.rotation);
                Ok(slot_at(self.state, self.service, number as usize)?.1.current)
            }
            Selection::LeastConnections => {
                let hash = self.arrival.flow_hash;
                let other = (u128::from(hash) * 0x9e37_79b9_7f4a_7c15 % (1 << 64)) as u64;
                let first = named_slot(self.state, self.service, hash)?.1.current;
                let second = named_slot(self.state, self.service, other)?.1.current;
                let weight =
                    |index| self.state.backends.get(&index).map_or(0, |backend| u128::from(backend.weight));
                let live = |index| u128::from(self.state.live_flows(index));
                let better = live(second) * weight(first) < live(first) * weight(second);
                Ok(if better { second } else { first })
            }
        }
    }

    /// Live flows are counted where somebody asks for them.
    fn count(&self, flow: Flow, change: i64, effects: &mut Effects) {
        if self.service.selection == Selection::LeastConnections && flow.is_live() {
            effects.loads.push((flow.index, change));
        }
    }
}

/// An entry's state once a packet of its flow has come by.
fn after(state: FlowState, kind: Kind) -> FlowState {
    match (kind, state) {
        (Kind::Closes, _) => FlowState::Closing,
        (Kind::Opens, FlowState::Closing) => FlowState::Confirmed,
        (Kind::Continues, FlowState::Unconfirmed) | (Kind::Datagram, _) => FlowState::Confirmed,
        (_, state) => state,
    }
}

/// The slot whose number is the hash's top bits: hash × size / 2⁶⁴.
fn named_slot(state: &State, service: &Service, hash: u64) -> Result<(u32, Slot), DropReason> {
    let number = ((u128::from(hash) * service.slots.len() as u128) >> 64) as usize;
    slot_at(state, service, number)
}

/// A slot of the service's region, with its place in the lookup map.
fn slot_at(state: &State, service: &Service, number: usize) -> Result<(u32, Slot), DropReason> {
    let place = service.base + number as u32;
    let slot = service.slots.get(number).filter(|_| place < state.lookup_limit);
    slot.map(|&slot| (place, slot)).ok_or(DropReason::BadMapEntry)
}
