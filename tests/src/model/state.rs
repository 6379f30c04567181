//! What the maps hold, as the controller thinks of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Everything a decision depends on, besides the frame.
#[derive(Clone, Debug)]
pub struct State {
    /// Halves of the fleet's secret.
    pub hash_key: HashKey,
    /// Interface the frame came in on.
    pub ingress: u32,
    pub services: Vec<Service>,
    /// Backends by index. An index that is not here has an all-zero record, if it is below `backend_limit`.
    pub backends: BTreeMap<u32, Backend>,
    /// Ways out by number, as `backends`.
    pub egress: BTreeMap<u16, Egress>,
    /// Entries of the maps.
    pub backend_limit: u32,
    pub egress_limit: u32,
    pub lookup_limit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey {
    pub k0: u64,
    pub k1: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];

    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// Length of the header without options.
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self {
            Self::Tcp => 20,
            Self::Udp => 8,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    L2Dsr,
    Ipip,
    /// A number the controller never writes.
    Unknown(u8),
}

/// What decides a packet's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotHash {
    Source,
    Flow,
}

#[derive(Clone, Debug)]
pub struct Service {
    /// Number of its record and counters.
    pub number: u32,
    pub address: IpAddr,
    /// `None` owns every port of the address.
    pub port: Option<u16>,
    pub protocol: Protocol,
    pub forwarding: Forwarding,
    pub hash: SlotHash,
    /// Where its slots begin in the lookup map.
    pub base: u32,
    /// A backend index a slot, 0 for none; as many as a power of two.
    pub slots: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    pub address: IpAddr,
    pub accepts_existing_flows: bool,
    /// MAC address and egress number; `None` while the kernel has not resolved it.
    pub next_hop: Option<([u8; 6], u16)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    pub source_mac: [u8; 6],
    pub interface: u32,
    pub mtu: u32,
    /// Source of outer headers.
    pub source: IpAddr,
    /// Whether the device map has the interface too.
    pub has_device: bool,
}
