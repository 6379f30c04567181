//! Tracked services, packet by packet: a world, one of its services, and one flow of a client.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use super::fixture::{BACKENDS, Family, Host, client};
use super::frame::{ACK, FIN, Packet, RST, SYN};
use super::tracked::Tracked;
use super::world::World;
use crate::model::{Decision, Fate, Flow, FlowState, Protocol, Slot, Stamps, decide, flow};

/// A story about one service. Every packet is compared between program and model; what a story says of it is checked as
/// well.
pub struct Story {
    pub world: World,
    service: usize,
    family: Family,
    protocol: Protocol,
    port: u16,
    /// Source port of the flow that is told of.
    pub source_port: u16,
}

/// When stories begin.
pub const START: u64 = 70_000;

impl Story {
    #[must_use]
    pub fn within(mut world: World, tracked: Tracked, family: Family, protocol: Protocol) -> Self {
        world.set_time(START);
        let service = tracked.place(&world, family, protocol);
        Self { world, service, family, protocol, port: tracked.port(), source_port: 40_000 }
    }

    /// Compares all there is, and hands the world on with an empty flow table.
    pub fn end(mut self) -> Result<World> {
        self.world.audit()?;
        for bucket in 0..self.world.state.flows.len() {
            (0..8).for_each(|at| self.world.plant(bucket, at, 0));
        }
        Ok(self.world)
    }

    /// One of the service's three backends, by its index.
    #[must_use]
    pub fn backend(&self, number: u32) -> u32 {
        1 + self.world.state.services[self.service].number * BACKENDS + number
    }

    #[must_use]
    pub fn service(&self) -> u32 {
        self.world.state.services[self.service].number
    }

    /// The flow's frame.
    #[must_use]
    pub fn frame(&self, flags: u8) -> Vec<u8> {
        let source: IpAddr = client(self.family, 3);
        let to = (Host::Vip.address(self.family), self.port);
        let mut packet = Packet::new(self.protocol, (source, self.source_port), to);
        packet.tcp_flags = flags;
        packet.build()
    }

    /// The flow's slot, by its place in the lookup map.
    #[must_use]
    pub fn slot(&self) -> u32 {
        decide(&self.world.state, &self.frame(ACK)).effects.slot.expect("the packet is for the service")
    }

    pub fn set_slot(&mut self, slot: Slot) -> Result<()> {
        let base = self.world.state.services[self.service].base;
        self.world.change_slot(self.service, (self.slot() - base) as usize, slot)
    }

    /// Opens the slot of the flow: from `previous` to `current`, now.
    pub fn open(&mut self, current: u32, previous: u32) -> Result<()> {
        let opened = self.world.state.now as u16;
        self.world.set_stamps(self.slot(), Stamps { exception: opened, failed: opened });
        self.set_slot(Slot { current, previous, opened, tracked: true })
    }

    /// Makes backends accept new and existing flows, or not.
    pub fn accepts(&mut self, index: u32, new_flows: bool, existing: bool) -> Result<()> {
        self.world.change_backend(index, |backend| {
            backend.accepts_new_flows = new_flows;
            backend.accepts_existing_flows = existing;
        })
    }

    /// Sends a packet of the flow, which must reach `backend` in this way.
    pub fn send(&mut self, flags: u8, backend: u32, fate: Option<Fate>) -> Result<Decision> {
        let frame = self.frame(flags);
        let decision = self.world.check(&frame)?;
        let reached = decision.counted.map_or(0, |counted| counted.backend);
        let found = decision.effects.looked_at.map(|looked| looked.fate);
        ensure!(
            (reached, found) == (backend, fate),
            "flags {flags:#x} reached {reached} ({found:?}), not {backend} ({fate:?})"
        );
        Ok(decision)
    }

    pub fn syn(&mut self, backend: u32, fate: Fate) -> Result<Decision> {
        self.send(SYN, backend, Some(fate))
    }

    pub fn ack(&mut self, backend: u32, fate: Fate) -> Result<Decision> {
        self.send(ACK, backend, Some(fate))
    }

    pub fn fin(&mut self, backend: u32, fate: Fate) -> Result<Decision> {
        self.send(FIN | ACK, backend, Some(fate))
    }

    pub fn rst(&mut self, backend: u32, fate: Fate) -> Result<Decision> {
        self.send(RST, backend, Some(fate))
    }

    /// A datagram; flags are nothing to it.
    pub fn datagram(&mut self, backend: u32, fate: Fate) -> Result<Decision> {
        self.send(0, backend, Some(fate))
    }

    pub fn wait(&mut self, seconds: u64) {
        self.world.set_time(self.world.state.now + seconds);
    }

    /// The flow's bucket and tag.
    #[must_use]
    pub fn place(&self) -> (usize, u64) {
        let looked = decide(&self.world.state, &self.frame(ACK)).effects.looked_at;
        looked.map(|looked| (looked.bucket, looked.tag)).expect("the flow is tracked")
    }

    /// The flow's entries, lowest first.
    #[must_use]
    pub fn entries(&self) -> Vec<(FlowState, u32)> {
        let (bucket, tag) = self.place();
        let flows = self.world.state.flows[bucket].into_iter().filter_map(Flow::from_word);
        flows.filter(|flow| flow.tag == tag).map(|flow| (flow.state, flow.index)).collect()
    }

    /// Puts an entry of this flow, seen now, into its bucket.
    pub fn plant(&mut self, at: usize, state: FlowState, index: u32) {
        let (bucket, tag) = self.place();
        let epoch = self.world.state.now % flow::EPOCHS;
        self.world.plant(bucket, at, Flow { tag, state, epoch, index }.word());
    }

    /// Fills the flow's bucket with entries of others, last seen so long ago.
    pub fn fill(&mut self, state: FlowState, age: u64) {
        let (bucket, tag) = self.place();
        let epoch = (self.world.state.now - age) % flow::EPOCHS;
        for at in 0..8 {
            let other = Flow { tag: tag ^ (at as u64 + 1), state, epoch, index: self.backend(2) };
            self.world.plant(bucket, at, other.word());
        }
    }

    #[must_use]
    pub fn stamps(&self) -> Stamps {
        self.world.state.stamps.get(&self.slot()).copied().unwrap_or_default()
    }
}
