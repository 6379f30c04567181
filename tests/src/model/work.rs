//! What every step knows, and how a packet's way may end.

use std::hash::Hasher as _;
use std::net::IpAddr;

use lb_common::abi::DropReason;
use siphasher::sip::SipHasher13;

use super::headers::Frame;
use super::nat::NatFlowKey;
use super::service::{Protocol, Service, SlotHash};
use super::state::State;

/// A packet on its way.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) state: &'a State,
    pub(super) frame: Frame<'a>,
    pub(super) chosen: &'a dyn Fn(&NatFlowKey) -> Chosen,
}

/// What the data plane did where the rules leave it a choice: the address and port of a new NAT flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Nobody has looked; any that is allowed will do.
    Unknown,
    Taken(IpAddr, u16),
    /// It found none.
    Nothing,
}

/// What becomes of a frame, with the frame that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the host's own stack, as it came.
    Pass,
    /// Back out of the interface it came in on.
    Transmit(Vec<u8>),
    /// Out of another interface.
    Redirect(Vec<u8>),
    Drop(DropReason),
}

/// What a forwarded packet is counted for, besides its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub service: u32,
    pub backend: u32,
    /// The frame's length as it came in.
    pub bytes: u64,
    pub new_flow: bool,
    /// From the backend to the client.
    pub reply: bool,
}

/// A packet that leaves.
pub(super) struct Sent {
    pub(super) verdict: Verdict,
    pub(super) counted: Option<Counted>,
}

/// A packet that does not, and what its sender has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Drop(DropReason),
    Expired,
    /// With the size that would have fitted.
    TooBig(u32),
    /// There is no backend, and the service says to tell.
    Rejected,
}

impl Refusal {
    /// Of a packet of this service.
    pub(super) fn by(self, service: &Service) -> Self {
        if self == Self::Drop(DropReason::NoBackend) && service.rejects { Self::Rejected } else { self }
    }
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// Who sends what to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow5 {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) protocol: Protocol,
}

impl Flow5 {
    /// The other direction.
    pub(super) const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

impl<'a> Work<'a> {
    /// Whether a service of the protocol lives on the address; of any protocol where none is known.
    pub(super) fn is_vip(&self, address: IpAddr, protocol: Option<Protocol>) -> bool {
        self.state.services.iter().any(|service| {
            service.address == address && protocol.is_none_or(|protocol| protocol == service.protocol)
        })
    }

    /// The exact port wins over every port.
    pub(super) fn find(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<&'a Service> {
        let of_port = |port: Option<u16>| {
            self.state.services.iter().find(|service| {
                service.address == address && service.protocol == protocol && service.port == port
            })
        };
        of_port(Some(port)).or_else(|| of_port(None))
    }

    /// SipHash-1-3 over the packet's bytes, as they are on the wire.
    pub(super) fn hash(&self, covers: SlotHash, flow: &Flow5) -> u64 {
        let mut input = octets(flow.source);
        if covers == SlotHash::Flow {
            input.extend(octets(flow.destination));
            input.extend(flow.source_port.to_be_bytes());
            input.extend(flow.destination_port.to_be_bytes());
            input.push(flow.protocol.number());
        }
        self.hash_of(&input)
    }

    /// Identification of the fragments of a packet whose source is about to be ours: several clients have one now.
    pub(super) fn new_identification(
        &self,
        source: IpAddr,
        destination: IpAddr,
        old: [u8; 4],
        protocol: Protocol,
    ) -> [u8; 4] {
        let mut input = octets(source);
        input.extend(octets(destination));
        input.extend(old);
        input.push(if source.is_ipv4() { protocol.number() } else { 0 });
        let [a, b, c, d, ..] = self.hash_of(&input).to_ne_bytes();
        if source.is_ipv4() { [a, b, 0, 0] } else { [a, b, c, d] }
    }

    fn hash_of(&self, input: &[u8]) -> u64 {
        let key = self.state.hash_key;
        let mut hasher = SipHasher13::new_with_keys(key.k0, key.k1);
        hasher.write(input);
        hasher.finish()
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
