//! What became of a packet, and why, each in a word.

use lb_common::abi::{
    ANSWER_ECHO, ANSWER_RELAYED, ANSWER_TUNNEL, DropReason, PASSED_FRAGMENT, PASSED_ICMP, PASSED_MAC,
    PASSED_NO_FLOW, PASSED_NO_SERVICE, Trace,
};

use crate::trace::{self, Verdict};

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
    trace::chosen(trace).unwrap_or("unknown")
}
