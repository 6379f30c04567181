#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::net::SocketAddr;

use lb_common::{
    abi::{
        ANSWER_TIME_EXCEEDED, CHOSEN_FALLBACK, CHOSEN_FLOW, CHOSEN_LEAST_LOADED, CHOSEN_NAT_FLOW, CHOSEN_NEW,
        CHOSEN_ROTATION, CHOSEN_TABLE, DropReason, FLOW_CONFIRMED, FlowEntry, PASSED_MAC, PASSED_NO_SERVICE,
        Slot, TRACE_ENDED, TRACE_REPLY, TRACE_SERVICE, TRACE_SLOT, TRACE_TRACKED, Trace,
    },
    flow::NOTE_REFUSED,
};

use super::{
    ExplainError, Explainer, Explanation, Packet, Question, Verdict, What, interface::Interface,
    subject::Subject,
};
use crate::{
    control::{
        FlowTable, InterfaceView, Snapshot,
        testing::{backend_view, service_view},
    },
    dataplane::{Traced, loader::LoadError},
    domain::{
        Admin, Forwarding, Health, Service,
        policy::ServiceState,
        testing::{name, service},
    },
};

const TX: u32 = 3;
const REDIRECT: u32 = 4;
const DROP: u32 = 1;
const PASS: u32 = 2;

/// Service `web` with `web-1`, at index 1, and `web-2`, at 2.
fn snapshot(change: impl FnOnce(&mut Service)) -> Snapshot {
    let mut spec = service("web", &[("web-1", 1), ("web-2", 1)]);
    change(&mut spec);
    let views = spec.backends.values().enumerate().map(|(number, backend)| {
        let mut view = backend_view(backend.name.clone(), backend.address, Health::Healthy);
        view.index = 1 + number as u32;
        view
    });
    let views: Vec<_> = views.collect();
    let lo = InterfaceView { name: "lo".into(), mode: "native", attached: true };
    Snapshot {
        services: vec![service_view(spec, ServiceState::Healthy, views)],
        interfaces: vec![lo],
        own_macs: Some([[2, 0, 0, 0, 0, 9]].into()),
        ..Snapshot::default()
    }
}

fn packet(to: &str) -> Packet {
    Packet {
        from: "198.51.100.7:40000".parse().unwrap(),
        service: None,
        to: Some(to.parse().unwrap()),
        port: None,
        protocol: None,
        syn: true,
        length: None,
    }
}

/// What is said of a packet to `to`, if that is what the program noted.
fn said_of(snapshot: &Snapshot, to: &str, trace: Trace) -> Explanation {
    let interface = Interface { name: "eth0".into(), index: 1, mac: [2, 0, 0, 0, 0, 2] };
    let input = What::Packet(packet(to)).sensible(snapshot).unwrap().frame(&interface).unwrap();
    let traced = Traced { trace: Trace { known: trace.known | TRACE_ENDED, ..trace }, frame: input.clone() };
    Subject { snapshot, interface: &interface, input: &input, traced: &traced }.explained()
}

fn said(snapshot: &Snapshot, trace: Trace) -> Explanation {
    said_of(snapshot, "203.0.113.10:80", trace)
}

/// One that leaves for a backend of `web`, by slot 5.
fn forwarded(backend: u32, chosen: u32, slot: Slot) -> Trace {
    Trace {
        known: TRACE_SERVICE | TRACE_SLOT,
        backend,
        chosen,
        slot: 5,
        slot_word: slot.word(),
        action: TX,
        ..Trace::default()
    }
}

#[track_caller]
fn assert_tells(explanation: &Explanation, reason: &str, words: &[&str]) {
    assert_eq!(explanation.reason, reason, "{explanation:#?}");
    let text = explanation.sentences.join("\n");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing:\n{text}");
    }
}

