//! From a frame and the maps to a verdict.

use std::hash::Hasher as _;
use std::net::IpAddr;

use lb_common::abi::DropReason;
use siphasher::sip::SipHasher13;

use super::headers::{self, Headers, Kind, Ports};
use super::rewrite;
use super::state::{Forwarding, HashKey, Protocol, Service, SlotHash, State};
use super::track::{self, Arrival, Effects};

/// What becomes of a frame, with the frame that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the host's own stack, as it came.
    Pass,
    /// Back out of the interface it came in on.
    Transmit(Vec<u8>),
    /// Out of another interface.
    Redirect(Vec<u8>),
    Drop(DropReason),
}

/// What a forwarded packet is counted for, besides its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub service: u32,
    pub backend: u32,
    /// The frame's length as it came in.
    pub bytes: u64,
    pub new_flow: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// For forwarded packets only.
    pub counted: Option<Counted>,
    /// What the packet leaves behind, forwarded or not.
    pub effects: Effects,
}

#[must_use]
pub fn decide(state: &State, frame: &[u8]) -> Decision {
    let mut effects = Effects::default();
    let (verdict, counted) = match forward(state, frame, &mut effects) {
        Ok(Some((verdict, counted))) => (verdict, Some(counted)),
        Ok(None) => (Verdict::Pass, None),
        Err(reason) => (Verdict::Drop(reason), None),
    };
    Decision { verdict, counted, effects }
}

/// `Ok(None)`: the packet is not for a service.
fn forward(
    state: &State,
    frame: &[u8],
    effects: &mut Effects,
) -> Result<Option<(Verdict, Counted)>, DropReason> {
    let Some(headers) = headers::read(frame) else { return Ok(None) };
    let ports = match &headers.transport {
        Ok(ports) => ports,
        // Without ports nobody can say which service it is for; that one lives here is reason enough to drop it.
        Err(reason) if is_vip(state, &headers) => return Err(*reason),
        Err(_) => return Ok(None),
    };
    let Some(service) = find(state, &headers, ports) else { return Ok(None) };
    if ports.first_fragment {
        return Err(DropReason::Fragment);
    }

    let key = state.hash_key;
    let hash = slot_hash(key, service.hash, &headers, ports);
    let flow_hash = slot_hash(key, SlotHash::Flow, &headers, ports);
    let arrival = Arrival { kind: ports.kind, slot_hash: hash, flow_hash };
    let index = track::send(state, service, arrival, effects)?;
    if index == 0 {
        return Err(DropReason::NoBackend);
    }
    if index >= state.backend_limit {
        return Err(DropReason::BadMapEntry);
    }
    let backend = state.backends.get(&index).filter(|backend| backend.accepts_existing_flows);
    let backend = backend.ok_or(DropReason::BackendDisabled)?;
    let (mac, number) = backend.next_hop.ok_or(DropReason::NextHopUnresolved)?;
    if u32::from(number) >= state.egress_limit {
        return Err(DropReason::BadMapEntry);
    }
    let egress = state.egress.get(&number);
    let source_mac = egress.map(|egress| egress.source_mac).unwrap_or_default();
    let out = match service.forwarding {
        Forwarding::L2Dsr => rewrite::macs(frame, mac, source_mac),
        Forwarding::Ipip => {
            // A router discards an expired packet before it asks whether the packet would fit.
            if headers.ttl < 2 {
                return Err(DropReason::TtlExpired);
            }
            let outer_len = headers.ip_len + if headers.v4.is_some() { 20 } else { 40 };
            let mtu = egress.map(|egress| egress.mtu).unwrap_or_default();
            if outer_len > mtu as usize || outer_len > 0xffff {
                return Err(DropReason::PacketTooBig);
            }
            let egress = egress.expect("one that doesn't exist has no MTU");
            let tunnelled = rewrite::tunnel(frame, &headers, egress, backend.address, hash);
            rewrite::macs(&tunnelled, mac, source_mac)
        }
        Forwarding::Unknown(_) => return Err(DropReason::BadMapEntry),
    };

    let verdict = match egress {
        Some(egress) if egress.interface == state.ingress => Verdict::Transmit(out),
        Some(egress) if egress.has_device => Verdict::Redirect(out),
        _ => return Err(DropReason::NoEgress),
    };
    let counted = Counted {
        service: service.number,
        backend: index,
        bytes: frame.len() as u64,
        new_flow: ports.kind == Kind::Opens || ports.kind == Kind::Datagram && effects.inserted,
    };
    Ok(Some((verdict, counted)))
}

/// Whether a service of the packet's protocol, as far as that is known, lives on its destination.
fn is_vip(state: &State, headers: &Headers) -> bool {
    state.services.iter().any(|service| {
        service.address == headers.destination
            && headers.protocol.is_none_or(|protocol| protocol == service.protocol)
    })
}

/// The exact port wins over every port.
fn find<'a>(state: &'a State, headers: &Headers, ports: &Ports) -> Option<&'a Service> {
    let of_port = |port: Option<u16>| {
        state.services.iter().find(|service| {
            service.address == headers.destination
                && Some(service.protocol) == headers.protocol
                && service.port == port
        })
    };
    of_port(Some(ports.destination)).or_else(|| of_port(None))
}

/// SipHash-1-3 over the packet's bytes, as they are on the wire.
fn slot_hash(key: HashKey, covers: SlotHash, headers: &Headers, ports: &Ports) -> u64 {
    let mut input = octets(headers.source);
    if covers == SlotHash::Flow {
        input.extend(octets(headers.destination));
        input.extend(ports.source.to_be_bytes());
        input.extend(ports.destination.to_be_bytes());
        input.push(headers.protocol.map(Protocol::number).unwrap_or_default());
    }
    let mut hasher = SipHasher13::new_with_keys(key.k0, key.k1);
    hasher.write(&input);
    hasher.finish()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
