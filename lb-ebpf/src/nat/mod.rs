//! `dnat` and `nat`: new addresses and ports, in both directions, by entries in exact maps.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::abi::{DropReason, ServiceEntry};

use crate::{
    journey::Journey,
    parse::{Address, Packet},
    refusal::{self, Outcome},
};

/// A packet for a service whose replies pass here.
#[inline(always)]
pub fn forward<A: Address>(ctx: &mut XdpContext, service: &ServiceEntry, packet: &Packet<A>) -> Outcome {
    Journey::start(packet)?;
    // SAFETY: a live context, and a reference.
    refusal::from_word(unsafe { ballast_nat_forward(ctx.ctx, service) })
}

/// A packet for no service: a reply, or none of our business.
#[inline(always)]
pub fn reply<A: Address>(ctx: &mut XdpContext, packet: &Packet<A>) -> Outcome {
    Journey::start(packet)?;
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_nat_reply(ctx.ctx) })
}

/// [`forward`] of this CPU's [`Journey`].
///
/// # Safety
///
/// A live context, and a live service or none.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_forward(ctx: *mut xdp_md, service: *const ServiceEntry) -> u64 {
    let _ = (ctx, service);
    refusal::to_word(Err(DropReason::BadMapEntry.into()))
}

/// [`reply`] of this CPU's [`Journey`].
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_reply(ctx: *mut xdp_md) -> u64 {
    let _ = ctx;
    refusal::to_word(Ok(aya_ebpf::bindings::xdp_action::XDP_PASS))
}
