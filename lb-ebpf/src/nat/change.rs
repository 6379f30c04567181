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

/// Whether [`Scratch::flow`] had been closed before this SYN came.
#[inline(always)]
pub fn is_closed() -> bool {
    ballast_nat_restart(LOOK) != 0
}

/// Makes its backend's entry as new, once its own is: then nobody else finds the flow closed, and whatever the backend sends
/// meanwhile is of the old one.
#[inline(always)]
pub fn start_anew() {
    ballast_nat_restart(WRITE);
}

const LOOK: u32 = 0;
const WRITE: u32 = 1;

/// [`is_closed`] and [`start_anew`] for the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_nat_restart(what: u32) -> u64 {
    restart(what == WRITE).is_ok_and(|closed| closed).into()
}

#[inline(always)]
fn restart(writes: bool) -> Result<bool, DropReason> {
    let scratch = Scratch::of_this_cpu()?;
    name_reply(scratch)?;
    let now = clock::now();
    for _ in 0..ATTEMPTS {
        let Some(at) = Place::of_reply_to(scratch) else { break };
        let seen = at.seen();
        if seen.has(NAT_DEAD) {
            break;
        }
        if !writes {
            return Ok(nat::is_closed(scratch.flow.seen, seen));
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
