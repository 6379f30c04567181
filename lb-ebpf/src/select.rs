//! From a service's lookup table to a backend.

use core::ptr::{addr_of, read_volatile};

use lb_common::{
    abi::{
        BackendValue, DropReason, HASH_FLOW, NextHop, PROTOCOL_TCP, STATE_EXISTING_FLOWS, ServiceEntry, Slot,
        TRACK_ALWAYS, TRACK_NEVER,
    },
    hash,
};

use crate::{
    flow, maps,
    parse::{Ip, Packet, Transport},
    settings,
};

/// A backend that takes this packet.
pub struct Selected {
    pub index: u32,
    pub backend: &'static BackendValue,
    /// Read once: the word changes while packets flow.
    pub next_hop: NextHop,
    /// The hash that named the slot.
    pub hash: u64,
    pub opens_flow: bool,
}

/// The backend for a packet of `service`.
#[inline(always)]
pub fn backend(service: &ServiceEntry, packet: &Packet) -> Result<Selected, DropReason> {
    let hash = slot_hash(service, packet);
    let number = service.slots_base.wrapping_add((hash >> (service.slot_shift & 63)) as u32);
    let slot = slot(number).ok_or(DropReason::BadMapEntry)?;
    let (index, opens_flow) = if is_tracked(service, slot) {
        followed(service, packet, number, slot, hash)
    } else {
        (slot.current(), packet.opens_connection())
    };
    if index == 0 {
        return Err(DropReason::NoBackend);
    }
    let backend = maps::BACKENDS.get(index).ok_or(DropReason::BadMapEntry)?;
    // SAFETY: both fields are aligned words of a live map entry. Volatile, because the controller changes them at any
    // time, each by one store.
    let (state, next_hop) = unsafe {
        (read_volatile(addr_of!(backend.state)), NextHop(read_volatile(addr_of!(backend.next_hop))))
    };
    if state & STATE_EXISTING_FLOWS == 0 {
        return Err(DropReason::BackendDisabled);
    }
    if next_hop.egress() == 0 {
        return Err(DropReason::NextHopUnresolved);
    }
    Ok(Selected { index, backend, next_hop, hash, opens_flow })
}

/// A slot by its number in `LOOKUP`.
#[inline(always)]
pub fn slot(number: u32) -> Option<Slot> {
    // SAFETY: an aligned 8-byte word of a live map entry; the controller replaces it by one store.
    maps::LOOKUP.get_ptr(number).map(|word| Slot::from_word(unsafe { read_volatile(word) }))
}

#[inline(always)]
fn is_tracked(service: &ServiceEntry, slot: Slot) -> bool {
    service.tracking == TRACK_ALWAYS || (slot.is_tracked() && service.tracking != TRACK_NEVER)
}

/// Index and whether this opens a flow, of a packet whose flow may have an entry.
#[inline(always)]
fn followed(
    service: &ServiceEntry,
    packet: &Packet,
    slot_number: u32,
    slot: Slot,
    slot_hash: u64,
) -> (u32, bool) {
    let tcp_flags = match packet.transport {
        Transport::Ports { tcp_flags, .. } => tcp_flags.into(),
        Transport::Unreadable(_) => 0,
    };
    let question = flow::Question {
        hash: if service.hash_key == HASH_FLOW { slot_hash } else { flow_hash(packet) },
        slot: slot.word(),
        slot_number,
        tcp_flags,
        datagram: u32::from(packet.protocol != PROTOCOL_TCP),
        _padding: 0,
    };
    flow::follow(service, &question)
}

#[inline(always)]
fn slot_hash(service: &ServiceEntry, packet: &Packet) -> u64 {
    if service.hash_key == HASH_FLOW {
        return flow_hash(packet);
    }
    let key = settings::hash_key();
    match &packet.ip {
        Ip::V4(ip) => hash::source_v4(key, ip.source),
        Ip::V6(ip) => hash::source_v6(key, ip.source),
    }
}

#[inline(always)]
fn flow_hash(packet: &Packet) -> u64 {
    let key = settings::hash_key();
    let ports = packet.ports();
    match &packet.ip {
        Ip::V4(ip) => hash::flow_v4(key, ip.source, ip.destination, ports, packet.protocol),
        Ip::V6(ip) => hash::flow_v6(key, ip.source, ip.destination, ports, packet.protocol),
    }
}
