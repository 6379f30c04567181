//! ICMP that comes: docs/packet-path.md, section 4.

use lb_common::abi::DropReason;

use super::effects::{Effects, Event};
use super::errors::{self, Message};
use super::forward::{self, Carried, Road};
use super::headers::{Headers, Kind};
use super::nat::{NatFlowKey, NatReplyKey};
use super::quote::Quote;
use super::reply::{self, WayBack};
use super::rewrite::{self, Endpoints};
use super::service::{Service, SlotHash};
use super::sums::mend_at;
use super::track::{self, Arrival};
use super::work::{Counted, Flow5, Refusal, Sent, Verdict, Work};

/// `Ok(None)`: the host's.
pub(super) fn handle(
    work: &Work<'_>,
    headers: &Headers,
    effects: &mut Effects,
) -> Result<Option<Sent>, Refusal> {
    let end = (headers.l3 + headers.ip_len).min(work.frame.first);
    let Some(&[kind, code, ..]) = work.frame.head().get(headers.l4..end).filter(|icmp| icmp.len() >= 8)
    else {
        return Ok(None);
    };
    let is_v4 = headers.v4.is_some();
    if (kind, code) == if is_v4 { (8, 0) } else { (128, 0) } {
        let answers = work.is_vip(headers.destination, None) && errors::can_be_told(headers.source);
        return Ok(answers.then(|| echo(work, headers, effects)));
    }
    if !is_error(is_v4, kind) {
        return Ok(None);
    }
    let quote = Quote::read(work.frame.head(), headers.l4 + 8, end);
    let Some(quote) = quote.filter(|quote| quote.source.is_ipv4() == is_v4) else { return Ok(None) };
    let relay = Relay { work, headers, quote };
    let sent = match relay.service() {
        Some((service, flow)) => relay.to_backend(service, &flow, effects)?,
        None => match relay.to_nat_client(effects)? {
            Some(sent) => Some(sent),
            None => relay.about_a_tunnel(kind, code, effects),
        },
    };
    if sent.is_some() {
        effects.events.push(Event::ErrorRelayed);
    }
    Ok(sent)
}

pub(super) fn is_error(is_v4: bool, kind: u8) -> bool {
    if is_v4 { [3, 11, 12].contains(&kind) } else { (1..=4).contains(&kind) }
}

fn echo(work: &Work<'_>, headers: &Headers, effects: &mut Effects) -> Sent {
    let frame = work.frame.bytes;
    let mut out = rewrite::macs(frame, array(&frame[6..12]), array(&frame[..6]));
    let packet = &mut out[headers.l3..];
    let l4 = headers.l4 - headers.l3;
    if headers.v4.is_some() {
        for at in 12..16 {
            packet.swap(at, at + 4);
        }
        let old = [packet[8], packet[9]];
        packet[8] = 64;
        mend_at(packet, 10, &old, &[64, old[1]]);
        packet[l4] = 0;
        mend_at(packet, l4 + 2, &[8, 0], &[0, 0]);
    } else {
        for at in 8..24 {
            packet.swap(at, at + 16);
        }
        packet[7] = 64;
        packet[l4] = 129;
        mend_at(packet, l4 + 2, &[128, 0], &[129, 0]);
    }
    effects.events.push(Event::EchoReply);
    Sent { verdict: Verdict::Transmit(out), counted: None }
}

fn array(bytes: &[u8]) -> [u8; 6] {
    bytes.try_into().expect("six bytes")
}

/// An error that may be handed on.
struct Relay<'a> {
    work: &'a Work<'a>,
    headers: &'a Headers,
    quote: Quote,
}

impl<'a> Relay<'a> {
    /// The service whose packet it is about, and that packet's flow as the client has it.
    fn service(&self) -> Option<(&'a Service, Flow5)> {
        let quoted = self.quote.flow(self.work.frame.head())?;
        if quoted.source != self.headers.destination {
            return None;
        }
        let service = self.work.find(quoted.source, quoted.source_port, quoted.protocol)?;
        Some((service, quoted.reversed()))
    }

    /// About a packet from a service of the VIP to a client.
    fn to_backend(
        &self,
        service: &Service,
        flow: &Flow5,
        effects: &mut Effects,
    ) -> Result<Option<Sent>, Refusal> {
        if service.forwarding.translates() {
            return self.to_nat_backend(service, flow, effects);
        }
        let work = self.work;
        let arrival = Arrival {
            kind: Kind::Observes,
            slot_hash: work.hash(service.hash, flow),
            flow_hash: work.hash(SlotHash::Flow, flow),
        };
        let index = track::send(work.state, service, arrival, effects)?;
        let road = Road::to(work.state, index).map_err(|reason| Refusal::from(reason).by(service))?;
        let carried = Carried {
            forwarding: service.forwarding,
            entropy: forward::entropy(service, arrival),
            endpoints: None,
            new_flow: false,
            service: service.number,
        };
        let sent = forward::carry(work, self.headers, &road, &carried)?;
        effects.met.push("error to a backend");
        Ok(Some(sent))
    }