#[test]
fn every_way_to_a_backend_is_told() {
    let live = snapshot(|_| ());
    let steady = Slot::steady(1);
    let changed = Slot::tracked_since(0, 1, 2);
    let tracked = |trace: Trace| Trace { known: trace.known | TRACE_TRACKED, time: 100, ..trace };
    let entry = FlowEntry::new(7, FLOW_CONFIRMED, 88, 2).word();
    let said = |trace| said(&live, trace);

    let table = said(forwarded(1, CHOSEN_TABLE, steady));
    assert_tells(
        &table,
        "table",
        &["service web (203.0.113.10:80 tcp, ipip, source-hash)", "slot 5 of 1024, which is web-1's"],
    );
    assert_eq!((table.verdict, table.slot, table.tracked), (Verdict::Tx, Some(5), false));
    assert_eq!((table.service.as_deref(), table.backend.as_deref()), (Some("web"), Some("web-1")));
    assert_eq!(table.egress.as_deref(), Some("eth0"));

    let flow = said(tracked(Trace { flow_entry: entry, ..forwarded(2, CHOSEN_FLOW, changed) }));
    assert_tells(
        &flow,
        "flow",
        &["an entry for web-2 (established, last seen 12 s ago)", "stays with its flow's backend, web-2"],
    );
    assert!(flow.tracked);
    let previous = said(tracked(forwarded(2, CHOSEN_FALLBACK, changed)));
    assert_tells(
        &previous,
        "previous",
        &["was web-2's before the table changed", "no entry", "from before the change"],
    );
    let fallback = said(tracked(forwarded(1, CHOSEN_FALLBACK, changed)));
    assert_tells(&fallback, "fallback", &["goes to the slot's backend, web-1"]);
    let full = said(tracked(Trace { notes: NOTE_REFUSED, ..forwarded(2, CHOSEN_FALLBACK, changed) }));
    assert_tells(&full, "previous", &["no room for its entry", "limits.flow_entries"]);
    let left = said(tracked(Trace { flow_entry: entry, left: 2, ..forwarded(1, CHOSEN_NEW, changed) }));
    assert_tells(
        &left,
        "new_flow",
        &["an entry for web-2, which does not take this packet", "begins a flow"],
    );
    let turn = said(tracked(Trace { turn: 9, ..forwarded(2, CHOSEN_ROTATION, steady) }));
    assert_tells(
        &turn,
        "round_robin",
        &["it is web-2's turn (slot 9 of the rotation)", "The service tracks all flows"],
    );
    let loaded = Trace { candidates: [1, 2], loads: [9, 4], ..forwarded(2, CHOSEN_LEAST_LOADED, steady) };
    assert_tells(
        &said(tracked(loaded)),
        "least_connections",
        &["web-1 with 9 live flows and web-2 with 4 live flows, web-2 has fewer"],
    );
}

#[test]
fn backups_panic_and_drains_are_told() {
    let to_first = forwarded(1, CHOSEN_TABLE, Slot::steady(1));
    let first = |service: &mut Service, change: fn(&mut crate::domain::Backend)| {
        change(service.backends.get_mut(&name("web-1")).unwrap());
    };
    let backup = snapshot(|service| first(service, |backend| backend.backup = true));
    assert_tells(&said(&backup, to_first), "table", &["web-1 is a backup: too few others are healthy"]);
    let draining = snapshot(|service| first(service, |backend| backend.admin = Admin::Draining));
    assert_tells(&said(&draining, to_first), "table", &["web-1 drains"]);
    let mut panics = snapshot(|_| ());
    panics.services[0].state = ServiceState::Panic;
    assert_tells(&said(&panics, to_first), "table", &["Service web panics"]);
    let mut unhealthy = snapshot(|_| ());
    unhealthy.services[0].backends[0].health = Health::Unhealthy;
    assert_tells(&said(&unhealthy, to_first), "table", &["web-1 is unhealthy, and keeps the flows"]);
    // What the daemon has forgotten has a number at least.
    assert_eq!(
        said(&backup, forwarded(77, CHOSEN_TABLE, Slot::steady(77))).backend.as_deref(),
        Some("number 77")
    );
}

#[test]
fn a_drop_has_its_meaning_and_its_remedy_and_an_answer_its_kind() {
    let live = snapshot(|_| ());
    let dropped = |reason: DropReason| Trace {
        refused: reason as u32 + 1,
        action: DROP,
        mtu: 1400,
        ..forwarded(1, CHOSEN_TABLE, Slot::steady(1))
    };
    for reason in DropReason::ALL {
        let told = said(&live, dropped(reason));
        assert_tells(&told, reason.name(), &[&format!("dropped as {}: ", reason.name()), "What to do: "]);
        assert_eq!((told.verdict, told.drop, &told.output), (Verdict::Drop, Some(reason), &None));
        assert!(told.advice.is_some());
        assert_eq!(
            told.sentences.iter().any(|one| one.contains("At most 1400 bytes fit")),
            reason == DropReason::PacketTooBig
        );
    }
    let answered = Trace { action: TX, answer: ANSWER_TIME_EXCEEDED, ..dropped(DropReason::TtlExpired) };
    let words = &["its sender is told by an ICMP error, \"time exceeded\""];
    assert_tells(&said(&live, answered), "ttl_expired", words);
    assert_tells(&said(&live, Trace { action: REDIRECT, ..answered }), "ttl_expired", words);
}

