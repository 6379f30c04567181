//! A packet off the straight path, as global functions know it: in memory of its CPU, because their arguments and stacks
//! are too small for it.

use lb_common::{
    abi::{DropReason, NextHop, PROTOCOL_ANY, PROTOCOL_TCP},
    hash::{self, HashKey},
};

use crate::{
    maps,
    nat::leg::Leaving,
    parse::{Address, Packet, Transport},
    select::{Selected, Subject},
    settings,
};

/// What is known of a packet. All of it is in host order, but addresses, ports and identification: they are as on the
/// wire, in memory order.
#[repr(C)]
pub struct Journey {
    /// As a service key has it: IPv4 as `::ffff:a.b.c.d`.
    pub source: [u64; 2],
    pub destination: [u64; 2],
    /// A [`NextHop`].
    pub next_hop: u64,
    /// Entropy of outer headers: the hash that chose the slot, or the flow's.
    pub hash: u64,
    /// Where the IP header starts, and the transport header.
    pub l3: u32,
    pub l4: u32,
    /// Header and payload in bytes.
    pub total_len: u32,
    pub frame_len: u32,
    /// Source and destination port; 0 where there are none.
    pub ports: u32,
    /// IPv4's two bytes, zeros behind them; of IPv6 that of the fragment header.
    pub identification: u32,
    /// Of `BACKENDS` and `SERVICES`.
    pub backend: u32,
    pub service: u32,
    /// `FORWARDING_*`.
    pub forwarding: u32,
    pub opens_flow: u32,
    /// IPv4's flag, a bit of 16.
    pub dont_fragment: u32,
    /// Where the fragment header of an IPv6 fragment starts.
    pub fragment_header: u32,
    /// 4 or 6.
    pub family: u8,
    pub protocol: u8,
    pub tcp_flags: u8,
    pub traffic_class: u8,
    pub ttl: u8,
    /// `FRAGMENT_*`.
    pub fragment: u8,
    /// Not 0: an authentication header covers what NAT would change.
    pub authenticated: u8,
    /// Not 0: an ICMP error about a flow. Addresses (but that it comes from), ports and protocol are those of the flow's
    /// client; the flow's entries are neither made nor refreshed.
    pub observes: u8,
}

/// Not a fragment, the first of several, another one.
pub const FRAGMENT_NONE: u8 = 0;
pub const FRAGMENT_FIRST: u8 = 1;
pub const FRAGMENT_LATER: u8 = 2;

