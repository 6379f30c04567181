//! Services: the open-addressed table the data plane probes, and the record the controller goes on from.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::hash;

/// What a packet is looked up by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct ServiceKey {
    /// IPv6, or IPv4 as `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2).
    pub address: [u8; 16],
    /// Network order. 0 in a service that owns every port of its VIP, and in a marker.
    pub port: [u8; 2],
    /// IP protocol number; [`PROTOCOL_ANY`] only in a marker.
    pub protocol: u8,
    /// [`KIND_SERVICE`] or [`KIND_MARKER`].
    pub kind: u8,
    pub _padding: [u8; 4],
}

impl ServiceKey {
    pub const fn service(address: [u8; 16], port: u16, protocol: u8) -> Self {
        Self { address, port: port.to_be_bytes(), protocol, kind: KIND_SERVICE, _padding: [0; 4] }
    }

    /// "Some service of this protocol lives on this address." Lets the data plane decide whether a packet whose ports
    /// can't be read is for a VIP at all.
    pub const fn marker(address: [u8; 16], protocol: u8) -> Self {
        Self { address, port: [0; 2], protocol, kind: KIND_MARKER, _padding: [0; 4] }
    }

    /// The key as three words in memory order, as the data plane compares it.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 3] {
        let a = &self.address;
        [
            u64::from_ne_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]),
            u64::from_ne_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]),
            u64::from_ne_bytes([self.port[0], self.port[1], self.protocol, self.kind, 0, 0, 0, 0]),
        ]
    }

    /// Where a probe for this key starts in a table copy of `mask + 1` entries.
    #[inline(always)]
    pub const fn home(&self, seed: u32, mask: u32) -> u32 {
        (hash::table_hash(self.words(), seed) as u32) & mask
    }
}

/// One entry of `SERVICE_TABLE`: the key and all that forwarding needs, in one cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct ServiceEntry {
    pub key: ServiceKey,
    /// Index into `SERVICES` and `SERVICE_COUNTERS`.
    pub service: u32,
    /// First slot of the service's region in `LOOKUP`.
    pub slots_base: u32,
    /// `64 - log2(table size)`: the slot number is `hash >> slot_shift`.
    pub slot_shift: u8,
    /// `FORWARDING_*`.
    pub forwarding: u8,
    /// `HASH_*`: what the slot hash covers.
    pub hash_key: u8,
    /// `ENTRY_*` bits; a probe ends at an entry that is not [`ENTRY_OCCUPIED`].
    pub flags: u8,
    /// `TRACK_*`: which flows have entries in the flow table.
    pub tracking: u8,
    /// `SELECT_*`: who chooses the backend of a new flow.
    pub selection: u8,
    /// `DropReason` of packets for which there is no backend: `NoBackend`, or `Rejected`, which are answered.
    pub no_backend: u8,
    pub _padding: u8,
    /// Round-robin goes through this many slots of the region, from its first, over and over.
    pub rotation: u32,
    /// List of `SOURCES` that says who may send; 0: everybody.
    pub source_list: u32,
    /// Flows that may be opened in a unit of time; 0: any number.
    pub new_flow_limit: u32,
    /// In time units, as in the service's record; NAT reads it.
    pub flow_idle_timeout: u32,
    pub _padding2: [u8; 8],
}

const _: () = assert!(size_of::<ServiceEntry>() == 64);

/// One entry of `SERVICES`, read and written by the controller alone: what a restarted controller needs to find a
/// service's number and region again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct ServiceRecord {
    /// 128-bit hash of the service's name.
    pub stable_id: [u8; 16],
    pub key: ServiceKey,
    pub slots_base: u32,
    /// log2 of the table size.
    pub slots_log2: u8,
    pub forwarding: u8,
    pub hash_key: u8,
    /// `SERVICE_*` bits.
    pub flags: u8,
    /// In time units: a flow whose last packet is longer ago is forgotten.
    pub flow_idle_timeout: u32,
    /// `TRACK_*`.
    pub tracking: u8,
    /// `SELECT_*`.
    pub selection: u8,
    pub _padding: [u8; 2],
    /// As in [`ServiceEntry`].
    pub source_list: u32,
    pub _padding2: [u8; 4],
}

const _: () = assert!(size_of::<ServiceRecord>() == 64);

pub const KIND_SERVICE: u8 = 0;
pub const KIND_MARKER: u8 = 1;

/// In a marker: any protocol.
pub const PROTOCOL_ANY: u8 = 0;
pub const PROTOCOL_ICMP: u8 = 1;
pub const PROTOCOL_TCP: u8 = 6;
pub const PROTOCOL_UDP: u8 = 17;
pub const PROTOCOL_ICMPV6: u8 = 58;

pub const FORWARDING_L2_DSR: u8 = 1;
pub const FORWARDING_IPIP: u8 = 2;
pub const FORWARDING_GUE: u8 = 3;
pub const FORWARDING_DNAT: u8 = 4;
pub const FORWARDING_NAT: u8 = 5;

/// Whether replies pass the load balancer.
#[inline(always)]
pub const fn translates(forwarding: u8) -> bool {
    forwarding == FORWARDING_DNAT || forwarding == FORWARDING_NAT
}

/// UDP port of GUE packets (IANA: gue).
pub const GUE_PORT: u16 = 6080;

/// The slot hash covers the client's address.
pub const HASH_SOURCE: u8 = 1;
/// The slot hash covers the 5-tuple.
pub const HASH_FLOW: u8 = 2;

/// No flow is tracked: a packet goes to its slot's current backend.
pub const TRACK_NEVER: u8 = 0;
/// Flows are tracked in slots that say so.
pub const TRACK_AUTO: u8 = 1;
/// Flows are tracked in every slot.
pub const TRACK_ALWAYS: u8 = 2;

/// A new flow goes to its slot's current backend.
pub const SELECT_HASH: u8 = 0;
/// New flows go through the rotation's slots one after the other.
pub const SELECT_ROUND_ROBIN: u8 = 1;
/// A new flow goes to the less loaded of two backends.
pub const SELECT_LEAST_CONNECTIONS: u8 = 2;

pub const ENTRY_OCCUPIED: u8 = 1;
/// The service limits who sends, or how many flows are opened.
pub const ENTRY_ADMISSION: u8 = 2;
/// The record holds a service.
pub const SERVICE_IN_USE: u8 = 1;
/// Its healthy backends are too few: what a restarted controller goes on from.
pub const SERVICE_PANICS: u8 = 2;
