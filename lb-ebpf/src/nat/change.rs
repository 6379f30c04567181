//! What seldom happens to a flow that has its entries: its client connects again, or its packets come another way.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::{
    abi::{DropReason, NAT_DEAD},
    nat,
};

use super::{
    ATTEMPTS,
    entry::{ReplyKey, address},
    scratch::Scratch,
    table::Place,
    way_back::{self, WayBack},
};
use crate::{clock, journey::Journey, maps};

/// Whether [`Scratch::flow`] had been closed before this SYN came; its backend's entry is as new then.
#[inline(always)]
pub fn starts_anew() -> bool {
    ballast_nat_restart() != 0
}

/// [`starts_anew`] for the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_nat_restart() -> u64 {
    restart().is_ok_and(|anew| anew).into()
}

#[inline(always)]
fn restart() -> Result<bool, DropReason> {
    let scratch = Scratch::of_this_cpu()?;
    name_reply(scratch)?;
    let now = clock::now();
    for _ in 0..ATTEMPTS {
        let Some(at) = Place::of_reply_to(scratch) else { break };
        let seen = at.seen();
        if seen.has(NAT_DEAD) || !nat::is_closed(scratch.flow.seen, seen) {
            break;
        }
        if at.stamp(seen, nat::anew(now)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Has replies of [`Scratch::flow`] sent where this packet came from.
#[inline(always)]
pub fn tell_of_another_way(ctx: &mut XdpContext) -> Result<(), DropReason> {
    // SAFETY: a live context.
    if unsafe { ballast_nat_move(ctx.ctx) } == 0 { Err(DropReason::BadMapEntry) } else { Ok(()) }
}

/// [`tell_of_another_way`] for the verifier: a truth value.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_move(ctx: *mut xdp_md) -> u64 {
    let mut ctx = XdpContext::new(ctx);
    let (Ok(scratch), Ok(way)) = (Scratch::of_this_cpu(), WayBack::of(&mut ctx)) else { return 0 };
    if name_reply(scratch).is_err() {
        return 0;
    }
    way_back::change(scratch, way);
    1
}

/// Makes [`Scratch::reply_key`] the other one of [`Scratch::flow`].
#[inline(always)]
fn name_reply(scratch: &mut Scratch) -> Result<(), DropReason> {
    let backend = maps::BACKENDS.get(scratch.flow.backend).ok_or(DropReason::BadMapEntry)?;
    scratch.reply_key = ReplyKey {
        backend: address(&backend.address),
        our_address: scratch.flow.our_address,
        ports: scratch.flow.reply_ports,
        protocol: Journey::of_this_cpu()?.protocol.into(),
    };
    Ok(())
}