#[test]
fn nat_tells_what_port_it_would_take_and_what_that_is_worth() {
    let mut live = snapshot(|service| service.forwarding = Forwarding::Nat);
    let new = |tries| Trace { tries, ..forwarded(1, CHOSEN_NEW, Slot::steady(1)) };
    assert_tells(&said(&live, new(1)), "new_flow", &["the first port that is tried is free."]);
    assert!(!said(&live, new(16)).sentences.join("").contains("chance"));
    assert_tells(&said(&live, new(17)), "new_flow", &["number 17 is the first free one", "chosen by chance"]);
    live.nat_table = FlowTable { entries: 10, capacity: 10 };
    assert_tells(&said(&live, new(1)), "new_flow", &["NAT's tables were full", "`nat_exhausted`"]);
    let known =
        Trace { known: TRACE_SERVICE, backend: 2, chosen: CHOSEN_NAT_FLOW, action: TX, ..Trace::default() };
    assert_tells(&said(&live, known), "nat_flow", &["known to NAT, and stays with web-2"]);
    let reply = Trace { known: TRACE_SERVICE | TRACE_REPLY, ..known };
    assert_tells(
        &said(&live, reply),
        "nat_flow",
        &["a flow of service web through NAT", "It comes from web-2"],
    );
}

#[test]
fn what_passes_is_told_why() {
    let live = snapshot(|_| ());
    let passed = |passed| Trace { passed, action: PASS, ..Trace::default() };
    let next_door = said_of(&live, "203.0.113.10:81", passed(PASSED_NO_SERVICE));
    assert_tells(
        &next_door,
        "no_service",
        &["No service is at 203.0.113.10:81 tcp: there is 203.0.113.10:80 tcp (web)"],
    );
    assert_eq!((next_door.verdict, next_door.egress), (Verdict::Pass, None));
    let nowhere = said_of(&live, "203.0.113.99:80", passed(PASSED_NO_SERVICE));
    assert_tells(&nowhere, "no_service", &["203.0.113.99 is no VIP"]);
    let other = said(&live, passed(PASSED_MAC));
    assert_tells(
        &other,
        "other_mac",
        &["for 02:00:00:00:00:02, which is none", "(02:00:00:00:00:09)", "destination_mac"],
    );
}

/// Of an explainer whose program can't be loaded.
fn refused(snapshot: &Snapshot, what: What, interface: Option<&str>) -> ExplainError {
    let explainer = Explainer::new(|| Err(LoadError::Malformed("is none".to_owned())));
    let question = Question { what, interface: interface.map(ToOwned::to_owned) };
    explainer.explain(snapshot, &question).unwrap_err()
}

#[test]
fn a_question_that_makes_no_sense_says_why() {
    let live = snapshot(|_| ());
    let at_web = || Packet { service: Some("web".into()), to: None, ..packet("203.0.113.10:80") };
    let of = |packet| refused(&live, What::Packet(packet), None).to_string();
    let wrong = of(Packet { service: Some("wbe".into()), ..at_web() });
    assert_eq!(wrong, "service \"wbe\" does not exist; did you mean \"web\"?");
    let v6: SocketAddr = "[2001:db8::7]:40000".parse().unwrap();
    assert!(
        of(Packet { from: v6, ..at_web() })
            .contains("2001:db8::7 is an IPv6 address and 203.0.113.10 an IPv4 one")
    );
    assert!(of(Packet { port: Some(81), ..at_web() }).contains("ask about 203.0.113.10:81 instead"));
    assert!(of(Packet { length: Some(39), ..at_web() }).contains("40 to 65535 bytes, not 39"));
    assert!(
        of(Packet { protocol: Some(crate::domain::Protocol::Udp), ..at_web() })
            .contains("service web is tcp")
    );
    let everywhere = snapshot(|service| service.vip.port = None);
    assert!(refused(&everywhere, What::Packet(at_web()), None).to_string().contains("say which one"));
    assert!(matches!(refused(&live, What::Packet(at_web()), None), ExplainError::NotLoaded(_)));
    assert!(
        refused(&live, What::Frame(vec![0; 13]), None)
            .to_string()
            .contains("shorter than an Ethernet header")
    );
    let elsewhere = refused(&live, What::Packet(at_web()), Some("eth9")).to_string();
    assert_eq!(elsewhere, "the program is not attached to \"eth9\", but to lo");
    assert!(matches!(
        refused(&Snapshot::default(), What::Packet(at_web()), None),
        ExplainError::Invalid { field: "interface", .. }
    ));
}
