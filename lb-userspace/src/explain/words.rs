//! A packet's way, in sentences: which service, which slot, which backend and why, and what becomes of it.

mod choice;
mod outcome;

use std::net::SocketAddr;

use lb_common::abi::{
    PASSED_FRAGMENT, PASSED_ICMP, PASSED_MAC, PASSED_NO_FLOW, PASSED_NO_SERVICE, TRACE_REPLY, TRACE_SERVICE,
};

use super::{
    read::{self, Ends, Reading, protocol},
    subject::Subject,
};
use crate::{digits, trace::Verdict};

pub(super) fn sentences(subject: &Subject<'_>, verdict: Verdict, packet: &Reading) -> Vec<String> {
    let mut sentences = vec![whose(subject, verdict, packet)];
    choice::tell(subject, &mut sentences);
    outcome::tell(subject, verdict, &mut sentences);
    sentences
}

/// Which service it is for, or why for none.
fn whose(subject: &Subject<'_>, verdict: Verdict, packet: &Reading) -> String {
    let trace = subject.trace();
    if trace.knows(TRACE_SERVICE) {
        let name = subject.service_name();
        if trace.knows(TRACE_REPLY) {
            return format!("It belongs to a flow of service {name} through NAT, and goes to its client.");
        }
        let Some(service) = subject.service().map(|view| &view.service) else {
            return format!("It is for service {name}.");
        };
        return format!(
            "It is for service {name} ({} {}, {}, {}).",
            service.vip,
            service.protocol.as_str(),
            service.forwarding.as_str(),
            service.algorithm.as_str()
        );
    }
    if verdict != Verdict::Pass {
        return "It is for a VIP.".to_owned();
    }
    let why = match trace.passed {
        PASSED_MAC => other_mac(subject, packet),
        PASSED_NO_SERVICE => no_service(subject, packet.ends),
        PASSED_NO_FLOW => {
            format!("{} And no flow through NAT has such replies.", no_service(subject, packet.ends))
        }
        PASSED_FRAGMENT => "The first fragment of its packet was the host's.".to_owned(),
        PASSED_ICMP => {
            "It is ICMP, and neither an echo request to a VIP nor an error about a flow that is known."
                .to_owned()
        }
        _ if !read::is_ip(subject.input) => "It is not IP.".to_owned(),
        _ => "It is neither TCP, UDP nor ICMP, or too short to say.".to_owned(),
    };
    format!("{why} It is the host's, and passes as it came.")
}

fn other_mac(subject: &Subject<'_>, packet: &Reading) -> String {
    let Some(mac) = packet.destination_mac else { return "It is for another host.".to_owned() };
    let told = digits::mac(mac);
    if mac[0] & 1 != 0 {
        return format!("It is for a group of hosts ({told}).");
    }
    let own: Vec<_> =
        subject.snapshot.own_macs.iter().flatten().map(|&own| digits::mac(own)).take(MAX_MACS).collect();
    format!(
        "It is for {told}, which is none of this host's MAC addresses ({}): see `destination_mac`.",
        own.join(", ")
    )
}

/// That no service lives there, and which ones live next to it.
fn no_service(subject: &Subject<'_>, ends: Option<Ends>) -> String {
    let Some(Ends { destination, protocol: number, ports, .. }) = ends else {
        return "It is for no service.".to_owned();
    };
    let there = match ports {
        Some((_, port)) => SocketAddr::new(destination, port).to_string(),
        None => destination.to_string(),
    };
    let neighbours = subject.snapshot.services.iter().map(|view| &view.service);
    let neighbours: Vec<_> = neighbours
        .filter(|service| service.vip.address == destination)
        .map(|service| format!("{} {} ({})", service.vip, service.protocol.as_str(), service.name))
        .collect();
    let known = match neighbours.split_at_checked(MAX_NEIGHBOURS) {
        _ if neighbours.is_empty() => format!("{destination} is no VIP"),
        Some((first, rest)) if !rest.is_empty() => {
            format!("there are {} and {} more", first.join(", "), rest.len())
        }
        _ => format!("there is {}", neighbours.join(", ")),
    };
    format!("No service is at {there} {}: {known}.", protocol(number))
}

const MAX_MACS: usize = 8;
const MAX_NEIGHBOURS: usize = 4;
