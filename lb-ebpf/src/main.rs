//! Ballast's data plane: `parse → service → select (→ flow) → forward → verdict`, a file a step.
//!
//! This file is the entry, and the only place that turns a verdict into an XDP code and counts it.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "`core`'s atomics do not exist for this target; see atomic.rs")]

mod admission;
mod atomic;
mod capture;
mod clock;
mod cursor;
mod flow;
mod forward;
mod fragment;
mod icmp;
mod journey;
mod maps;
mod nat;
mod own_macs;
mod parse;
mod probe;
mod refusal;
mod reject;
mod select;
mod send;
mod service;
mod settings;
mod sweep;
mod trace;
mod uncommon;

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX},
    macros::xdp,
    programs::XdpContext,
};
use lb_common::abi::{ENTRY_ADMISSION, MAX_DROP_REASONS, PASSED_NO_SERVICE, ServiceEntry, translates};

use crate::{
    cursor::Cursor,
    forward::Tunnel,
    parse::{Packet, Parsed, Transport},
    refusal::{Outcome, Refusal},
    service::Found,
};

/// For kernels that hand over frames of several buffers.
#[xdp(frags)]
#[inline(always)]
pub fn ballast(ctx: XdpContext) -> u32 {
    run(ctx)
}

/// For kernels before 5.18, which don't.
#[xdp]
#[inline(always)]
pub fn ballast_linear(ctx: XdpContext) -> u32 {
    run(ctx)
}

#[inline(always)]
fn run(mut ctx: XdpContext) -> u32 {
    let Some(counters) = maps::COUNTERS.get_ptr_mut(0) else {
        // An array of one entry has that entry; the verifier wants to be told.
        return XDP_ABORTED;
    };
    if settings::tracing() {
        trace::begin();
        capture::begin(&ctx);
    }
    let outcome = decide(&mut ctx).or_else(|refusal| answer(&mut ctx, refusal));
    if settings::tracing() {
        trace::end(outcome);
        capture::end(&ctx, outcome);
    }
    let (counter, action) = match outcome {
        // SAFETY: `counters` points to this CPU's entry, which lives as long as the map; nobody else writes it.
        Ok(XDP_TX) => (unsafe { &raw mut (*counters).transmitted }, XDP_TX),
        // SAFETY: as above.
        Ok(XDP_REDIRECT) => (unsafe { &raw mut (*counters).redirected }, XDP_REDIRECT),
        // SAFETY: as above.
        Ok(_) => (unsafe { &raw mut (*counters).passed }, XDP_PASS),
        Err(Refusal { reason, .. }) => {
            let reason = (reason as usize).min(MAX_DROP_REASONS - 1);
            // SAFETY: as above, and the index is less than `MAX_DROP_REASONS`.
            (unsafe { (&raw mut (*counters).drops).cast::<u64>().add(reason) }, XDP_DROP)
        }
    };
    if settings::side_effects() {
        // SAFETY: both pointers are into this CPU's entry, and nothing interrupts the program on its CPU but a
        // program of another kind.
        unsafe {
            *counter += 1;
            (*counters).received += 1;
            clock::refresh((*counters).received);
        }
    }
    action
}

/// The packet's way. A packet is dropped or answered only after it is known to be for a VIP, or of a flow through NAT.
#[inline(always)]
fn decide(ctx: &mut XdpContext) -> Outcome {
    let cursor = Cursor::new(&*ctx);
    match Parsed::of(&cursor) {
        None => Ok(XDP_PASS),
        Some(Parsed::V4(packet)) => handle(ctx, &packet),
        Some(Parsed::V6(packet)) => handle(ctx, &packet),
        Some(Parsed::Uncommon) => uncommon::handle(ctx),
    }
}

#[inline(always)]
fn handle<A: Tunnel>(ctx: &mut XdpContext, packet: &Packet<A>) -> Outcome {
    match packet.transport {
        Transport::Ports { .. } => match service::find(packet) {
            Found::Service(service) => deliver(ctx, service, packet),
            Found::PerhapsReply => nat::reply(ctx, packet),
            Found::Nothing => {
                trace::passed(PASSED_NO_SERVICE);
                Ok(XDP_PASS)
            }
        },
        // Asked here and not where it is read: when keys were compared by a call the verifier of 6.1 walked a fifth more for it.
        Transport::Unreadable(_) => uncommon::handle(ctx),
    }
}

/// To a backend of its service.
#[inline(always)]
fn deliver<A: Tunnel>(ctx: &mut XdpContext, service: &ServiceEntry, packet: &Packet<A>) -> Outcome {
    if service.flags & ENTRY_ADMISSION != 0 {
        admission::admit(service, packet)?;
    }
    if translates(service.forwarding) {
        return nat::forward(ctx, service, packet);
    }
    let selected = select::backend(service, packet)?;
    let forwarded = forward::rewrite(ctx, service, packet, selected)?;
    send::forwarded(ctx, &forwarded)
}

/// Tells the sender, where a router would.
#[inline(always)]
fn answer(ctx: &mut XdpContext, refusal: Refusal) -> Outcome {
    if refusal.is_told() { icmp::error::answer(ctx, refusal) } else { Err(refusal) }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
