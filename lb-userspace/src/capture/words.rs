//! What became of a packet, in a line.

use std::fmt;

use lb_common::abi::{
    ANSWER_ECHO, ANSWER_PORT_UNREACHABLE, ANSWER_RELAYED, ANSWER_RESET, ANSWER_TIME_EXCEEDED, ANSWER_TOO_BIG,
    ANSWER_TUNNEL, DropReason, PASSED_FRAGMENT, PASSED_ICMP, PASSED_MAC, PASSED_NO_FLOW, PASSED_NO_SERVICE,
    TRACE_REPLY, TRACE_SLOT, Trace,
};

use super::{Backend, Packet};
use crate::trace::{self, Verdict};

/// Why a packet was dropped, from the reason's number.
pub(super) fn reason(number: u32) -> &'static str {
    DropReason::ALL.get(number as usize).map_or("unknown", |reason| reason.name())
}

/// Why the packet goes to its backend: `table`, `flow` and so on, as `explain` has it; `None` where there is none.
pub(super) fn why(trace: &Trace) -> Option<&'static str> {
    if trace.backend == 0 {
        return None;
    }
    trace::chosen(trace)
}

/// What was sent in the packet's place, or was made of it.
fn answer(trace: &Trace) -> Option<&'static str> {
    Some(match trace.answer {
        ANSWER_ECHO => "echo request answered",
        ANSWER_TOO_BIG => "answered: too big",
        ANSWER_TIME_EXCEEDED => "answered: time exceeded",
        ANSWER_PORT_UNREACHABLE => "answered: port unreachable",
        ANSWER_RESET => "answered: RST",
        ANSWER_RELAYED => "ICMP error handed on",
        ANSWER_TUNNEL => "ICMP error of a tunnel handed on",
        _ => return None,
    })
}

/// Why the packet is the host's.
fn passed(trace: &Trace) -> &'static str {
    match trace.passed {
        PASSED_MAC => "for another MAC address",
        PASSED_NO_SERVICE => "no service",
        PASSED_NO_FLOW => "no service, no NAT flow",
        PASSED_FRAGMENT => "as its first fragment",
        PASSED_ICMP => "ICMP about no flow",
        _ => "nothing for a service",
    }
}

/// `web → web-2 (10.0.0.12): tx, slot 123, table`; `web: dropped: no_backend`; `passed: no service`.
impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, backend, trace, verdict, reason, .. } = self;
        let way = if trace.knows(TRACE_REPLY) { "←" } else { "→" };
        match (service, backend) {
            (Some(service), Some(backend)) => write!(f, "{service} {way} {backend}: ")?,
            (Some(service), None) => write!(f, "{service}: ")?,
            (None, Some(backend)) => write!(f, "{way} {backend}: ")?,
            (None, None) => {}
        }
        match verdict {
            Verdict::Drop => write!(f, "dropped: {}", reason.unwrap_or_default())?,
            Verdict::Pass => write!(f, "passed: {}", passed(trace))?,
            Verdict::Tx => f.write_str("tx")?,
            Verdict::Redirect => match &self.frame_after {
                Some(after) => write!(f, "redirect to {}", after.interface)?,
                None => f.write_str("redirect")?,
            },
        }
        if trace.knows(TRACE_SLOT) {
            write!(f, ", slot {}", trace.slot)?;
        }
        let goes_on = !matches!(verdict, Verdict::Pass);
        for words in [why(trace).filter(|_| goes_on), answer(trace)].into_iter().flatten() {
            write!(f, ", {words}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{} ({})", self.name, address.ip()),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::{CHOSEN_FLOW, CHOSEN_NAT_FLOW};

    use super::*;
    use crate::capture::testing::packet;

    #[test]
    fn a_line_says_where_a_packet_went_and_why() {
        let told = |change: fn(&mut Packet)| {
            let mut packet = packet();
            change(&mut packet);
            packet.to_string()
        };
        assert_eq!(told(|_| {}), "web → web-2 (10.0.0.12): tx, slot 123, table");
        assert_eq!(
            told(|packet| {
                packet.verdict = Verdict::Redirect;
                packet.trace.chosen = CHOSEN_FLOW;
            }),
            "web → web-2 (10.0.0.12): redirect to eth1, slot 123, flow"
        );
        assert_eq!(
            told(|packet| {
                (packet.verdict, packet.reason) = (Verdict::Drop, Some("no_backend"));
                packet.backend = None;
                packet.trace.backend = 0;
            }),
            "web: dropped: no_backend, slot 123"
        );
        assert_eq!(
            told(|packet| {
                packet.verdict = Verdict::Pass;
                (packet.service, packet.backend) = (None, None);
                packet.trace = Trace { passed: PASSED_NO_SERVICE, ..Trace::default() };
            }),
            "passed: no service"
        );
        assert_eq!(
            told(|packet| {
                packet.trace =
                    Trace { known: TRACE_REPLY, backend: 2, chosen: CHOSEN_NAT_FLOW, ..Trace::default() };
            }),
            "web ← web-2 (10.0.0.12): tx, nat_flow"
        );
        assert_eq!(
            told(|packet| {
                packet.backend = None;
                packet.trace = Trace { answer: ANSWER_ECHO, ..Trace::default() };
            }),
            "web: tx, echo request answered"
        );
    }

    #[test]
    fn every_reason_has_its_name() {
        for known in DropReason::ALL {
            assert_eq!(reason(known as u32), known.name());
        }
        assert_eq!(reason(99), "unknown");
    }
}