    fn to_nat_backend(
        &self,
        service: &Service,
        flow: &Flow5,
        effects: &mut Effects,
    ) -> Result<Option<Sent>, Refusal> {
        let work = self.work;
        let key = NatFlowKey::of(flow, service.number);
        let Some(known) = work.state.nat.flows.get(&key) else { return Ok(None) };
        if self.headers.authenticated {
            return Err(DropReason::ExtensionHeader.into());
        }
        if !work.state.accepts(service.number, known.backend, false) {
            return Err(DropReason::BackendDisabled.into());
        }
        let road = Road::to(work.state, known.backend)?;
        let quoted = Endpoints {
            source: road.backend.address,
            destination: known.our_address,
            ports: Some((known.backend_port, known.our_port)),
            identification: None,
        };
        let around = Endpoints {
            source: self.headers.source,
            destination: road.backend.address,
            ports: None,
            identification: None,
        };
        let carried = Carried {
            forwarding: service.forwarding,
            entropy: 0,
            endpoints: None,
            new_flow: false,
            service: service.number,
        };
        let mut sent = forward::carry(work, self.headers, &road, &carried)?;
        if let Verdict::Transmit(out) | Verdict::Redirect(out) = &mut sent.verdict {
            self.readdress(out, &quoted, &around);
        }
        effects.met.push("error to a backend through NAT");
        Ok(Some(sent))
    }

    /// About a packet that NAT sent to a backend.
    fn to_nat_client(&self, effects: &mut Effects) -> Result<Option<Sent>, Refusal> {
        let work = self.work;
        let Some(quoted) = self.quote.flow(work.frame.head()) else { return Ok(None) };
        if quoted.source != self.headers.destination {
            return Ok(None);
        }
        let Some(entry) = reply::find(work, &NatReplyKey::of(&quoted.reversed())) else { return Ok(None) };
        if self.headers.authenticated {
            return Err(DropReason::ExtensionHeader.into());
        }
        let inside = Endpoints {
            source: entry.client,
            destination: entry.vip,
            ports: Some((entry.client_port, entry.vip_port)),
            identification: None,
        };
        let from_backend = self.headers.source == quoted.destination;
        let around = Endpoints {
            source: if from_backend { entry.vip } else { self.headers.source },
            destination: entry.client,
            ports: None,
            identification: None,
        };
        let (whom, way) = ((entry.service, entry.backend), WayBack::of(&entry));
        let mut out = reply::leaves(work, self.headers, whom, way)?;
        self.readdress(&mut out, &inside, &around);
        effects.met.push("error to a client through NAT");
        Ok(Some(reply::sent(work, out, whom, way)))
    }

    /// About a packet that left in a tunnel.
    fn about_a_tunnel(&self, kind: u8, code: u8, effects: &mut Effects) -> Option<Sent> {
        let head = self.work.frame.head();
        let (inner, overhead) = self.quote.inner(head)?;
        if self.quote.source != self.headers.destination {
            return None;
        }
        let flow = inner.flow(head)?;
        let service = self.work.find(flow.destination, flow.destination_port, flow.protocol)?;
        if !service.forwarding.tunnels() || !errors::can_be_told(flow.source) {
            return None;
        }
        if !errors::may_make_one(self.work, effects) {
            return None;
        }
        let rest = &head[self.headers.l4 + 4..self.headers.l4 + 8];
        let mtu = match (self.headers.v4.is_some(), kind, code) {
            (true, 3, 4) => Some(u32::from_be_bytes([0, 0, rest[2], rest[3]])),
            (false, 2, _) => Some(u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]])),
            _ => None,
        };
        let message = match mtu {
            Some(mtu) => Message::TooBig(mtu.saturating_sub(overhead as u32)),
            None => Message::Unreachable,
        };
        effects.met.push(if mtu.is_some() { "too big from a tunnel" } else { "unreachable from a tunnel" });
        let quote = &head[inner.start..inner.end];
        let out = errors::make(self.work, self.headers, flow.destination, flow.source, message, quote);
        Some(Sent { verdict: Verdict::Transmit(out), counted: None::<Counted> })
    }

    /// Gives the quoted packet and the one around it new addresses.
    fn readdress(&self, out: &mut [u8], quoted: &Endpoints, around: &Endpoints) {
        let (start, l4) = (self.quote.start, self.headers.l4);
        let old = self.work.frame.bytes[start..self.quote.end].to_vec();
        let protocol = super::service::Protocol::from_number(self.quote.protocol);
        let inner_l4 = protocol.map(|protocol| (self.quote.l4 - start, protocol));
        rewrite::readdress(&mut out[start..self.quote.end], inner_l4, quoted);
        let new = out[start..self.quote.end].to_vec();
        mend_at(out, l4 + 2, &old, &new);
        if self.headers.v4.is_none() {
            // It covers a pseudo header.
            let addresses = self.headers.l3 + 8..self.headers.l3 + 40;
            let old = out[addresses.clone()].to_vec();
            rewrite::readdress(&mut out[self.headers.l3..], None, around);
            let new = out[addresses].to_vec();
            mend_at(out, l4 + 2, &old, &new);
        } else {
            rewrite::readdress(&mut out[self.headers.l3..], None, around);
        }
    }
}
