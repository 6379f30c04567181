//! A backend's side of a flow.

use lb_common::{
    abi::{DropReason, NAT_DEAD},
    nat,
};

use super::{
    ATTEMPTS,
    entry::ReplyKey,
    leg::{self, Account},
    scratch::Scratch,
    table::Place,
};
use crate::{
    clock,
    journey::Journey,
    refusal::{self, Refusal},
    trace,
};

/// What there is of the packet's flow, in the place of an action.
const FLOW_KNOWN: u32 = 2;
const FLOW_NONE: u32 = 3;
/// Its entry changed while it was read.
const FLOW_CHANGED: u32 = 4;

/// Leaves the entry, refreshed, in [`Scratch::reply`], and says whether there is one.
#[inline(always)]
pub fn find() -> Result<bool, Refusal> {
    for _ in 0..ATTEMPTS {
        match refusal::from_word(ballast_nat_find_reply())? {
            FLOW_CHANGED => {}
            found => return Ok(found == FLOW_KNOWN),
        }
    }
    Ok(false)
}

/// [`find`] for the verifier, once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_nat_find_reply() -> u64 {
    refusal::to_word(find_once().map_err(Refusal::from))
}

#[inline(always)]
fn find_once() -> Result<u32, DropReason> {
    let (journey, scratch) = (Journey::of_this_cpu()?, Scratch::of_this_cpu()?);
    scratch.reply_key = ReplyKey {
        backend: journey.source,
        our_address: journey.destination,
        ports: journey.ports,
        protocol: journey.protocol.into(),
    };
    let Some(at) = Place::of_reply(&scratch.reply_key) else { return Ok(FLOW_NONE) };
    let seen = at.copy_reply(&mut scratch.reply);
    if seen.has(NAT_DEAD) {
        return Ok(FLOW_NONE);
    }
    trace::reply(scratch.reply.service, scratch.reply.backend);
    if journey.authenticated != 0 {
        return Err(DropReason::ExtensionHeader);
    }
    leg::may_reply(journey, Account { service: scratch.reply.service, backend: scratch.reply.backend })?;
    Ok(if at.stamp(seen, nat::backend_sent(seen, journey.tcp_flags, clock::now())) {
        FLOW_KNOWN
    } else {
        FLOW_CHANGED
    })
}
