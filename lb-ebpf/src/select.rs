//! From a service's lookup table to a backend.

use core::ptr::{addr_of, read_volatile};

use lb_common::{
    abi::{
        BackendValue, DropReason, FORWARDING_GUE, HASH_FLOW, NextHop, STATE_EXISTING_FLOWS, STATE_IPV6,
        ServiceEntry, Slot, TRACK_ALWAYS, TRACK_NEVER,
    },
    wire::transport,
};

use crate::{flow, maps, refusal::Refusal, trace};

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

/// What a backend is selected for.
pub trait Subject {
    fn source_hash(&self) -> u64;
    fn flow_hash(&self) -> u64;
    /// 0 for UDP.
    fn tcp_flags(&self) -> u8;
    /// A datagram, which does not say whether it opens a flow.
    fn is_datagram(&self) -> bool;
}

/// The backend for a packet of `service`.
#[inline(always)]
pub fn backend(service: &ServiceEntry, packet: &impl Subject) -> Result<Selected, Refusal> {
    let slot_hash = slot_hash(service, packet);
    let (number, slot) = slot_of(service, slot_hash)?;
    trace::slot(service, number, slot);
    let (is_tracked, is_gue) = (is_tracked(service, slot), service.forwarding == FORWARDING_GUE);
    let flow_hash =
        if (is_tracked || is_gue) && service.hash_key != HASH_FLOW { packet.flow_hash() } else { slot_hash };
    let (index, opens_flow) = if is_tracked {
        followed(service, packet, number, slot, flow_hash)?
    } else {
        (slot.current(), transport::opens_connection(packet.tcp_flags()))
    };
    if index == 0 {
        return Err(Refusal::without_backend(service));
    }
    let hash = if is_gue { flow_hash } else { slot_hash };
    Ok(Selected { hash, opens_flow, ..known(index)? })
}

/// A backend that was selected before, if it still takes packets of existing flows.
#[inline(always)]
pub fn known(index: u32) -> Result<Selected, DropReason> {
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
    let is_ipv6 = state & STATE_IPV6 != 0;
    Ok(Selected { index, backend, next_hop, hash: 0, opens_flow: false, is_ipv6 })
}

/// The slot that a hash names, and its number in `LOOKUP`.
#[inline(always)]
pub fn slot_of(service: &ServiceEntry, slot_hash: u64) -> Result<(u32, Slot), DropReason> {
    let number = service.slots_base.wrapping_add((slot_hash >> (service.slot_shift & 63)) as u32);
    Ok((number, slot(number).ok_or(DropReason::BadMapEntry)?))
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
    packet: &impl Subject,
    slot_number: u32,
    slot: Slot,
    hash: u64,
) -> Result<(u32, bool), DropReason> {
    let question = flow::Question {
        hash,
        slot,
        slot_number,
        tcp_flags: packet.tcp_flags(),
        datagram: packet.is_datagram(),
    };
    flow::follow(service, &question)
}

#[inline(always)]
fn slot_hash(service: &ServiceEntry, packet: &impl Subject) -> u64 {
    if service.hash_key == HASH_FLOW { packet.flow_hash() } else { packet.source_hash() }
}
