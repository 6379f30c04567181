//! Services, backends and ways out, as the controller thinks of them.

use std::net::{IpAddr, Ipv6Addr};

/// Two times of a slot, low 16 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    pub exception: u16,
    pub failed: u16,
}

/// The sum is how many live flows a backend has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub base: u64,
    pub changes: u64,
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
    Gue,
    Dnat,
    Nat,
    /// A number the controller never writes.
    Unknown(u8),
}

impl Forwarding {
    /// Whether replies pass the load balancer.
    #[must_use]
    pub const fn translates(self) -> bool {
        matches!(self, Self::Dnat | Self::Nat)
    }

    #[must_use]
    pub const fn tunnels(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }
}

/// What decides a packet's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotHash {
    Source,
    Flow,
}

/// Which flows have entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tracking {
    Auto,
    Always,
    Never,
}

/// Who chooses a new flow's backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Selection {
    Hash,
    RoundRobin,
    LeastConnections,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub current: u32,
    /// 0 for none.
    pub previous: u32,
    /// Low 16 bits of the time.
    pub opened: u16,
    pub tracked: bool,
}

impl Slot {
    /// One that is not tracked.
    #[must_use]
    pub const fn steady(current: u32) -> Self {
        Self { current, previous: 0, opened: 0, tracked: false }
    }
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
    /// As many as a power of two.
    pub slots: Vec<Slot>,
    pub tracking: Tracking,
    pub selection: Selection,
    /// How many slots, from the first, round-robin goes through.
    pub rotation: u32,
    /// Seconds without a packet after which a flow is over.
    pub idle_timeout: u32,
    /// List of prefixes that says who may send; 0 for everybody.
    pub source_list: u32,
    /// Flows that may be opened in a second; 0 for any number.
    pub new_flow_limit: u32,
    /// Whether packets for which there is no backend are answered.
    pub rejects: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    pub address: IpAddr,
    /// 0 keeps the client's.
    pub port: u16,
    /// The one service it belongs to.
    pub service: u32,
    pub accepts_new_flows: bool,
    pub accepts_existing_flows: bool,
    pub weight: u16,
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

impl Egress {
    /// What the map has at a number that nobody wrote.
    pub(super) const NEVER_WRITTEN: Self = Self {
        source_mac: [0; 6],
        interface: 0,
        mtu: 0,
        source: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        has_device: false,
    };
}

/// What `[nat]` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    pub first_port: u16,
    pub last_port: u16,
    /// Of both families.
    pub addresses: Vec<IpAddr>,
}

/// Whether a service takes packets of these clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub list: u32,
    /// IPv6, or IPv4 mapped into it.
    pub address: Ipv6Addr,
    /// Of the 128 bits.
    pub bits: u32,
    pub allows: bool,
}

impl Prefix {
    #[must_use]
    pub fn covers(&self, client: IpAddr) -> bool {
        let differ = u128::from(self.address) ^ u128::from(mapped(client));
        self.bits == 0 || differ >> (128 - self.bits) == 0
    }
}

/// Addresses as the maps have them.
#[must_use]
pub fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
