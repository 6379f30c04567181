//! From a service's lookup table to a backend.

use core::ptr::{addr_of, read_volatile};

use lb_common::{
    abi::{BackendValue, DropReason, HASH_FLOW, NextHop, STATE_EXISTING_FLOWS, ServiceEntry, Slot},
    hash,
};

use crate::{
    maps,
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
}

/// The backend for a packet of `service`.
#[inline(always)]
pub fn backend(service: &ServiceEntry, packet: &Packet) -> Result<Selected, DropReason> {
    let hash = slot_hash(service, packet);
    let slot = slot(service, hash)?;
    let index = slot.current();
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
    Ok(Selected { index, backend, next_hop, hash })
}

#[inline(always)]
fn slot(service: &ServiceEntry, hash: u64) -> Result<Slot, DropReason> {
    let number = (hash >> (service.slot_shift & 63)) as u32;
    let word =
        maps::LOOKUP.get_ptr(service.slots_base.wrapping_add(number)).ok_or(DropReason::BadMapEntry)?;
    // SAFETY: an aligned 8-byte word of a live map entry; the controller replaces it by one store.
    Ok(Slot::from_word(unsafe { read_volatile(word) }))
}

#[inline(always)]
fn slot_hash(service: &ServiceEntry, packet: &Packet) -> u64 {
    let key = settings::hash_key();
    let ports = match packet.transport {
        Transport::Ports { ports, .. } => ports,
        Transport::Unreadable(_) => 0,
    };
    match (&packet.ip, service.hash_key == HASH_FLOW) {
        (Ip::V4(ip), false) => hash::source_v4(key, ip.source),
        (Ip::V6(ip), false) => hash::source_v6(key, ip.source),
        (Ip::V4(ip), true) => hash::flow_v4(key, ip.source, ip.destination, ports, packet.protocol),
        (Ip::V6(ip), true) => hash::flow_v6(key, ip.source, ip.destination, ports, packet.protocol),
    }
}
