//! What becomes of the packet at hand, and why, in [`maps::TRACE`]: for `explain` and `capture`, which load the program for
//! it. In any other one it is dead code, which the verifier takes out.
//!
//! Nothing here decides anything, and nothing reads a trace to go on from it but the next note.

use aya_ebpf::bindings::xdp_action::XDP_DROP;
use lb_common::{
    abi::{
        CHOSEN_FALLBACK, CHOSEN_FLOW, CHOSEN_NAT_FLOW, CHOSEN_TABLE, FlowEntry, ServiceEntry, Slot,
        TRACE_ENDED, TRACE_REPLY, TRACE_SLOT, TRACE_TRACKED, Trace,
    },
    flow::{Followed, NOTE_REFUSED},
};

use crate::{
    maps,
    refusal::{Outcome, Refusal},
    settings,
};

/// A packet comes.
#[inline(always)]
pub fn begin() {
    note(|trace| *trace = Trace::default());
}

/// That is what becomes of it.
#[inline(always)]
pub fn end(outcome: Outcome) {
    note(|trace| {
        trace.known |= TRACE_ENDED;
        match outcome {
            Ok(action) => trace.action = action,
            Err(refusal) => {
                trace.action = XDP_DROP;
                trace.refused = refusal.reason + 1;
            }
        }
    });
}

/// It goes no further, and its sender may be told.
#[inline(always)]
pub fn refused(refusal: Refusal) {
    note(|trace| {
        trace.refused = refusal.reason + 1;
        trace.mtu = refusal.mtu;
    });
}

/// Notes something of the packet at hand.
#[inline(always)]
pub fn note(note: impl FnOnce(&mut Trace)) {
    if settings::tracing()
        && let Some(trace) = maps::TRACE.get_ptr_mut(0)
    {
        // SAFETY: this CPU's entry, which lives as long as the map. Nothing interrupts the program on its CPU, and nobody
        // keeps another reference.
        note(unsafe { &mut *trace });
    }
}

/// The packet is the host's: `PASSED_*`.
#[inline(always)]
pub fn passed(why: u32) {
    note(|trace| trace.passed = why);
}

/// Something has been sent in the packet's place: `ANSWER_*`. The first one counts.
#[inline(always)]
pub fn answered(how: u32) {
    note(|trace| {
        if trace.answer == 0 {
            trace.answer = how;
        }
    });
}

/// The packet's slot, `number` of `LOOKUP`, whose current backend it goes to unless its flow is followed.
#[inline(always)]
pub fn slot(service: &ServiceEntry, number: u32, slot: Slot) {
    note(|trace| {
        trace.service(service.service);
        trace.known |= TRACE_SLOT;
        trace.slot = number.wrapping_sub(service.slots_base);
        trace.slot_word = slot.word();
        trace.backend(slot.current(), CHOSEN_TABLE);
    });
}

/// The packet's flow may have an entry.
#[inline(always)]
pub fn tracked(entry: FlowEntry, takes: bool, now: u64) {
    note(|trace| {
        trace.known |= TRACE_TRACKED;
        trace.flow_entry = entry.word();
        trace.time = now as u32;
        // What is chosen besides is noted by who chooses.
        let (backend, chosen) = if takes { (entry.index(), CHOSEN_FLOW) } else { (0, CHOSEN_FALLBACK) };
        trace.backend(backend, chosen);
        trace.left = if takes { 0 } else { entry.index() };
    });
}

/// Where it goes therefore.
#[inline(always)]
pub fn followed(followed: &Followed) {
    note(|trace| {
        trace.notes = followed.notes;
        trace.backend = followed.index;
        if followed.notes & NOTE_REFUSED != 0 {
            trace.chosen = CHOSEN_FALLBACK;
        }
    });
}

/// It is a flow's through NAT, and goes to its client.
#[inline(always)]
pub fn reply(service: u32, backend: u32) {
    note(|trace| {
        trace.known |= TRACE_REPLY;
        trace.service(service);
        trace.backend(backend, CHOSEN_NAT_FLOW);
    });
}

/// It leaves by another interface.
#[inline(always)]
pub fn redirected(ifindex: u32) {
    note(|trace| trace.ifindex = ifindex);
}
