//! What became of a packet, and why, each in a word.

use lb_common::abi::{
    ANSWER_ECHO, ANSWER_RELAYED, ANSWER_TUNNEL, CHOSEN_FALLBACK, CHOSEN_FLOW, CHOSEN_FRAGMENT,
    CHOSEN_LEAST_LOADED, CHOSEN_NAT_FLOW, CHOSEN_NEW, CHOSEN_ROTATION, CHOSEN_TABLE, DropReason,
    PASSED_FRAGMENT, PASSED_ICMP, PASSED_MAC, PASSED_NO_FLOW, PASSED_NO_SERVICE, Slot, Trace,
};

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
    pub(super) const fn of(trace: &Trace) -> Self {
        match trace.action {
            XDP_TX => Self::Tx,
            XDP_REDIRECT => Self::Redirect,
            XDP_PASS => Self::Pass,
            _ => Self::Drop,
        }
    }

    /// As metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tx => "tx",
            Self::Redirect => "redirect",
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

/// Of a packet that goes no further, also where its sender is told instead.
pub(super) fn refused(trace: &Trace) -> Option<DropReason> {
    let number = usize::try_from(trace.refused).ok()?.checked_sub(1)?;
    DropReason::ALL.get(number).copied()
}

/// The word for people's scripts.
pub(super) fn word(trace: &Trace, verdict: Verdict) -> &'static str {
    if let Some(reason) = refused(trace) {
        return reason.name();
    }
    match trace.answer {
        ANSWER_ECHO => return "echo",
        ANSWER_RELAYED => return "icmp_error",
        ANSWER_TUNNEL => return "tunnel_error",
        _ => {}
    }
    if verdict == Verdict::Pass {
        return match trace.passed {
            PASSED_MAC => "other_mac",
            PASSED_NO_SERVICE => "no_service",
            PASSED_NO_FLOW => "no_flow",
            PASSED_FRAGMENT => "fragment_passed",
            PASSED_ICMP => "icmp_passed",
            _ => "other",
        };
    }
    match trace.chosen {
        CHOSEN_TABLE => "table",
        CHOSEN_FLOW => "flow",
        CHOSEN_FALLBACK if is_previous(trace) => "previous",
        CHOSEN_FALLBACK => "fallback",
        CHOSEN_NEW => "new_flow",
        CHOSEN_ROTATION => "round_robin",
        CHOSEN_LEAST_LOADED => "least_connections",
        CHOSEN_NAT_FLOW => "nat_flow",
        CHOSEN_FRAGMENT => "fragment",
        _ => "unknown",
    }
}

/// Whether the fallback is who had the slot before.
pub(super) fn is_previous(trace: &Trace) -> bool {
    let slot = Slot::from_word(trace.slot_word);
    trace.backend == slot.previous() && trace.backend != slot.current()
}

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
