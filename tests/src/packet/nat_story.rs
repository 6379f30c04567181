//! Flows through NAT, packet by packet. What leaves is compared with a packet made from scratch as well.

use anyhow::{Context, Result, bail, ensure};
use lb_common::abi::DropReason;

use super::fixture::{Family, client};
use super::frame::{BALANCER_MAC, CLIENT_MAC, Packet};
use super::modes::Mode;
use super::world::World;
use crate::model::{NatFlow, NatFlowKey, NatReply, NatReplyKey, Protocol, Verdict};

/// A world, and one flow of a client of one of its services.
pub struct NatStory {
    pub world: World,
    pub mode: Mode,
    pub family: Family,
    pub protocol: Protocol,
    /// The client, and its port.
    pub client: u16,
    pub port: u16,
}

/// When stories begin.
pub const START: u64 = 5_000;

impl NatStory {
    #[must_use]
    pub fn within(mut world: World, mode: Mode, family: Family, protocol: Protocol) -> Self {
        world.set_time(START);
        Self { world, mode, family, protocol, client: 3, port: 40_123 }
    }

    /// Compares all there is, and hands the world on without flows.
    pub fn end(mut self) -> Result<World> {
        self.world.audit()?;
        let keys: Vec<_> = self.world.state.nat.replies.keys().copied().collect();
        keys.iter().try_for_each(|key| self.world.remove_nat(key))?;
        self.world.forget_notes()?;
        Ok(self.world)
    }

    /// Port of the service, or one of its ports.
    #[must_use]
    pub fn vip_port(&self) -> u16 {
        self.mode.port()
    }

    /// A packet of the client.
    #[must_use]
    pub fn sends(&self, flags: u8) -> Packet {
        let vip = self.mode.host().address(self.family);
        let source = (client(self.family, self.client), self.port);
        let mut packet = Packet::new(self.protocol, source, (vip, self.vip_port()));
        packet.tcp_flags = flags;
        packet
    }

    /// A packet of the backend.
    pub fn answers(&self, flags: u8) -> Result<Packet> {
        let (key, _) = self.reply().context("the flow has no entry")?;
        let source = (key.backend, key.backend_port);
        let mut packet = Packet::new(self.protocol, source, (key.our_address, key.our_port));
        packet.tcp_flags = flags;
        packet.ttl = 64;
        Ok(packet)
    }

    #[must_use]
    pub fn flow_key(&self) -> NatFlowKey {
        let place = self.mode.place(&self.world, self.family, self.protocol);
        NatFlowKey {
            client: client(self.family, self.client),
            client_port: self.port,
            vip_port: self.vip_port(),
            service: self.world.state.services[place].number,
        }
    }

    #[must_use]
    pub fn flow(&self) -> Option<NatFlow> {
        self.world.state.nat.flows.get(&self.flow_key()).copied()
    }

    #[must_use]
    pub fn reply(&self) -> Option<(NatReplyKey, NatReply)> {
        let key = self.flow_key();
        let mut replies = self.world.state.nat.replies.iter();
        replies.find(|(_, reply)| reply.flow_key() == key).map(|(key, reply)| (*key, *reply))
    }

    /// Sends a packet of the client, which must reach a backend as one made from scratch.
    pub fn reaches(&mut self, packet: &Packet) -> Result<NatFlow> {
        let out = self.out(packet)?;
        let flow = self.flow().context("the flow has no entry")?;
        let (l2, made) = self.made(packet, &flow)?;
        ensure!(out == [l2, made.ip()].concat(), "what left is not what should have");
        Ok(flow)
    }

    /// The packet that a backend gets, and what is before it.
    pub fn made(&self, packet: &Packet, flow: &NatFlow) -> Result<(Vec<u8>, Packet)> {
        let backend = self.world.state.backends[&flow.backend];
        let (mac, number) = backend.next_hop.context("the backend has no next hop")?;
        let made = Packet {
            source: flow.our_address,
            source_port: flow.our_port,
            destination: backend.address,
            destination_port: flow.backend_port,
            ttl: packet.ttl - 1,
            ..packet.clone()
        };
        Ok((made.l2(mac, self.world.state.egress[&number].source_mac), made))
    }

    /// Sends a packet of the backend, which must reach the client as one made from scratch.
    pub fn returns(&mut self, packet: &Packet) -> Result<()> {
        let out = self.out(packet)?;
        let made = self.made_for_client(packet);
        ensure!(
            out == [made.l2(CLIENT_MAC, BALANCER_MAC), made.ip()].concat(),
            "not what should have come back"
        );
        Ok(())
    }

    /// The packet that the client gets.
    #[must_use]
    pub fn made_for_client(&self, packet: &Packet) -> Packet {
        Packet {
            source: self.mode.host().address(self.family),
            source_port: self.vip_port(),
            destination: client(self.family, self.client),
            destination_port: self.port,
            ttl: packet.ttl - 1,
            ..packet.clone()
        }
    }

    fn out(&mut self, packet: &Packet) -> Result<Vec<u8>> {
        match self.world.check(&packet.build())?.verdict {
            Verdict::Transmit(out) | Verdict::Redirect(out) => Ok(out),
            other => bail!("it did not leave: {other:?}"),
        }
    }

    /// Sends a packet that must be dropped.
    pub fn loses(&mut self, packet: &Packet, reason: DropReason) -> Result<()> {
        let verdict = self.world.check(&packet.build())?.verdict;
        ensure!(verdict == Verdict::Drop(reason), "{verdict:?} instead of {}", reason.name());
        Ok(())
    }

    /// Sends a packet that must be passed.
    pub fn passes(&mut self, packet: &Packet) -> Result<()> {
        let verdict = self.world.check(&packet.build())?.verdict;
        ensure!(verdict == Verdict::Pass, "{verdict:?} instead of passing");
        Ok(())
    }

    pub fn wait(&mut self, seconds: u64) {
        self.world.set_time(self.world.state.now + seconds);
    }

    /// Makes all backends of the service accept new and existing flows, or not.
    pub fn accepts(&mut self, new_flows: bool, existing: bool) -> Result<()> {
        let number = self.flow_key().service;
        let of_it = self.world.state.backends.iter().filter(|(_, backend)| backend.service == number);
        let indexes: Vec<_> = of_it.map(|(index, _)| *index).collect();
        for index in indexes {
            self.world.change_backend(index, |backend| {
                backend.accepts_new_flows = new_flows;
                backend.accepts_existing_flows = existing;
            })?;
        }
        Ok(())
    }
}
