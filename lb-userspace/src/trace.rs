//! What the data plane noted of a packet, in the words that `explain` and `capture` share: who asks the one about what he saw in
//! the other has to find the same.

use lb_common::abi::{
    CHOSEN_FALLBACK, CHOSEN_FLOW, CHOSEN_FRAGMENT, CHOSEN_LEAST_LOADED, CHOSEN_NAT_FLOW, CHOSEN_NEW,
    CHOSEN_ROTATION, CHOSEN_TABLE, Slot, Trace,
};

// As the kernel numbers them (uapi/linux/bpf.h).
pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_TX: u32 = 3;
pub(crate) const XDP_REDIRECT: u32 = 4;

/// How the packet's backend was chosen: `table`, `flow` and so on. `None`: in a way that this version does not know, or not at
/// all.
pub(crate) fn chosen(trace: &Trace) -> Option<&'static str> {
    Some(match trace.chosen {
        CHOSEN_TABLE => "table",
        CHOSEN_FLOW => "flow",
        CHOSEN_FALLBACK if is_previous(trace) => "previous",
        CHOSEN_FALLBACK => "fallback",
        CHOSEN_NEW => "new_flow",
        CHOSEN_ROTATION => "round_robin",
        CHOSEN_LEAST_LOADED => "least_connections",
        CHOSEN_NAT_FLOW => "nat_flow",
        CHOSEN_FRAGMENT => "fragment",
        _ => return None,
    })
}

/// Whether the fallback is who had the slot before.
pub(crate) fn is_previous(trace: &Trace) -> bool {
    let slot = Slot::from_word(trace.slot_word);
    trace.backend == slot.previous() && trace.backend != slot.current()
}
