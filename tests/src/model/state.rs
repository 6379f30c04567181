//! What the maps hold, as the controller thinks of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::flow::{Bucket, EMPTY_BUCKET};
use super::track::Effects;

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
    /// Coarse time: whole seconds.
    pub now: u64,
    /// The flow table, as many buckets as a power of two.
    pub flows: Vec<Bucket>,
    /// By place in the lookup map; zeros where nothing was stamped.
    pub stamps: BTreeMap<u32, Stamps>,
    /// By backend index.
    pub loads: BTreeMap<u32, Load>,
    /// How many flows round-robin has placed, by service.
    pub placed: BTreeMap<u32, u64>,
}

impl State {
    /// Without services, backends and flows.
    #[must_use]
    pub fn new(hash_key: HashKey, ingress: u32, flow_buckets: usize) -> Self {
        Self {
            hash_key,
            ingress,
            services: Vec::new(),
            backends: BTreeMap::new(),
            egress: BTreeMap::new(),
            backend_limit: 0,
            egress_limit: 0,
            lookup_limit: 0,
            now: 0,
            flows: vec![EMPTY_BUCKET; flow_buckets],
            stamps: BTreeMap::new(),
            loads: BTreeMap::new(),
            placed: BTreeMap::new(),
        }
    }

    /// Whether flows of a service may be sent to a backend: new ones or existing ones.
    #[must_use]
    pub fn accepts(&self, service: u32, index: u32, new_flows: bool) -> bool {
        self.backends.get(&index).is_some_and(|backend| {
            let open = if new_flows { backend.accepts_new_flows } else { backend.accepts_existing_flows };
            backend.service == service && open
        })
    }

    /// Live flows of a backend as least-connections reckons with them.
    #[must_use]
    pub fn live_flows(&self, index: u32) -> u64 {
        let load = self.loads.get(&index).copied().unwrap_or_default();
        let sum = load.base.wrapping_add(load.changes);
        // Closed flows that no scan had counted.
        if sum < 1 << 63 { sum } else { 0 }
    }

    /// What a packet leaves behind.
    pub fn apply(&mut self, effects: &Effects) {
        if let Some(looked) = effects.looked_at {
            if let Some((place, word)) = effects.entry {
                self.flows[looked.bucket][place] = word;
            }
            if effects.exception || effects.failed {
                let stamps = effects.stamps(self);
                self.stamps.insert(looked.slot, stamps);
            }
        }
        for &(index, change) in &effects.loads {
            let load = self.loads.entry(index).or_default();
            load.changes = load.changes.wrapping_add_signed(change);
        }
        if let Some(service) = effects.rotated {
            let placed = self.placed.entry(service).or_default();
            *placed = placed.wrapping_add(1);
        }
    }
}

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
    /// A number the controller never writes.
    Unknown(u8),
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    pub address: IpAddr,
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
