//! From a packet to its service: an open-addressed probe of the live copy of the service table.

use core::ptr::read_volatile;

use lb_common::abi::{
    ENTRY_OCCUPIED, KIND_MARKER, KIND_SERVICE, ServiceEntry, ServiceKey, ServiceTableWord, limits::MAX_PROBE,
};
use lb_common::{hash, wire::transport};

use crate::{
    journey::Journey,
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
    match find_in(table, packet.destination.service_words(), *ports, packet.protocol) {
        Some((_, service)) => Found::Service(service),
        None if table.translates() => Found::PerhapsReply,
        None => Found::Nothing,
    }
}

/// Whether any service's replies pass the load balancer.
#[inline(always)]
pub fn translates() -> bool {
    live_table().is_some_and(ServiceTableWord::translates)
}

/// [`find`] of this CPU's [`Journey`].
#[inline(always)]
pub fn of_journey() -> Found {
    match ballast_service() {
        NOTHING => Found::Nothing,
        PERHAPS_REPLY => Found::PerhapsReply,
        number => maps::SERVICE_TABLE.get(number as u32).map_or(Found::Nothing, Found::Service),
    }
}

/// [`of_journey`] for the verifier, which knows of no pointers that a global function returns: a number in the service
/// table, or what is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_service() -> u64 {
    let (Ok(journey), Some(table)) = (Journey::of_this_cpu(), live_table()) else { return NOTHING };
    match find_in(table, journey.destination, journey.ports, journey.protocol) {
        Some((number, _)) => number.into(),
        None if table.translates() => PERHAPS_REPLY,
        None => NOTHING,
    }
}

const NOTHING: u64 = u64::MAX;
const PERHAPS_REPLY: u64 = u64::MAX - 1;

/// Whether any service of a protocol, or of [`PROTOCOL_ANY`](lb_common::abi::PROTOCOL_ANY), lives on the destination of this
/// CPU's [`Journey`].
#[inline(always)]
pub fn lives_on_journeys_end(protocol: u8) -> bool {
    ballast_lives_on(protocol.into()) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_lives_on(protocol: u32) -> u64 {
    let Ok(journey) = Journey::of_this_cpu() else { return 0 };
    has_marker(journey.destination, protocol as u8).into()
}

/// The service of the given address, protocol and destination port, and its number in the table.
#[inline(always)]
fn find_in(
    table: ServiceTableWord,
    address: [u64; 2],
    ports: u32,
    protocol: u8,
) -> Option<(u32, &'static ServiceEntry)> {
    let port = transport::destination_port(ports);
    let found = probe(table, key(address, port, protocol, KIND_SERVICE));
    if found.is_none() && table.every_port() {
        return probe(table, key(address, [0; 2], protocol, KIND_SERVICE));
    }
    found
}

#[inline(always)]
fn has_marker(address: [u64; 2], protocol: u8) -> bool {
    live_table().is_some_and(|table| probe(table, key(address, [0; 2], protocol, KIND_MARKER)).is_some())
}

/// A `ServiceKey` as its three words.
type KeyWords = [u64; 3];

#[inline(always)]
fn key([a, b]: [u64; 2], port: [u8; 2], protocol: u8, kind: u8) -> KeyWords {
    [a, b, u64::from_ne_bytes([port[0], port[1], protocol, kind, 0, 0, 0, 0])]
}

#[inline(always)]
fn live_table() -> Option<ServiceTableWord> {
    let control = maps::CONTROL.get_ptr(0)?;
    // SAFETY: the pointer is to the map's only entry. Volatile, because the controller flips the word at any time.
    Some(ServiceTableWord(unsafe { read_volatile(&raw const (*control).service_table) }))
}

#[inline(always)]
fn probe(table: ServiceTableWord, key: KeyWords) -> Option<(u32, &'static ServiceEntry)> {
    let mask = settings::service_mask();
    let home = hash::table_hash(key, table.seed()) as u32 & mask;
    let first = table.copy() * (mask + 1 + MAX_PROBE) + home;
    for step in 0..MAX_PROBE {
        let number = first + step;
        // The copy that is live is not written until no packet looks at it any more.
        let entry = maps::SERVICE_TABLE.get(number)?;
        if entry.flags & ENTRY_OCCUPIED == 0 {
            return None;
        }
        if is(&entry.key, key) {
            return Some((number, entry));
        }
    }
    None
}

/// Without a branch, which the verifier would walk both ways of; and as numbers, because the comparison of arrays is a call that
/// goes from byte to byte.
#[inline(always)]
fn is(found: &ServiceKey, [a, b, c]: KeyWords) -> bool {
    let [x, y, z] = found.words();
    (x ^ a) | (y ^ b) | (z ^ c) == 0
}
