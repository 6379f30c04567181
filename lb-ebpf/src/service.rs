//! From a packet to its service: an open-addressed probe of the live copy of the service table.

use core::ptr::read_volatile;

use lb_common::abi::{
    ENTRY_OCCUPIED, KIND_MARKER, KIND_SERVICE, ServiceEntry, ServiceKey, ServiceTableWord, limits::MAX_PROBE,
};
use lb_common::{hash, wire::transport};

use crate::{
    maps,
    parse::{Address, Packet, Transport},
    settings,
};

/// What a packet with ports is.
pub enum Found {
    Service(&'static ServiceEntry),
    /// For no service, and perhaps a reply from a backend whose replies pass here.
    PerhapsReply,
    Nothing,
}

/// The service of a packet whose ports are known: its exact port first, then a service that owns every port.
#[inline(always)]
pub fn find<A: Address>(packet: &Packet<A>) -> Found {
    let (Transport::Ports { ports, .. }, Some(table)) = (&packet.transport, live_table()) else {
        return Found::Nothing;
    };
    let port = transport::destination_port(*ports);
    let mut found = probe(table, key(packet, port, KIND_SERVICE));
    if found.is_none() && table.every_port() {
        found = probe(table, key(packet, [0; 2], KIND_SERVICE));
    }
    match found {
        Some(service) => Found::Service(service),
        None if table.translates() => Found::PerhapsReply,
        None => Found::Nothing,
    }
}

/// Whether any service of the packet's protocol lives on its destination address.
#[inline(always)]
pub fn lives_on<A: Address>(packet: &Packet<A>) -> bool {
    live_table().is_some_and(|table| probe(table, key(packet, [0; 2], KIND_MARKER)).is_some())
}

/// A `ServiceKey` as its three words.
type KeyWords = [u64; 3];

#[inline(always)]
fn key<A: Address>(packet: &Packet<A>, port: [u8; 2], kind: u8) -> KeyWords {
    let [a, b] = packet.destination.service_words();
    let rest = u64::from_ne_bytes([port[0], port[1], packet.protocol, kind, 0, 0, 0, 0]);
    [a, b, rest]
}

#[inline(always)]
fn live_table() -> Option<ServiceTableWord> {
    let control = maps::CONTROL.get_ptr(0)?;
    // SAFETY: the pointer is to the map's only entry. Volatile, because the controller flips the word at any time.
    Some(ServiceTableWord(unsafe { read_volatile(&raw const (*control).service_table) }))
}

#[inline(always)]
fn probe(table: ServiceTableWord, key: KeyWords) -> Option<&'static ServiceEntry> {
    let mask = settings::service_mask();
    let home = hash::table_hash(key, table.seed()) as u32 & mask;
    let first = table.copy() * (mask + 1 + MAX_PROBE) + home;
    for step in 0..MAX_PROBE {
        // The copy that is live is not written until no packet looks at it any more.
        let entry = maps::SERVICE_TABLE.get(first + step)?;
        if entry.flags & ENTRY_OCCUPIED == 0 {
            return None;
        }
        if words(&entry.key) == key {
            return Some(entry);
        }
    }
    None
}

#[inline(always)]
fn words(key: &ServiceKey) -> KeyWords {
    key.words()
}