impl Journey {
    /// This CPU's. Nothing interrupts the program on its CPU, so there is one packet at a time.
    #[inline(always)]
    pub fn of_this_cpu() -> Result<&'static mut Self, DropReason> {
        let journey = maps::JOURNEY.get_ptr_mut(0).ok_or(DropReason::BadMapEntry)?;
        // SAFETY: this CPU's entry, which lives as long as the map. Whoever holds another reference has handed control
        // over, and reads again what it needs afterwards.
        Ok(unsafe { &mut *journey })
    }

    /// Starts one. What belongs to a backend is not known yet.
    #[inline(always)]
    pub fn start<A: Address>(packet: &Packet<A>) -> Result<&'static mut Self, DropReason> {
        let journey = Self::of_this_cpu()?;
        let (ports, tcp_flags) = match packet.transport {
            Transport::Ports { ports, tcp_flags } => (ports, tcp_flags),
            Transport::Unreadable(_) => (0, 0),
        };
        journey.source = packet.source.service_words();
        journey.destination = packet.destination.service_words();
        journey.l3 = packet.l3 as u32;
        journey.l4 = packet.l4 as u32;
        journey.total_len = packet.total_len;
        journey.frame_len = packet.frame_len as u32;
        journey.ports = ports;
        journey.identification = u32::from(packet.identification.to_be());
        journey.dont_fragment = packet.dont_fragment.into();
        journey.family = A::VERSION;
        journey.protocol = packet.protocol;
        journey.tcp_flags = tcp_flags;
        journey.traffic_class = packet.traffic_class;
        journey.ttl = packet.ttl;
        journey.fragment = FRAGMENT_NONE;
        journey.authenticated = 0;
        journey.observes = 0;
        Ok(journey)
    }

    /// Where its IP header starts, which is behind two tags at most. For the verifier, who knows nothing of what is read
    /// from a map.
    #[inline(always)]
    pub fn ip_at(&self) -> usize {
        (self.l3 & 0x1f) as usize
    }

    /// Where its transport header starts, which is behind 512 bytes of extension headers at most.
    #[inline(always)]
    pub fn transport_at(&self) -> usize {
        (self.l4 & 0x3ff) as usize
    }

    /// Where the packet ends, padding excluded.
    #[inline(always)]
    pub fn end(&self) -> u32 {
        self.l3 + self.total_len
    }

    #[inline(always)]
    pub fn is_first_fragment(&self) -> bool {
        self.fragment == FRAGMENT_FIRST
    }

    /// Whether it is a fragment without ports.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment == FRAGMENT_LATER
    }

    /// What of a fragment's protocol all fragments of its packet know.
    #[inline(always)]
    pub fn fragments_protocol(&self) -> u8 {
        if self.family == 4 { self.protocol } else { PROTOCOL_ANY }
    }

    /// Where it goes.
    #[inline(always)]
    pub fn to(&mut self, selected: &Selected, service: u32, forwarding: u8) {
        self.next_hop = selected.next_hop.0;
        self.hash = selected.hash;
        self.backend = selected.index;
        self.service = service;
        self.forwarding = forwarding.into();
        self.opens_flow = selected.opens_flow.into();
    }

    #[inline(always)]
    pub fn source_hash(&self, key: HashKey) -> u64 {
        if self.family == 4 {
            hash::source_v4(key, unmapped(self.source))
        } else {
            hash::source_v6(key, self.source)
        }
    }

    #[inline(always)]
    pub fn flow_hash(&self, key: HashKey) -> u64 {
        if self.family == 4 {
            hash::flow_v4(key, unmapped(self.source), unmapped(self.destination), self.ports, self.protocol)
        } else {
            hash::flow_v6(key, self.source, self.destination, self.ports, self.protocol)
        }
    }

    /// Identification for a fragment whose source is about to be shared by several clients.
    #[inline(always)]
    pub fn new_identification(&self, key: HashKey) -> u32 {
        let old = self.identification;
        if self.family == 4 {
            let (source, destination) = (unmapped(self.source), unmapped(self.destination));
            u32::from(hash::flow_v4(key, source, destination, old, self.protocol) as u16)
        } else {
            hash::flow_v6(key, self.source, self.destination, old, 0) as u32
        }
    }

    #[inline(always)]
    pub fn next_hop(&self) -> NextHop {
        NextHop(self.next_hop)
    }
}

impl Leaving for Journey {
    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.ttl
    }

    #[inline(always)]
    fn total_len(&self) -> u32 {
        self.total_len
    }

    #[inline(always)]
    fn frame_len(&self) -> u32 {
        self.frame_len
    }
}

/// As the straight path's packets. Hashes are global functions: what selects has no stack left for them.
impl Subject for Journey {
    #[inline(always)]
    fn source_hash(&self) -> u64 {
        ballast_source_hash()
    }

    #[inline(always)]
    fn flow_hash(&self) -> u64 {
        ballast_flow_hash()
    }

    #[inline(always)]
    fn tcp_flags(&self) -> u8 {
        self.tcp_flags
    }

    #[inline(always)]
    fn is_datagram(&self) -> bool {
        self.protocol != PROTOCOL_TCP && self.observes == 0
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_source_hash() -> u64 {
    Journey::of_this_cpu().map_or(0, |journey| journey.source_hash(settings::hash_key()))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_flow_hash() -> u64 {
    Journey::of_this_cpu().map_or(0, |journey| journey.flow_hash(settings::hash_key()))
}

/// An address as the ABI's structures have it.
#[inline(always)]
pub fn bytes(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: as many bytes, none of which means more than itself.
    unsafe { core::mem::transmute(words) }
}

/// The IPv4 address in a mapped one.
#[inline(always)]
pub const fn unmapped([_, low]: [u64; 2]) -> u32 {
    (low >> 32) as u32
}
