//! `dnat` and `nat`, from the backend to the client: docs/packet-path.md, "Replies through NAT".

use lb_common::abi::DropReason;

use super::effects::Effects;
use super::fragment::{self, NoteFate};
use super::headers::{Headers, Ports};
use super::nat::{NatChange, NatReply, NatReplyKey, Seen};
use super::rewrite::{self, Endpoints};
use super::work::{Counted, Flow5, Refusal, Sent, Verdict, Work};

impl NatReplyKey {
    /// Of a packet of the backend.
    pub(super) const fn of(flow: &Flow5) -> Self {
        Self {
            backend: flow.source,
            backend_port: flow.source_port,
            our_address: flow.destination,
            our_port: flow.destination_port,
            protocol: flow.protocol,
        }
    }
}

/// The way to a client: interface, and the frame's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WayBack {
    pub interface: u32,
    pub next_hop: [u8; 6],
    pub source_mac: [u8; 6],
}

impl WayBack {
    pub(super) const fn of(reply: &NatReply) -> Self {
        Self { interface: reply.interface, next_hop: reply.next_hop, source_mac: reply.source_mac }
    }
}

/// A packet that is for no service.
pub(super) fn handle(
    work: &Work<'_>,
    headers: &Headers,
    ports: &Ports,
    flow: &Flow5,
    effects: &mut Effects,
) -> Result<Option<Sent>, Refusal> {
    let key = NatReplyKey::of(flow);
    let Some(reply) = find(work, &key) else { return Ok(None) };
    if headers.authenticated {
        return Err(DropReason::ExtensionHeader.into());
    }
    if headers.ttl < 2 {
        return Err(Refusal::Expired);
    }
    if !work.state.accepts(reply.service, reply.backend, false) {
        return Err(DropReason::BackendDisabled.into());
    }
    let seen = Seen {
        time: work.state.now as u32,
        confirmed: true,
        fin: reply.seen.fin || ports.fin,
        rst: reply.seen.rst || ports.rst,
    };
    let endpoints = Endpoints {
        source: reply.vip,
        destination: reply.client,
        ports: Some((reply.vip_port, reply.client_port)),
        identification: None,
    };
    let (service, backend, way) = (reply.service, reply.backend, WayBack::of(&reply));
    effects.nat.push(NatChange::Reply(key, Some(NatReply { seen, ..reply })));
    let sent = send_back(work, headers, (service, backend), &endpoints, way)?;
    effects.met.push("reply");
    let endpoints = endpoints.for_later();
    let missing = fragment::missing_after_first(headers);
    let fate = NoteFate::Replied { service, backend, endpoints, way, missing };
    fragment::note(work, headers, fate, effects);
    Ok(Some(sent))
}

/// The entry, which nobody looks for while no service translates.
pub(super) fn find(work: &Work<'_>, key: &NatReplyKey) -> Option<NatReply> {
    let translates = work.state.services.iter().any(|service| service.forwarding.translates());
    work.state.nat.replies.get(key).filter(|_| translates).copied()
}

/// Sends a packet of a backend to the client.
pub(super) fn send_back(
    work: &Work<'_>,
    headers: &Headers,
    (service, backend): (u32, u32),
    endpoints: &Endpoints,
    way: WayBack,
) -> Result<Sent, Refusal> {
    let mut out = leaves(work, headers, (service, backend), way)?;
    rewrite::readdress_frame(&mut out, headers, endpoints);
    Ok(sent(work, out, (service, backend), way))
}

/// The packet with one hop less, if it may leave.
pub(super) fn leaves(
    work: &Work<'_>,
    headers: &Headers,
    (service, backend): (u32, u32),
    way: WayBack,
) -> Result<Vec<u8>, Refusal> {
    if headers.ttl < 2 {
        return Err(Refusal::Expired);
    }
    if !work.state.accepts(service, backend, false) {
        return Err(DropReason::BackendDisabled.into());
    }
    let mtu = work.state.interfaces.get(&way.interface).copied().ok_or(DropReason::NoEgress)?;
    let most = mtu.min(0xffff);
    if headers.ip_len > most as usize {
        return Err(Refusal::TooBig(most));
    }
    let mut out = work.frame.bytes.to_vec();
    rewrite::decrement_ttl(&mut out[headers.l3..]);
    Ok(out)
}

pub(super) fn sent(work: &Work<'_>, out: Vec<u8>, (service, backend): (u32, u32), way: WayBack) -> Sent {
    let out = rewrite::macs(&out, way.next_hop, way.source_mac);
    let bytes = work.frame.bytes.len() as u64;
    Sent {
        verdict: if way.interface == work.state.ingress {
            Verdict::Transmit(out)
        } else {
            Verdict::Redirect(out)
        },
        counted: Some(Counted { service, backend, bytes, new_flow: false, reply: true }),
    }
}
