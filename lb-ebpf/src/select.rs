//! From a service's lookup table to a backend.

use core::ptr::{addr_of, read_volatile};

use lb_common::abi::{
    BackendValue, DropReason, FORWARDING_GUE, HASH_FLOW, NextHop, PROTOCOL_TCP, STATE_EXISTING_FLOWS,
    STATE_IPV6, ServiceEntry, Slot, TRACK_ALWAYS, TRACK_NEVER,
};

use crate::{
    flow, maps,
    parse::{Address, Packet, Transport},
    settings,
};

/// A backend that takes this packet.
pub struct Selected {
    pub index: u32,
    pub backend: &'static BackendValue,
    /// Read once: the word changes while packets flow.
    pub next_hop: NextHop,
    /// Entropy of outer headers: the hash that named the slot, and for `gue` the flow's.
    pub hash: u64,
    pub opens_flow: bool,
    pub is_ipv6: bool,
}

/// The backend for a packet of `service`.
#[inline(always)]
pub fn backend<A: Address>(service: &ServiceEntry, packet: &Packet<A>) -> Result<Selected, DropReason> {
    let slot_hash = slot_hash(service, packet);
    let number = service.slots_base.wrapping_add((slot_hash >> (service.slot_shift & 63)) as u32);
    let slot = slot(number).ok_or(DropReason::BadMapEntry)?;
    let (is_tracked, is_gue) = (is_tracked(service, slot), service.forwarding == FORWARDING_GUE);
    let flow_hash = if (is_tracked || is_gue) && service.hash_key != HASH_FLOW {
        packet.flow_hash(settings::hash_key())
    } else {
        slot_hash
    };
    let (index, opens_flow) = if is_tracked {
        followed(service, packet, number, slot, flow_hash)?
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
    let hash = if is_gue { flow_hash } else { slot_hash };
    Ok(Selected { index, backend, next_hop, hash, opens_flow, is_ipv6: state & STATE_IPV6 != 0 })
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
fn followed<A: Address>(
    service: &ServiceEntry,
    packet: &Packet<A>,
    slot_number: u32,
    slot: Slot,
    hash: u64,
) -> Result<(u32, bool), DropReason> {
    let tcp_flags = match packet.transport {
        Transport::Ports { tcp_flags, .. } => tcp_flags.into(),
        Transport::Unreadable(_) => 0,
    };
    let question = flow::Question {
        hash,
        slot: slot.word(),
        slot_number,
        tcp_flags,
        datagram: u32::from(packet.protocol != PROTOCOL_TCP),
        _padding: 0,
    };
    flow::follow(service, &question)
}

#[inline(always)]
fn slot_hash<A: Address>(service: &ServiceEntry, packet: &Packet<A>) -> u64 {
    let key = settings::hash_key();
    if service.hash_key == HASH_FLOW { packet.flow_hash(key) } else { packet.source_hash(key) }
}
