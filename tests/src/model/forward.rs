//! From a service to the frame that its backend gets: docs/packet-path.md, section 3.

use lb_common::abi::DropReason;

use super::admission;
use super::effects::Effects;
use super::fragment::{self, NoteFate};
use super::headers::{Headers, Kind, Ports};
use super::rewrite::{self, Endpoints};
use super::service::{Backend, Egress, Forwarding, Service, SlotHash};
use super::state::State;
use super::track::{self, Arrival};
use super::translate;
use super::work::{Counted, Flow5, Refusal, Sent, Verdict, Work};

/// Sends a packet of a service to a backend.
pub(super) fn deliver(
    work: &Work<'_>,
    headers: &Headers,
    ports: &Ports,
    flow: &Flow5,
    service: &Service,
    effects: &mut Effects,
) -> Result<Sent, Refusal> {
    let flow_hash = work.hash(SlotHash::Flow, flow);
    admission::admit(work, service, flow, flow_hash, ports.kind, effects)?;
    let arrival = Arrival { kind: ports.kind, slot_hash: work.hash(service.hash, flow), flow_hash };
    if service.forwarding.translates() {
        return translate::forward(work, headers, ports, flow, service, arrival, effects);
    }
    let index = track::send(work.state, service, arrival, effects)?;
    let road = Road::to(work.state, index)?;
    let entropy = entropy(service, arrival);
    let carried = Carried {
        forwarding: service.forwarding,
        entropy,
        endpoints: None,
        new_flow: ports.kind == Kind::Opens || ports.kind == Kind::Datagram && effects.inserted,
        service: service.number,
    };
    let sent = carry(work, headers, &road, &carried)?;
    effects.met.push(name(headers, &road, service.forwarding));
    let fate = NoteFate::Forwarded {
        forwarding: service.forwarding,
        service: service.number,
        backend: index,
        hash: entropy,
        endpoints: None,
    };
    fragment::note(work, headers, fate, effects);
    Ok(sent)
}

/// Of a rule.
pub(super) fn name(headers: &Headers, road: &Road, forwarding: Forwarding) -> &'static str {
    let is_mixed = headers.source.is_ipv4() != road.backend.address.is_ipv4();
    match forwarding {
        Forwarding::L2Dsr => "l2-dsr",
        Forwarding::Ipip if is_mixed => "ipip, mixed families",
        Forwarding::Ipip => "ipip",
        Forwarding::Gue if is_mixed => "gue, mixed families",
        Forwarding::Gue => "gue",
        Forwarding::Dnat => "dnat",
        Forwarding::Nat => "nat",
        Forwarding::Unknown(_) => "unknown forwarding",
    }
}

/// What makes outer headers of different flows different.
pub(super) fn entropy(service: &Service, arrival: Arrival) -> u64 {
    if service.forwarding == Forwarding::Gue { arrival.flow_hash } else { arrival.slot_hash }
}

/// The way to a backend that takes existing flows.
pub(super) struct Road {
    pub(super) index: u32,
    pub(super) backend: Backend,
    pub(super) mac: [u8; 6],
    pub(super) egress: Egress,
}

impl Road {
    pub(super) fn to(state: &State, index: u32) -> Result<Self, DropReason> {
        if index == 0 {
            return Err(DropReason::NoBackend);
        }
        if index >= state.backend_limit {
            return Err(DropReason::BadMapEntry);
        }
        match state.backends.get(&index) {
            Some(backend) if backend.accepts_existing_flows => Self::to_taker(state, index, *backend),
            _ => Err(DropReason::BackendDisabled),
        }
    }

    /// To one that is known to take the packet.
    pub(super) fn to_taker(state: &State, index: u32, backend: Backend) -> Result<Self, DropReason> {
        let (mac, number) = backend.next_hop.ok_or(DropReason::NextHopUnresolved)?;
        if u32::from(number) >= state.egress_limit {
            return Err(DropReason::BadMapEntry);
        }
        let egress = state.egress.get(&number).copied().unwrap_or(Egress::NEVER_WRITTEN);
        Ok(Self { index, backend, mac, egress })
    }
}

/// How a packet goes to its backend.
pub(super) struct Carried {
    pub(super) forwarding: Forwarding,
    pub(super) entropy: u64,
    /// In `dnat` and `nat`.
    pub(super) endpoints: Option<Endpoints>,
    pub(super) new_flow: bool,
    pub(super) service: u32,
}

/// TTL, size, the new frame, and the way out.
pub(super) fn carry(
    work: &Work<'_>,
    headers: &Headers,
    road: &Road,
    carried: &Carried,
) -> Result<Sent, Refusal> {
    let frame = work.frame.bytes;
    let overhead = match carried.forwarding {
        Forwarding::L2Dsr | Forwarding::Dnat | Forwarding::Nat => 0,
        Forwarding::Ipip => rewrite::ip_header_len(road.backend.address),
        Forwarding::Gue => rewrite::ip_header_len(road.backend.address) + 8,
        Forwarding::Unknown(_) => return Err(DropReason::BadMapEntry.into()),
    };
    // A router discards an expired packet before it asks whether the packet would fit.
    if carried.forwarding != Forwarding::L2Dsr && headers.ttl < 2 {
        return Err(Refusal::Expired);
    }
    let most = road.egress.mtu.min(0xffff);
    if headers.ip_len + overhead > most as usize {
        return Err(Refusal::TooBig(most.saturating_sub(overhead as u32)));
    }
    let out = match carried.forwarding {
        Forwarding::L2Dsr => frame.to_vec(),
        _ if carried.forwarding.tunnels() => rewrite::tunnel(frame, headers, road, carried),
        _ => {
            let mut out = frame.to_vec();
            rewrite::decrement_ttl(&mut out[headers.l3..]);
            if let Some(endpoints) = &carried.endpoints {
                rewrite::readdress_frame(&mut out, headers, endpoints);
            }
            out
        }
    };
    let out = rewrite::macs(&out, road.mac, road.egress.source_mac);
    let counted = Counted {
        service: carried.service,
        backend: road.index,
        bytes: frame.len() as u64,
        new_flow: carried.new_flow,
        reply: false,
    };
    Ok(Sent { verdict: leave(work.state, &road.egress, out)?, counted: Some(counted) })
}

fn leave(state: &State, egress: &Egress, out: Vec<u8>) -> Result<Verdict, DropReason> {
    if egress.interface == state.ingress {
        Ok(Verdict::Transmit(out))
    } else if egress.has_device {
        Ok(Verdict::Redirect(out))
    } else {
        Err(DropReason::NoEgress)
    }
}
