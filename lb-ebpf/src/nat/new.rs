//! New flows: a backend, and an address and a port of which no other flow knows.

use core::ptr::read_volatile;

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_get_prandom_u32, programs::XdpContext};
use lb_common::abi::{
    DropReason, FORWARDING_DNAT, HASH_FLOW, NAT_POOL_ADDRESSES, NatPool, NatSeen, SELECT_LEAST_CONNECTIONS,
    ServiceEntry,
};

use super::{
    entry::{Flow, Reply, address, swapped},
    port::{self, Port},
    scratch::Scratch,
    way_back::WayBack,
};
use crate::{
    atomic, clock, flow,
    journey::Journey,
    maps,
    refusal::{self, Refusal},
    select::{self, Selected},
    settings, trace,
};

/// Makes [`Scratch::flow`] the flow of this CPU's [`Journey`], and says whether it is new: another CPU may have made it
/// meanwhile.
#[inline(always)]
pub fn make(ctx: &mut XdpContext, service: &ServiceEntry) -> Result<bool, Refusal> {
    // SAFETY: a live context, and references.
    unsafe {
        refusal::from_word(ballast_nat_choose(ctx.ctx, service))?;
        refusal::from_word(ballast_nat_allocate(service)).map(|made| made == MADE)
    }
}

/// In the place of an action.
const FOUND: u32 = 0;
const MADE: u32 = 2;

/// Chooses everything but the port.
///
/// # Safety
///
/// A live context, and a live service or none.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_choose(ctx: *mut xdp_md, service: *const ServiceEntry) -> u64 {
    let mut ctx = XdpContext::new(ctx);
    // SAFETY: the caller's promise.
    let chosen = match unsafe { service.as_ref() } {
        Some(service) => choose(&mut ctx, service),
        None => Err(DropReason::BadMapEntry.into()),
    };
    refusal::to_word(chosen.map(|()| FOUND))
}

#[inline(always)]
fn choose(ctx: &mut XdpContext, service: &ServiceEntry) -> Result<(), Refusal> {
    let (journey, scratch) = (Journey::of_this_cpu()?, Scratch::of_this_cpu()?);
    let hash = journey.flow_hash(settings::hash_key());
    let Selected { index, backend, next_hop, .. } = select::known(backend(service, journey, hash)?)?;
    scratch.reply_key.backend = address(&backend.address);
    scratch.reply_key.our_address = our_address(service, journey, next_hop.egress(), hash)?;
    scratch.reply_key.protocol = journey.protocol.into();
    let backend_port = u16::from_ne_bytes(backend.port);
    let keeps_port = service.key.port == [0; 2] || backend_port == 0;
    scratch.reply_key.ports = if keeps_port { journey.ports >> 16 } else { backend_port.into() };
    let way = WayBack::of(ctx)?;
    let seen = NatSeen::new(clock::now(), 0);
    scratch.flow = Flow {
        seen,
        backend: index,
        reply_ports: scratch.reply_key.ports,
        our_address: scratch.reply_key.our_address,
        came_by: way.came_by(),
    };
    scratch.reply = Reply {
        seen,
        client: journey.source,
        vip: journey.destination,
        ports: swapped(journey.ports),
        service: service.service,
        backend: index,
        ifindex: way.ifindex,
        next_hop: way.next_hop,
        source_mac: way.source_mac,
    };
    Ok(())
}

#[inline(always)]
fn backend(service: &ServiceEntry, journey: &Journey, hash: u64) -> Result<u32, Refusal> {
    let slot_hash =
        if service.hash_key == HASH_FLOW { hash } else { journey.source_hash(settings::hash_key()) };
    let (number, slot) = select::slot_of(service, slot_hash)?;
    trace::slot(service, number, slot);
    match flow::pick(service, slot, hash) {
        0 => Err(Refusal::without_backend(service)),
        index => Ok(index),
    }
}

#[inline(always)]
fn live_pool() -> Option<&'static NatPool> {
    let control = maps::CONTROL.get_ptr(0)?;
    // SAFETY: the pointer is to the map's only entry. Volatile, because the controller flips the word at any time.
    let live = unsafe { read_volatile(&raw const (*control).nat_pool) };
    maps::NAT_POOL.get(live as u32)
}

