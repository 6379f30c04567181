//! Address and port of a new NAT flow. Which of those that are free is the data plane's choice; that it chose one of
//! them, and that it did not give up too early, is what is checked here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_common::abi::DropReason;

use super::effects::{Effects, Event};
use super::forward::Road;
use super::nat::{self, NatChange, NatFlowKey, NatReply, NatReplyKey};
use super::service::{Forwarding, Service};
use super::work::{Chosen, Flow5, Work};

/// Who wants an address and a port.
pub(super) struct Wanted<'a> {
    pub(super) key: NatFlowKey,
    pub(super) flow: &'a Flow5,
    pub(super) service: &'a Service,
    pub(super) road: &'a Road,
    pub(super) backend_port: u16,
}

/// Ports that `nat` tries one after the other.
const NEIGHBOURS: usize = 16;

impl Wanted<'_> {
    pub(super) const fn reply_key(&self, our_address: IpAddr, our_port: u16) -> NatReplyKey {
        NatReplyKey {
            backend: self.road.backend.address,
            backend_port: self.backend_port,
            our_address,
            our_port,
            protocol: self.flow.protocol,
        }
    }
}

pub(super) fn allocate(
    work: &Work<'_>,
    wanted: &Wanted<'_>,
    effects: &mut Effects,
) -> Result<(IpAddr, u16), DropReason> {
    let search = Search { work, wanted, removed: effects.nat.clone() };
    let (address, port) = match (work.chosen)(&wanted.key) {
        Chosen::Taken(address, port) => (address, port),
        Chosen::Unknown => search.any().ok_or(DropReason::NatExhausted)?,
        Chosen::Nothing => {
            if !search.may_give_up() {
                effects.fault = Some(format!("a port was refused though {:?} is free", search.any()));
            }
            return Err(DropReason::NatExhausted);
        }
    };
    if let Err(fault) = search.is_allowed(address, port) {
        effects.fault = Some(format!("{address} port {port}: {fault}"));
    }
    if let Some((key, over)) = search.holder(address, port) {
        effects.nat.push(NatChange::Flow(over.flow_key(), None));
        effects.nat.push(NatChange::Reply(key, None));
        effects.events.push(Event::NatTakenOver);
    }
    Ok((address, port))
}

struct Search<'a> {
    work: &'a Work<'a>,
    wanted: &'a Wanted<'a>,
    /// What this packet has removed before.
    removed: Vec<NatChange>,
}

impl Search<'_> {
    /// The flow that has the tuple.
    fn holder(&self, address: IpAddr, port: u16) -> Option<(NatReplyKey, NatReply)> {
        let key = self.wanted.reply_key(address, port);
        let is_removed = self.removed.contains(&NatChange::Reply(key, None));
        let reply = self.work.state.nat.replies.get(&key).filter(|_| !is_removed)?;
        Some((key, *reply))
    }

    fn is_free(&self, address: IpAddr, port: u16) -> bool {
        let state = self.work.state;
        self.holder(address, port).is_none_or(|(key, reply)| {
            let flow = state.nat.flows.get(&reply.flow_key());
            flow.is_some_and(|flow| nat::is_over(state, key.protocol, flow, &reply))
        })
    }

    fn addresses(&self) -> Vec<IpAddr> {
        if self.wanted.service.forwarding == Forwarding::Dnat {
            return vec![self.wanted.flow.source];
        }
        let is_v4 = self.wanted.flow.source.is_ipv4();
        let pool = self.work.state.pool.addresses.iter().copied();
        let pool: Vec<_> = pool.filter(|address| address.is_ipv4() == is_v4).collect();
        if pool.is_empty() { vec![self.wanted.road.egress.source] } else { pool }
    }

    fn range(&self) -> std::ops::RangeInclusive<u16> {
        self.work.state.pool.first_port..=self.work.state.pool.last_port
    }

    /// The client's own port, of which `dnat` thinks first.
    fn own(&self) -> Option<u16> {
        (self.wanted.service.forwarding == Forwarding::Dnat).then_some(self.wanted.flow.source_port)
    }

    fn is_allowed(&self, address: IpAddr, port: u16) -> Result<(), &'static str> {
        let own = self.own();
        if !self.addresses().contains(&address) {
            return Err("not one of the addresses");
        }
        if own != Some(port) && !self.range().contains(&port) {
            return Err("not one of the ports");
        }
        if own.is_some_and(|own| own != port && self.is_free(address, own)) {
            return Err("the client's own port was free");
        }
        if !self.is_free(address, port) {
            return Err("another flow has it");
        }
        if self.is_full() && self.holder(address, port).is_none() {
            return Err("the tables were full");
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let is_removal = |change: &&NatChange| matches!(change, NatChange::Reply(_, None));
        let removed = self.removed.iter().filter(is_removal).count();
        self.work.state.nat.replies.len() - removed >= self.work.state.nat.limit
    }

    fn any(&self) -> Option<(IpAddr, u16)> {
        let candidates = self.own().into_iter().chain(self.range());
        let addresses = self.addresses();
        let mut tuples = candidates.flat_map(|port| addresses.iter().map(move |&address| (address, port)));
        tuples.find(|&(address, port)| self.is_allowed(address, port).is_ok())
    }

    /// Whether as many tries as the rules ask for may all have failed.
    fn may_give_up(&self) -> bool {
        if self.is_full() {
            return true;
        }
        self.addresses().into_iter().any(|address| {
            let taken: BTreeSet<_> = self.range().filter(|&port| !self.is_free(address, port)).collect();
            match self.own() {
                Some(own) => !self.is_free(address, own) && !taken.is_empty(),
                None => self.has_taken_neighbours(&taken),
            }
        })
    }

    /// Whether so many ports in a row, the last one's neighbour being the first, are taken.
    fn has_taken_neighbours(&self, taken: &BTreeSet<u16>) -> bool {
        let range: Vec<_> = self.range().collect();
        let needed = NEIGHBOURS.min(range.len());
        let mut run = 0;
        range.iter().chain(&range).any(|port| {
            run = if taken.contains(port) { run + 1 } else { 0 };
            run >= needed
        })
    }
}
