//! Ballast's data plane: `parse → service → select (→ flow) → forward → verdict`, a file a step.
//!
//! This file is the entry, and the only place that turns a verdict into an XDP code and counts it.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "`core`'s atomics do not exist for this target; see atomic.rs")]

mod atomic;
mod clock;
mod cursor;
mod flow;
mod forward;
mod maps;
mod parse;
mod select;
mod service;
mod settings;

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX},
    macros::xdp,
    programs::XdpContext,
};
use lb_common::abi::{DropReason, TrafficCounters};

use crate::{
    cursor::Cursor,
    forward::Tunnel,
    parse::{Packet, Parsed, Transport},
};

/// What becomes of a packet that is not dropped.
enum Verdict {
    /// Not for a VIP: on to the host's own stack, untouched.
    Pass,
    /// Rewritten, and ready to leave.
    Forward(Forwarded),
}

struct Forwarded {
    /// Number in `EGRESS` and `EGRESS_DEVICES`.
    egress: u32,
    ifindex: u32,
    service: u32,
    backend: u32,
    /// Length of the frame as received, without FCS.
    frame_len: u64,
    opens_flow: bool,
}

#[xdp]
pub fn ballast(mut ctx: XdpContext) -> u32 {
    let Some(counters) = maps::COUNTERS.get_ptr_mut(0) else {
        // An array of one entry has that entry; the verifier wants to be told.
        return XDP_ABORTED;
    };
    let (counter, action) = match decide(&mut ctx).and_then(|verdict| send(&ctx, verdict)) {
        // SAFETY: `counters` points to this CPU's entry, which lives as long as the map; nobody else writes it.
        Ok(XDP_TX) => (unsafe { &raw mut (*counters).transmitted }, XDP_TX),
        // SAFETY: as above.
        Ok(XDP_REDIRECT) => (unsafe { &raw mut (*counters).redirected }, XDP_REDIRECT),
        // SAFETY: as above.
        Ok(_) => (unsafe { &raw mut (*counters).passed }, XDP_PASS),
        Err(reason) => {
            // SAFETY: as above, and a reason is less than `MAX_DROP_REASONS`.
            (unsafe { (&raw mut (*counters).drops).cast::<u64>().add(reason as usize) }, XDP_DROP)
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

/// The packet's way. A packet is dropped or answered only after it is known to be for a VIP.
#[inline(always)]
fn decide(ctx: &mut XdpContext) -> Result<Verdict, DropReason> {
    let cursor = Cursor::new(&*ctx);
    match Parsed::of(&cursor) {
        None => Ok(Verdict::Pass),
        Some(Parsed::V4(packet)) => handle(ctx, &packet),
        Some(Parsed::V6(packet)) => handle(ctx, &packet),
    }
}

#[inline(always)]
fn handle<A: Tunnel>(ctx: &mut XdpContext, packet: &Packet<A>) -> Result<Verdict, DropReason> {
    match packet.transport {
        Transport::Ports { fragment, .. } => match service::find(packet) {
            None => Ok(Verdict::Pass),
            Some(_) if fragment => Err(DropReason::Fragment),
            Some(service) => {
                let selected = select::backend(service, packet)?;
                forward::rewrite(ctx, service, packet, selected).map(Verdict::Forward)
            }
        },
        Transport::Unreadable(reason) if service::lives_on(packet) => Err(reason),
        Transport::Unreadable(_) => Ok(Verdict::Pass),
    }
}

/// Picks the XDP action for a rewritten packet and counts it for its service and backend.
#[inline(always)]
fn send(ctx: &XdpContext, verdict: Verdict) -> Result<u32, DropReason> {
    let Verdict::Forward(forwarded) = verdict else {
        return Ok(XDP_PASS);
    };
    let action = if forwarded.ifindex == ctx.ingress_ifindex() as u32 {
        XDP_TX
    } else {
        maps::EGRESS_DEVICES.redirect(forwarded.egress, 0).map_err(|_| DropReason::NoEgress)?
    };
    if settings::side_effects() {
        count(maps::SERVICE_COUNTERS.get_ptr_mut(forwarded.service), &forwarded);
        count(maps::BACKEND_COUNTERS.get_ptr_mut(forwarded.backend), &forwarded);
    }
    Ok(action)
}

#[inline(always)]
fn count(counters: Option<*mut TrafficCounters>, forwarded: &Forwarded) {
    if let Some(counters) = counters {
        // SAFETY: the pointer is to this CPU's entry, which lives as long as the map; nobody else writes it.
        let counters = unsafe { &mut *counters };
        counters.packets += 1;
        counters.bytes += forwarded.frame_len;
        counters.new_flows += forwarded.opens_flow as u64;
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
