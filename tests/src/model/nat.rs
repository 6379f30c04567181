//! Flows whose packets get new addresses: their two entries, and when they are over.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::service::Protocol;
use super::state::State;

/// Both sides of all flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatTables {
    pub flows: BTreeMap<NatFlowKey, NatFlow>,
    pub replies: BTreeMap<NatReplyKey, NatReply>,
    /// Entries that each of them has room for.
    pub limit: usize,
}

impl NatTables {
    pub fn apply(&mut self, change: &NatChange) {
        match *change {
            NatChange::Flow(key, Some(flow)) => drop(self.flows.insert(key, flow)),
            NatChange::Flow(key, None) => drop(self.flows.remove(&key)),
            NatChange::Reply(key, Some(reply)) => drop(self.replies.insert(key, reply)),
            NatChange::Reply(key, None) => drop(self.replies.remove(&key)),
        }
    }
}

/// An entry that is written, or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatChange {
    Flow(NatFlowKey, Option<NatFlow>),
    Reply(NatReplyKey, Option<NatReply>),
}

/// How a client's packets are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatFlowKey {
    pub client: IpAddr,
    pub client_port: u16,
    /// Of a service of every port it is not the service's.
    pub vip_port: u16,
    pub service: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatFlow {
    pub seen: Seen,
    pub backend: u32,
    pub backend_port: u16,
    pub our_address: IpAddr,
    pub our_port: u16,
    /// Source MAC address of the client's last packet, and the low bits of the interface it came by.
    pub came_by: ([u8; 6], u16),
}

/// How a backend's packets are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatReplyKey {
    pub backend: IpAddr,
    pub backend_port: u16,
    pub our_address: IpAddr,
    pub our_port: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatReply {
    pub seen: Seen,
    pub client: IpAddr,
    pub client_port: u16,
    pub vip: IpAddr,
    pub vip_port: u16,
    pub service: u32,
    pub backend: u32,
    /// The way back: interface, and the frame's addresses.
    pub interface: u32,
    pub next_hop: [u8; 6],
    pub source_mac: [u8; 6],
}

impl NatReply {
    /// The flow's other entry.
    #[must_use]
    pub const fn flow_key(&self) -> NatFlowKey {
        NatFlowKey {
            client: self.client,
            client_port: self.client_port,
            vip_port: self.vip_port,
            service: self.service,
        }
    }
}

/// What came from one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Low bits of the time of the last packet.
    pub time: u32,
    /// Of a client's TCP flow a segment that is no SYN, of its UDP flow a second datagram; of a backend's anything.
    pub confirmed: bool,
    pub fin: bool,
    pub rst: bool,
}

impl Seen {
    #[must_use]
    pub const fn at(now: u64) -> Self {
        Self { time: now as u32, confirmed: false, fin: false, rst: false }
    }

    /// A time that seems to lie in the future is now.
    const fn age(self, now: u64) -> u32 {
        let age = (now as u32).wrapping_sub(self.time);
        if age < 1 << 31 { age } else { 0 }
    }
}

/// Whether a SYN of the client starts it anew.
#[must_use]
pub const fn is_closed(flow: &NatFlow, reply: &NatReply) -> bool {
    reply.seen.rst || flow.seen.fin && reply.seen.fin || flow.seen.rst
}

/// Whether another flow may have its port.
#[must_use]
pub fn is_over(state: &State, protocol: Protocol, flow: &NatFlow, reply: &NatReply) -> bool {
    let age = flow.seen.age(state.now).min(reply.seen.age(state.now));
    // What was seen before time stood still, was seen at some moment of it.
    let (at, length) = state.jump;
    let before = age > (state.now as u32).wrapping_sub(at);
    let age = if before { age.saturating_sub(length) } else { age };
    let idle = state.idle_timeouts.get(&reply.service).copied().unwrap_or_default();
    let got_going = match protocol {
        Protocol::Tcp => flow.seen.confirmed && reply.seen.confirmed,
        Protocol::Udp => flow.seen.confirmed,
    };
    let ended = reply.seen.rst || flow.seen.fin && reply.seen.fin;
    let most = match () {
        () if ended || !got_going => 5,
        () if flow.seen.rst => 60,
        () => idle,
    };
    age > most.min(idle)
}
