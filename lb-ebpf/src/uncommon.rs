//! Packets off the straight path: fragments, IPv6 extension headers, ICMP.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};

use crate::refusal::{self, Outcome};

#[inline(always)]
pub fn handle(ctx: &mut XdpContext) -> Outcome {
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_uncommon(ctx.ctx) })
}

/// [`handle`] for the verifier: verified once, and none of the straight path's registers spilled for it.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_uncommon(ctx: *mut xdp_md) -> u64 {
    let _ = ctx;
    refusal::to_word(Ok(aya_ebpf::bindings::xdp_action::XDP_PASS))
}
