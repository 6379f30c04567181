//! Errors that are made: time exceeded, and too big.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::abi::DropReason;

use crate::refusal::{self, Outcome, Refusal};

/// Makes the frame an error to its sender, or refuses it after all.
#[inline(always)]
pub fn answer(ctx: &mut XdpContext, refusal: Refusal) -> Outcome {
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_answer(ctx.ctx, refusal::to_word(Err(refusal))) })
}

/// [`answer`] for the verifier.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_answer(ctx: *mut xdp_md, refusal: u64) -> u64 {
    let _ = ctx;
    let _ = DropReason::TtlExpired;
    refusal
}
