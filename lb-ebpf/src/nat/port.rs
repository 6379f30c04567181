//! One try to get a port: what is inserted first, the backend's entry, is the allocation.

use lb_common::abi::NAT_DEAD;

use super::{
    remove::{self, When},
    scratch::{Scratch, Whose},
    table::{self, Inserted, Place, dead},
};
use crate::settings;

/// What a try came to.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Port {
    /// Another flow has it.
    Taken = 0,
    /// Both entries are made.
    Got = 1,
    /// They are, in the place of a flow that was over.
    TakenOver = 2,
    /// Another CPU has just made this very flow, which is in [`Scratch::flow`] now.
    Found = 3,
    /// No flow can be made now.
    Full = 4,
}

/// Tries the port, its two bytes in memory order, for the flow in the scratch.
#[inline(always)]
pub fn take(port: u16) -> Port {
    match ballast_nat_try(port.into()) {
        1 => Port::Got,
        2 => Port::TakenOver,
        3 => Port::Found,
        4 => Port::Full,
        _ => Port::Taken,
    }
}

/// What [`take`] would come to, but for tables that are full, of which only an insertion would tell.
#[inline(always)]
pub fn would_take(port: u16) -> Port {
    match ballast_nat_would_take(port.into()) {
        1 => Port::Got,
        2 => Port::TakenOver,
        _ => Port::Taken,
    }
}

/// [`would_take`] for the verifier: little in a program that does take ports.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_nat_would_take(port: u32) -> u64 {
    if settings::side_effects() {
        return Port::Taken as u64;
    }
    let Ok(scratch) = Scratch::of_this_cpu() else { return Port::Taken as u64 };
    scratch.name_port(port as u16);
    let Some(holder) = Place::of_reply(&scratch.reply_key) else { return Port::Got as u64 };
    // SAFETY: a live map entry.
    scratch.old_flow = unsafe { &*holder.reply() }.flow_key();
    scratch.old_reply = scratch.reply_key;
    let taken = if scratch.old_flow.is(&scratch.flow_key) {
        // The client's own old flow, which would have been removed.
        Port::Got
    } else if remove::would_remove(scratch, holder) {
        Port::TakenOver
    } else {
        Port::Taken
    };
    taken as u64
}

/// [`take`] for the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_nat_try(port: u32) -> u64 {
    let Ok(scratch) = Scratch::of_this_cpu() else { return Port::Full as u64 };
    scratch.name_port(port as u16);
    let taken = match table::insert_reply(&scratch.reply_key, &scratch.reply) {
        Inserted::Yes => finish(scratch, Port::Got),
        Inserted::Full => Port::Full,
        Inserted::Exists => take_over(scratch),
    };
    taken as u64
}

#[inline(always)]
fn take_over(scratch: &mut Scratch) -> Port {
    let Some(holder) = Place::of_reply(&scratch.reply_key) else { return Port::Taken };
    // SAFETY: a live map entry.
    scratch.old_flow = unsafe { &*holder.reply() }.flow_key();
    scratch.old_reply = scratch.reply_key;
    if !remove::remove(When::Over, Whose::Packet) {
        return Port::Taken;
    }
    match table::insert_reply(&scratch.reply_key, &scratch.reply) {
        Inserted::Yes => finish(scratch, Port::TakenOver),
        // Somebody else was quicker.
        Inserted::Exists => Port::Taken,
        Inserted::Full => Port::Full,
    }
}

/// The client's entry.
#[inline(always)]
fn finish(scratch: &mut Scratch, taken: Port) -> Port {
    match table::insert_flow(&scratch.flow_key, &scratch.flow) {
        Inserted::Yes if is_ours(scratch) => taken,
        Inserted::Yes => {
            give_up(scratch);
            Port::Full
        }
        Inserted::Full => {
            table::remove_reply(&scratch.reply_key);
            Port::Full
        }
        Inserted::Exists => {
            table::remove_reply(&scratch.reply_key);
            adopt(scratch)
        }
    }
}

/// Whether the backend's entry is still the one that was made. If this CPU stood still for seconds between the two, it
/// looked abandoned, and another flow may have its port.
#[inline(always)]
fn is_ours(scratch: &Scratch) -> bool {
    Place::of_reply_to(scratch).is_some_and(|at| !at.seen().has(NAT_DEAD))
}

/// Removes the client's entry alone: its port is lost.
#[inline(always)]
fn give_up(scratch: &Scratch) {
    let Some(at) = Place::of_flow(&scratch.flow_key) else { return };
    let seen = at.seen();
    if !seen.has(NAT_DEAD) && at.exchange(seen, dead(seen)) {
        table::remove_flow(&scratch.flow_key);
    }
}

/// Goes on with the flow that another CPU has made.
#[inline(always)]
fn adopt(scratch: &mut Scratch) -> Port {
    let Some(at) = Place::of_flow(&scratch.flow_key) else { return Port::Full };
    let seen = at.copy_flow(&mut scratch.flow);
    if seen.has(NAT_DEAD) || at.seen().0 != seen.0 { Port::Full } else { Port::Found }
}