/// Source address of what the flow's client sends, for the backend.
#[inline(always)]
fn our_address(
    service: &ServiceEntry,
    journey: &Journey,
    egress: u32,
    hash: u64,
) -> Result<[u64; 2], DropReason> {
    if service.forwarding == FORWARDING_DNAT {
        return Ok(journey.source);
    }
    let pool = live_pool().ok_or(DropReason::BadMapEntry)?;
    if let Some(ours) = pool_address(pool, journey.family, hash) {
        return Ok(ours);
    }
    let of_the_link = maps::EGRESS.get(egress).ok_or(DropReason::BadMapEntry)?;
    Ok(address(&of_the_link.source))
}

/// One of our addresses of the family; `None` where there is none.
#[inline(always)]
fn pool_address(pool: &NatPool, family: u8, hash: u64) -> Option<[u64; 2]> {
    let (count, addresses) = if family == 4 { (pool.v4_count, &pool.v4) } else { (pool.v6_count, &pool.v6) };
    if count == 0 {
        return None;
    }
    let number = (hash % u64::from(count)) as usize & (NAT_POOL_ADDRESSES - 1);
    addresses.get(number).map(address)
}

/// Finds a port, and makes both entries.
///
/// # Safety
///
/// A live service, or none.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_allocate(service: *const ServiceEntry) -> u64 {
    // SAFETY: the caller's promise.
    let made = match unsafe { service.as_ref() } {
        Some(service) => allocate(service),
        None => Err(DropReason::BadMapEntry),
    };
    refusal::to_word(made.map_err(Refusal::from))
}

#[inline(always)]
fn allocate(service: &ServiceEntry) -> Result<u32, DropReason> {
    let pool = live_pool().ok_or(DropReason::BadMapEntry)?;
    for attempt in 0..TRIES {
        let port = port(service, pool, attempt)?;
        trace::note(|trace| trace.tries = attempt + 1);
        let tried = if settings::side_effects() { port::take(port) } else { port::would_take(port) };
        match tried {
            Port::Taken => {}
            Port::Full => break,
            Port::Found => return Ok(FOUND),
            taken @ (Port::Got | Port::TakenOver) => {
                count(service, taken == Port::TakenOver)?;
                return Ok(MADE);
            }
        }
    }
    Err(DropReason::NatExhausted)
}

/// The port of a try, its two bytes in memory order.
#[inline(always)]
fn port(service: &ServiceEntry, pool: &NatPool, attempt: u32) -> Result<u16, DropReason> {
    let number = if service.forwarding == FORWARDING_DNAT {
        if attempt == 0 {
            return Ok(Journey::of_this_cpu()?.ports as u16);
        }
        chance()
    } else if attempt < IN_A_ROW {
        next(Scratch::of_this_cpu()?.flow.backend, attempt)?
    } else {
        chance()
    };
    let (first, last) = (u64::from(pool.first_port), u64::from(pool.last_port));
    let ports = last.saturating_sub(first) + 1;
    Ok(((first + number % ports) as u16).to_be())
}

#[inline(always)]
fn chance() -> u64 {
    // SAFETY: takes nothing.
    u64::from(unsafe { bpf_get_prandom_u32() })
}

/// How many ports have been tried for the backend before, those of this packet included.
#[inline(always)]
fn next(backend: u32, attempt: u32) -> Result<u64, DropReason> {
    let cursor = maps::NAT_CURSORS.get_ptr_mut(backend).ok_or(DropReason::BadMapEntry)?;
    // SAFETY: an aligned word of a live map entry, which all CPUs change atomically.
    Ok(unsafe {
        if settings::side_effects() {
            atomic::add(cursor, 1)
        } else {
            read_volatile(cursor).wrapping_add(attempt.into())
        }
    })
}

#[inline(always)]
fn count(service: &ServiceEntry, taken_over: bool) -> Result<(), DropReason> {
    if !settings::side_effects() {
        return Ok(());
    }
    if let Some(counters) = maps::COUNTERS.get_ptr_mut(0) {
        // SAFETY: the pointer is to this CPU's entry, which lives as long as the map; nobody else writes it.
        let counters = unsafe { &mut *counters };
        counters.nat_created += 1;
        counters.nat_taken_over += u64::from(taken_over);
    }
    if service.selection == SELECT_LEAST_CONNECTIONS {
        // Flows that end are left to the controller's next scan.
        flow::change_load(Scratch::of_this_cpu()?.flow.backend, 1);
    }
    Ok(())
}

/// Ports that a new flow tries, and how many of `nat`'s follow each other.
const TRIES: u32 = 32;
const IN_A_ROW: u32 = 16;
