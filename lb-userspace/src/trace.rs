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

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Out of the interface that it came by.
    Tx,
    /// Out of another one.
    Redirect,
    /// To the host.
    Pass,
    Drop,
}

impl Verdict {
    pub(crate) const fn of(action: u32) -> Self {
        match action {
            XDP_TX => Self::Tx,
            XDP_REDIRECT => Self::Redirect,
            XDP_PASS => Self::Pass,
            _ => Self::Drop,
        }
    }

    /// As metrics have it: `tx`, `redirect`, `pass` or `drop`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tx => "tx",
            Self::Redirect => "redirect",
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_its_name() {
        for (action, name) in
            [(XDP_TX, "tx"), (XDP_REDIRECT, "redirect"), (XDP_PASS, "pass"), (XDP_DROP, "drop")]
        {
            assert_eq!(Verdict::of(action).as_str(), name);
        }
    }
}
