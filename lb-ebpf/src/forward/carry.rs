//! Rewriting off the straight path, for what needs no copy of its own: `gue`, tunnels of mixed families, and packets
//! with options, extension headers or in fragments.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::abi::{DropReason, ServiceEntry};

use crate::{
    journey::Journey,
    parse::{Address, Packet},
    refusal::{self, Refusal},
    select::Selected,
};

/// Rewrites the packet as its service says.
#[inline(always)]
pub fn rewrite<A: Address>(
    ctx: &mut XdpContext,
    service: &ServiceEntry,
    packet: &Packet<A>,
    selected: &Selected,
) -> Result<(), Refusal> {
    Journey::start(packet)?.to(selected, service.service, service.forwarding);
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_carry(ctx.ctx) }).map(|_| ())
}

/// Rewrites the packet as this CPU's [`Journey`] says. A global function: verified once.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_carry(ctx: *mut xdp_md) -> u64 {
    let _ = ctx;
    refusal::to_word(Err(DropReason::BadMapEntry.into()))
}
