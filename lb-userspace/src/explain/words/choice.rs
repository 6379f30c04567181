//! Slot, flow, and why this backend.

use lb_common::{
    abi::{
        CHOSEN_FALLBACK, CHOSEN_FLOW, CHOSEN_FRAGMENT, CHOSEN_LEAST_LOADED, CHOSEN_NAT_FLOW, CHOSEN_NEW,
        CHOSEN_ROTATION, CHOSEN_TABLE, FLOW_CLOSING, FLOW_UNCONFIRMED, FlowEntry, Slot, TRACE_REPLY,
        TRACE_SLOT, TRACE_TRACKED, Trace,
    },
    flow::{NOTE_EVICTED, NOTE_REFUSED},
};

use crate::{
    domain::{Admin, Algorithm, Health, policy::ServiceState},
    explain::subject::Subject,
    trace::is_previous,
};

pub(super) fn tell(subject: &Subject<'_>, sentences: &mut Vec<String>) {
    let trace = subject.trace();
    if trace.knows(TRACE_SLOT) {
        sentences.push(slot(subject));
    }
    if trace.knows(TRACE_TRACKED) {
        sentences.push(entry(subject));
    } else if trace.left != 0 {
        let backend = subject.backend_name(trace.left);
        sentences.push(format!("Its old flow was with {backend}, which takes no new ones, and is given up."));
    }
    sentences.extend(choice(subject));
    if trace.backend != 0 {
        sentences.extend(standing(subject));
    }
}

/// Which slot the packet's hash names, and who has it.
fn slot(subject: &Subject<'_>) -> String {
    let trace = subject.trace();
    let slot = Slot::from_word(trace.slot_word);
    let service = subject.service().map(|view| &view.service);
    let hashed = match service.map(|service| service.algorithm) {
        Some(Algorithm::SourceHash) => "The client's address names",
        Some(_) => "Addresses and ports name",
        None => "Its hash names",
    };
    let of = service.map(|service| format!(" of {}", service.table_size.slots())).unwrap_or_default();
    let holder = match slot.current() {
        0 => "which has no backend".to_owned(),
        current => format!("which is {}'s", subject.backend_name(current)),
    };
    let before = match slot.previous() {
        0 => String::new(),
        previous => format!(", and was {}'s before the table changed", subject.backend_name(previous)),
    };
    format!("{hashed} slot {}{of}, {holder}{before}.", trace.slot)
}

/// What the flow table knows.
fn entry(subject: &Subject<'_>) -> String {
    let trace = subject.trace();
    let why = match Slot::from_word(trace.slot_word).is_tracked() {
        true => "Flows are tracked in this slot",
        false => "The service tracks all flows",
    };
    let entry = FlowEntry::from_word(trace.flow_entry);
    if entry == FlowEntry::EMPTY {
        return format!("{why}, and this one has no entry.");
    }
    let state = match entry.state() {
        FLOW_UNCONFIRMED => "one packet seen",
        FLOW_CLOSING => "closing",
        _ => "established",
    };
    let refused = if trace.left == 0 { "" } else { ", which does not take this packet" };
    format!(
        "{why}, and this one has an entry for {}{refused} ({state}, last seen {} s ago).",
        subject.backend_name(entry.index()),
        entry.age(trace.time.into())
    )
}

/// Why this backend.
fn choice(subject: &Subject<'_>) -> Option<String> {
    let trace = subject.trace();
    if trace.backend == 0 {
        return None;
    }
    let name = subject.backend_name(trace.backend);
    let sentence = match trace.chosen {
        CHOSEN_TABLE => {
            format!("Flows are not tracked in this slot, so it goes to the slot's backend, {name}.")
        }
        CHOSEN_FLOW => format!("It stays with its flow's backend, {name}."),
        CHOSEN_FALLBACK if trace.notes & NOTE_REFUSED != 0 => format!(
            "The flow table has no room for its entry, so it goes where the flow's next packet will look for it, to {name}: a \
             larger `limits.flow_entries` has more."
        ),
        CHOSEN_FALLBACK if is_previous(trace) => {
            format!("A flow from before the change stays with the slot's previous backend, {name}.")
        }
        CHOSEN_FALLBACK => {
            format!("Its flow began before it was tracked, and goes to the slot's backend, {name}.")
        }
        CHOSEN_NEW => format!("It begins a flow, which goes to the slot's backend, {name}{}.", place(trace)),
        CHOSEN_ROTATION => format!(
            "It begins a flow, and it is {name}'s turn (slot {} of the rotation); each new flow moves the turn on.",
            trace.turn
        ),
        CHOSEN_LEAST_LOADED => loads(subject, &name),
        CHOSEN_NAT_FLOW if trace.knows(TRACE_REPLY) => format!("It comes from {name}."),
        CHOSEN_NAT_FLOW => format!("Its flow is known to NAT, and stays with {name}."),
        CHOSEN_FRAGMENT => format!("It goes where the first fragment of its packet went, to {name}."),
        _ => return None,
    };
    Some(sentence)
}

/// Whose place the entry of a new flow takes.
const fn place(trace: &Trace) -> &'static str {
    if trace.notes & NOTE_EVICTED != 0 {
        " (its entry takes the place of one that got no second packet)"
    } else {
        ""
    }
}

fn loads(subject: &Subject<'_>, name: &str) -> String {
    let trace = subject.trace();
    let [one, other] = trace.candidates;
    if one == other {
        return format!("It begins a flow, and both candidates are {name}.");
    }
    let told = |index, load| format!("{} with {load} live flows", subject.backend_name(index));
    let [first, second] = trace.loads;
    format!(
        "It begins a flow, and of its two candidates, {} and {}, {name} has fewer for its weight.",
        told(one, first),
        told(other, second)
    )
}

/// What is special about the backend, and about its service.
fn standing(subject: &Subject<'_>) -> Vec<String> {
    let trace = subject.trace();
    let name = subject.backend_name(trace.backend);
    let mut sentences = Vec::new();
    if subject.is_leaving(trace.backend) {
        sentences
            .push(format!("{name} is gone from the service and keeps the flows that it has for a while."));
    }
    let Some(view) = subject.service() else { return sentences };
    let declared = view.service.backends.get(name.as_str());
    if let Some(backend) = declared {
        match backend.admin {
            Admin::Draining => {
                sentences.push(format!("{name} drains: it keeps the flows that it has for a while."))
            }
            Admin::Disabled => sentences.push(format!("{name} is disabled.")),
            Admin::Active => {}
        }
        if backend.backup {
            sentences.push(format!("{name} is a backup: too few others are healthy."));
        }
    }
    let health = subject.backend(trace.backend).map(|backend| backend.health);
    if view.state == ServiceState::Panic {
        let service = &view.service.name;
        sentences.push(format!(
            "Service {service} panics: too few of its backends are healthy, so those that are not get traffic, too."
        ));
    } else if health == Some(Health::Unhealthy) {
        sentences
            .push(format!("{name} is unhealthy, and keeps the flows that it has for `unhealthy_grace`."));
    }
    sentences
}
