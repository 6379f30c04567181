//! What becomes of the packet in the end.

use lb_common::abi::{
    ANSWER_ECHO, ANSWER_LIMITED, ANSWER_PORT_UNREACHABLE, ANSWER_RELAYED, ANSWER_RESET, ANSWER_TIME_EXCEEDED,
    ANSWER_TOO_BIG, ANSWER_TUNNEL, DropReason, PASSED_NO_FLOW, TRACE_SERVICE,
};

use crate::{
    domain::Forwarding,
    explain::{reason, subject::Subject},
    interfaces,
    telemetry::drops,
    trace::Verdict,
};

pub(super) fn tell(subject: &Subject<'_>, verdict: Verdict, sentences: &mut Vec<String>) {
    let trace = subject.trace();
    sentences.extend(new_nat_flow(subject));
    if let Some(reason) = reason::refused(trace) {
        sentences.push(refusal(subject, verdict, reason));
        return;
    }
    match verdict {
        Verdict::Drop => {}
        Verdict::Pass if trace.passed == PASSED_NO_FLOW && trace.knows(TRACE_SERVICE) => {
            sentences.push(
                "No flow of the service is known to NAT that it is about: it is the host's.".to_owned(),
            );
        }
        Verdict::Pass => {}
        Verdict::Tx => sentences.push(format!("{} out of {}.", leaves(trace.answer), subject.interface.name)),
        Verdict::Redirect => {
            sentences.push(format!("{} out of {}.", leaves(trace.answer), interfaces::name(trace.ifindex)));
        }
    }
}

/// The port of a flow that NAT would begin.
fn new_nat_flow(subject: &Subject<'_>) -> Option<String> {
    let trace = subject.trace();
    if trace.tries == 0 || reason::refused(trace).is_some() {
        return None;
    }
    let tries = match trace.tries {
        1 => "the first port that is tried is free".to_owned(),
        tries => format!("of the ports that are tried, number {tries} is the first free one"),
    };
    let own = subject.service().is_some_and(|view| view.service.forwarding == Forwarding::Dnat);
    let chance = if trace.tries > if own { 1 } else { IN_A_ROW } {
        "; it is chosen by chance, so that the packet itself may get another"
    } else {
        ""
    };
    let table = subject.snapshot.nat_table;
    let full = if table.capacity > 0 && table.entries >= table.capacity {
        ". But NAT's tables were full a second ago: if they still are, it is dropped as `nat_exhausted`"
    } else {
        ""
    };
    Some(format!("A flow through NAT would be made for it: {tries}{chance}{full}."))
}

fn refusal(subject: &Subject<'_>, verdict: Verdict, reason: DropReason) -> String {
    let trace = subject.trace();
    let (name, meaning, advice) = (reason.name(), drops::meaning(reason), drops::advice(reason));
    let told = match trace.answer {
        ANSWER_TOO_BIG => Some("an ICMP error, \"too big\""),
        ANSWER_TIME_EXCEEDED => Some("an ICMP error, \"time exceeded\""),
        ANSWER_PORT_UNREACHABLE => Some("an ICMP error, \"port unreachable\""),
        ANSWER_RESET => Some("an RST"),
        _ => None,
    };
    let fits = match reason {
        DropReason::PacketTooBig if trace.mtu != u32::MAX => format!(" At most {} bytes fit.", trace.mtu),
        _ => String::new(),
    };
    match told {
        Some(answer) if verdict != Verdict::Drop => {
            format!("It goes no further ({name}), and its sender is told by {answer}.{fits}")
        }
        _ => {
            let limited = if trace.answer == ANSWER_LIMITED {
                " An ICMP error was due, and enough have been made this second."
            } else {
                ""
            };
            let stop = if advice.ends_with('?') { "" } else { "." };
            format!("It is dropped as {name}: {meaning}.{fits}{limited} What to do: {advice}{stop}")
        }
    }
}

const fn leaves(answer: u32) -> &'static str {
    match answer {
        ANSWER_ECHO => "It is answered by an echo reply,",
        ANSWER_TUNNEL => {
            "It is about a packet in a tunnel; the client whose packet that was is told by an error,"
        }
        ANSWER_RELAYED => "It is an error about a flow, and is handed on",
        _ => "It leaves",
    }
}

/// Ports that `nat` tries one after the other.
const IN_A_ROW: u32 = 16;
