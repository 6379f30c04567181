//! From a frame and the maps to a verdict.

use lb_common::abi::DropReason;

use super::effects::Effects;
use super::errors;
use super::forward;
use super::fragment;
use super::headers::{self, Content, Frame, Headers, Ports};
use super::icmp;
use super::nat::NatFlowKey;
use super::reply;
use super::service::Protocol;
use super::state::State;
use super::work::{Chosen, Counted, Flow5, Refusal, Sent, Verdict, Work};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// For forwarded packets only.
    pub counted: Option<Counted>,
    /// What the packet leaves behind, forwarded or not.
    pub effects: Effects,
}

/// Of a frame in one buffer, choosing freely where that is allowed.
#[must_use]
pub fn decide(state: &State, frame: &[u8]) -> Decision {
    decide_as(state, Frame::whole(frame), &|_| Chosen::Unknown)
}

/// The same with the choices that the data plane made, which have to be allowed ones.
#[must_use]
pub fn decide_as(state: &State, frame: Frame<'_>, chosen: &dyn Fn(&NatFlowKey) -> Chosen) -> Decision {
    let work = Work { state, frame, chosen };
    let mut effects = Effects::default();
    let read = if is_for_us(state, frame) { headers::read(frame) } else { None };
    let Some(headers) = read else {
        return Decision { verdict: Verdict::Pass, counted: None, effects };
    };
    let (verdict, counted) = match go(&work, &headers, &mut effects) {
        Ok(Some(Sent { verdict, counted })) => (verdict, counted),
        Ok(None) => (Verdict::Pass, None),
        Err(refusal) => (errors::answer(&work, &headers, refusal, &mut effects), None),
    };
    fragment::settle(&work, &headers, &verdict, &mut effects);
    Decision { verdict, counted, effects }
}

fn is_for_us(state: &State, frame: Frame<'_>) -> bool {
    let destination = frame.bytes.first_chunk();
    state.own_macs.as_ref().is_none_or(|own| destination.is_some_and(|mac| own.contains(mac)))
}

/// `Ok(None)`: the packet is the host's.
fn go(work: &Work<'_>, headers: &Headers, effects: &mut Effects) -> Result<Option<Sent>, Refusal> {
    match &headers.content {
        // Without ports nobody can say which service it is for; that one lives here is reason enough to drop it.
        Content::Unreadable(reason) if work.is_vip(headers.destination, headers.protocol) => {
            Err((*reason).into())
        }
        Content::Unreadable(_) => Ok(None),
        Content::LaterFragment => fragment::follow(work, headers, effects),
        Content::Icmp => icmp::handle(work, headers, effects),
        Content::Ports(ports) => {
            let protocol = headers.protocol.ok_or(DropReason::BadIpHeader)?;
            let sent = with_ports(work, headers, ports, protocol, effects)?;
            if sent.is_some() && headers.v4.is_none() && headers.l4 > headers.l3 + 40 {
                effects.met.push("extension headers");
            }
            if sent.is_some() && headers.v4.is_some() && headers.l4 > headers.l3 + 20 {
                effects.met.push("options");
            }
            Ok(sent)
        }
    }
}

fn with_ports(
    work: &Work<'_>,
    headers: &Headers,
    ports: &Ports,
    protocol: Protocol,
    effects: &mut Effects,
) -> Result<Option<Sent>, Refusal> {
    let flow = Flow5 {
        source: headers.source,
        destination: headers.destination,
        source_port: ports.source,
        destination_port: ports.destination,
        protocol,
    };
    match work.find(flow.destination, flow.destination_port, protocol) {
        Some(service) => {
            let sent = forward::deliver(work, headers, ports, &flow, service, effects);
            sent.map(Some).map_err(|refusal| refusal.by(service))
        }
        None => reply::handle(work, headers, ports, &flow, effects),
    }
}
