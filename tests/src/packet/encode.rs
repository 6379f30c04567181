//! From the model's state to the map ABI.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_common::abi::{
    self, BackendValue, DropReason, ENTRY_ADMISSION, ENTRY_OCCUPIED, EgressValue, FORWARDING_DNAT,
    FORWARDING_GUE, FORWARDING_IPIP, FORWARDING_L2_DSR, FORWARDING_NAT, HASH_FLOW, HASH_SOURCE, NextHop,
    PROTOCOL_ANY, SELECT_HASH, SELECT_LEAST_CONNECTIONS, SELECT_ROUND_ROBIN, SERVICE_IN_USE,
    STATE_EXISTING_FLOWS, STATE_IN_USE, STATE_IPV6, STATE_NEW_FLOWS, ServiceEntry, ServiceKey, ServiceRecord,
    SlotStamp, SlotStampPair, TRACK_ALWAYS, TRACK_AUTO, TRACK_NEVER,
};
use zerocopy::IntoBytes as _;

use crate::model::{
    self, Backend, Egress, Forwarding, Protocol, Selection, Service, Slot, SlotHash, Stamps, Tracking,
};

/// Entries of all services, and the markers by which the data plane knows its VIPs: each address with each protocol
/// that lives there, and each address alone.
pub(super) fn entries(services: &[Service]) -> Vec<ServiceEntry> {
    let vips = services.iter().map(|service| (mapped(service.address), service.protocol.number()));
    let markers: BTreeSet<_> =
        vips.flat_map(|(address, protocol)| [(address, protocol), (address, PROTOCOL_ANY)]).collect();
    let markers = markers.into_iter().map(|(address, protocol)| ServiceEntry {
        key: ServiceKey::marker(address, protocol),
        flags: ENTRY_OCCUPIED,
        ..ServiceEntry::default()
    });
    services.iter().map(entry).chain(markers).collect()
}

fn entry(service: &Service) -> ServiceEntry {
    let port = service.port.unwrap_or(0);
    let limits_sources = service.source_list != 0 || service.new_flow_limit != 0;
    ServiceEntry {
        key: ServiceKey::service(mapped(service.address), port, service.protocol.number()),
        service: service.number,
        slots_base: service.base,
        slot_shift: 64 - service.slots.len().trailing_zeros() as u8,
        forwarding: forwarding(service.forwarding),
        hash_key: hash_key(service),
        flags: ENTRY_OCCUPIED | if limits_sources { ENTRY_ADMISSION } else { 0 },
        tracking: tracking(service),
        selection: match service.selection {
            Selection::Hash => SELECT_HASH,
            Selection::RoundRobin => SELECT_ROUND_ROBIN,
            Selection::LeastConnections => SELECT_LEAST_CONNECTIONS,
        },
        no_backend: if service.rejects { DropReason::Rejected } else { DropReason::NoBackend } as u8,
        rotation: service.rotation,
        source_list: service.source_list,
        new_flow_limit: service.new_flow_limit,
        flow_idle_timeout: service.idle_timeout,
        ..ServiceEntry::default()
    }
}

fn hash_key(service: &Service) -> u8 {
    match service.hash {
        SlotHash::Source => HASH_SOURCE,
        SlotHash::Flow => HASH_FLOW,
    }
}

/// What others than a client's packets are asked about: how long the flows of another service may be idle, and how a
/// health check of its backends gets to them.
pub(super) fn record(service: &Service) -> ServiceRecord {
    ServiceRecord {
        key: ServiceKey::service(
            mapped(service.address),
            service.port.unwrap_or(0),
            service.protocol.number(),
        ),
        slots_base: service.base,
        slots_log2: service.slots.len().trailing_zeros() as u8,
        forwarding: forwarding(service.forwarding),
        hash_key: hash_key(service),
        flags: SERVICE_IN_USE,
        flow_idle_timeout: service.idle_timeout,
        source_list: service.source_list,
        ..ServiceRecord::default()
    }
}

pub(super) fn forwarding(forwarding: Forwarding) -> u8 {
    match forwarding {
        Forwarding::L2Dsr => FORWARDING_L2_DSR,
        Forwarding::Ipip => FORWARDING_IPIP,
        Forwarding::Gue => FORWARDING_GUE,
        Forwarding::Dnat => FORWARDING_DNAT,
        Forwarding::Nat => FORWARDING_NAT,
        Forwarding::Unknown(number) => number,
    }
}

/// The data plane is told what the setting comes to: `auto` is "always" where flows can't do without entries.
fn tracking(service: &Service) -> u8 {
    match service.tracking {
        Tracking::Never => TRACK_NEVER,
        Tracking::Always => TRACK_ALWAYS,
        Tracking::Auto if service.protocol == Protocol::Tcp && service.selection == Selection::Hash => {
            TRACK_AUTO
        }
        Tracking::Auto => TRACK_ALWAYS,
    }
}

pub(super) fn slot(slot: &Slot) -> abi::Slot {
    if slot.tracked {
        abi::Slot::tracked_since(slot.opened, slot.current, slot.previous)
    } else {
        abi::Slot::steady(slot.current)
    }
}

/// Stamps of an even slot and the one behind it.
pub(super) fn stamps(pair: [Stamps; 2]) -> u64 {
    let stamps = pair.map(|Stamps { exception, failed }| SlotStamp { exception, failed });
    let mut word = [0; 8];
    word.copy_from_slice(SlotStampPair { stamps }.as_bytes());
    u64::from_ne_bytes(word)
}

pub(super) fn egress(egress: &Egress) -> EgressValue {
    EgressValue {
        source_mac: egress.source_mac,
        ifindex: egress.interface,
        mtu: egress.mtu,
        source: mapped(egress.source),
        ..EgressValue::default()
    }
}

pub(super) fn backend(backend: &Backend) -> BackendValue {
    BackendValue {
        next_hop: next_hop(backend).0,
        address: mapped(backend.address),
        port: backend.port.to_be_bytes(),
        state: state_bits(backend),
        service: backend.service,
        weight: backend.weight,
        ..BackendValue::default()
    }
}

pub(super) fn next_hop(backend: &Backend) -> NextHop {
    backend.next_hop.map_or(NextHop::UNRESOLVED, |(mac, egress)| NextHop::new(mac, egress))
}

pub(super) fn state_bits(backend: &Backend) -> u32 {
    let new = if backend.accepts_new_flows { STATE_NEW_FLOWS } else { 0 };
    let existing = if backend.accepts_existing_flows { STATE_EXISTING_FLOWS } else { 0 };
    let ipv6 = if backend.address.is_ipv6() { STATE_IPV6 } else { 0 };
    STATE_IN_USE | new | existing | ipv6
}

pub(super) fn mapped(address: IpAddr) -> [u8; 16] {
    model::mapped(address).octets()
}
