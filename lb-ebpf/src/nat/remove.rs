//! Taking a flow away. Whoever does it first declares both entries dead, the client's first, so that of several only one
//! does it and nobody goes on using them.

use lb_common::{
    abi::{DropReason, NatSeen, PROTOCOL_TCP},
    nat,
};

use super::{
    entry::{ReplyKey, address},
    scratch::{Scratch, Whose},
    table::{self, Place, dead},
};
use crate::{clock, maps};

/// When to.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum When {
    Over = 0,
    /// Whether it is over or not.
    Now = 1,
    /// If the backend's entry is all there is of it.
    Lone = 2,
}

/// Removes the flow whose keys are in [`Scratch::old_flow`] and [`Scratch::old_reply`], and says whether it is gone.
#[inline(always)]
pub fn remove(when: When, whose: Whose) -> bool {
    ballast_nat_remove(when as u32, whose as u32) != 0
}

/// [`remove`] for the verifier: a [`When`] and a [`Whose`] in, a truth value out.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_nat_remove(when: u32, whose: u32) -> u64 {
    let whose = if whose == Whose::Packet as u32 { Whose::Packet } else { Whose::Controller };
    let Ok(scratch) = Scratch::of(whose) else { return 0 };
    // Either may belong to another flow: a port changes hands, and a key's flow starts anew with another one.
    let flow = Place::of_flow(&scratch.old_flow).and_then(|at| {
        let seen = at.seen();
        is_answered(at, scratch).then_some((at, seen))
    });
    let reply = Place::of_reply(&scratch.old_reply).and_then(|at| {
        let seen = at.seen();
        // SAFETY: a live map entry.
        unsafe { &*at.reply() }.flow_key().is(&scratch.old_flow).then_some((at, seen))
    });
    let (forced, now) = (when == When::Now as u32, clock::now());
    let gone = match (flow, reply) {
        (Some(_), _) if when == When::Lone as u32 => false,
        (Some((flow_at, flow)), Some((reply_at, reply))) => {
            (forced || is_over(scratch, flow, reply, now))
                && declare_flow(scratch, flow_at, flow)
                && (declare_reply(scratch, reply_at, reply) || restore(flow_at, flow))
        }
        (Some((at, seen)), None) => {
            let never = NatSeen::new(seen.time().into(), 0);
            (forced || is_over(scratch, seen, never, now)) && declare_flow(scratch, at, seen)
        }
        (None, Some((at, seen))) => {
            // Another CPU may be between its two insertions, so that this is not done by force.
            nat::is_abandoned(seen, surely(seen.age(now), now))
                && declare_reply(scratch, at, seen)
                && (is_still_alone(scratch) || restore(at, seen))
        }
        (None, None) => return 1,
    };
    if gone {
        if flow.is_some() {
            table::remove_flow(&scratch.old_flow);
        }
        if reply.is_some() {
            table::remove_reply(&scratch.old_reply);
        }
    }
    gone.into()
}

/// Whether [`remove`] would take away the flow in [`Scratch::old_flow`] and [`Scratch::old_reply`], which is the reply's place,
/// because it is over.
#[inline(always)]
pub fn would_remove(scratch: &Scratch, reply: Place) -> bool {
    let (seen, now) = (reply.seen(), clock::now());
    match Place::of_flow(&scratch.old_flow).filter(|at| is_answered(*at, scratch)) {
        Some(flow) => is_alive(seen) && is_alive(flow.seen()) && is_over(scratch, flow.seen(), seen, now),
        None => is_alive(seen) && nat::is_abandoned(seen, surely(seen.age(now), now)),
    }
}

/// Makes the flow that is in the scratch the one to [`remove`].
#[inline(always)]
pub fn name(scratch: &mut Scratch, protocol: u8) -> Result<(), DropReason> {
    let backend = maps::BACKENDS.get(scratch.flow.backend).ok_or(DropReason::BadMapEntry)?;
    scratch.old_flow = scratch.flow_key;
    scratch.old_reply = ReplyKey {
        backend: address(&backend.address),
        our_address: scratch.flow.our_address,
        ports: scratch.flow.reply_ports,
        protocol: protocol.into(),
    };
    Ok(())
}

/// Whether a client's entry is that of the backend's.
#[inline(always)]
fn is_answered(at: Place, scratch: &Scratch) -> bool {
    // SAFETY: a live map entry.
    unsafe { &*at.flow() }.is_answered_by(&scratch.old_reply)
}

#[inline(always)]
fn is_over(scratch: &Scratch, flow: NatSeen, reply: NatSeen, now: u64) -> bool {
    let tcp = scratch.old_reply.protocol == u32::from(PROTOCOL_TCP);
    // Of a service that is gone it is 0.
    let idle = maps::SERVICES.get(scratch.old_flow.service).map_or(0, |record| record.flow_idle_timeout);
    let (one, other) = (flow.age(now), reply.age(now));
    nat::is_over(flow, reply, tcp, idle, surely(if one < other { one } else { other }, now))
}

/// The time by which to judge what looks so old: while the clock stands still, what it stamps is younger than it looks afterwards.
#[inline(always)]
fn surely(age: u32, now: u64) -> u64 {
    now.saturating_sub(clock::jump().doubt(age, now).into())
}

/// The place may have been given to another flow since its entry was read, and that flow's `seen` word may be the same.
#[inline(always)]
fn declare_flow(scratch: &Scratch, at: Place, seen: NatSeen) -> bool {
    is_alive(seen)
        && at.exchange(seen, dead(seen))
        && (is_dead(Place::of_flow(&scratch.old_flow)) || restore(at, seen))
}

#[inline(always)]
fn declare_reply(scratch: &Scratch, at: Place, seen: NatSeen) -> bool {
    is_alive(seen)
        && at.exchange(seen, dead(seen))
        && (is_dead(Place::of_reply(&scratch.old_reply)) || restore(at, seen))
}

#[inline(always)]
fn is_alive(seen: NatSeen) -> bool {
    dead(seen).0 != seen.0
}

#[inline(always)]
fn is_dead(place: Option<Place>) -> bool {
    place.is_some_and(|place| !is_alive(place.seen()))
}

/// Whether no client's entry has come that belongs to the backend's.
#[inline(always)]
fn is_still_alone(scratch: &Scratch) -> bool {
    !Place::of_flow(&scratch.old_flow).is_some_and(|at| is_answered(at, scratch))
}

/// Takes a declaration back, and says that it failed.
#[inline(always)]
fn restore(at: Place, seen: NatSeen) -> bool {
    at.exchange(dead(seen), seen);
    false
}
