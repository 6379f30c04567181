//! `dnat` and `nat`, from the client to the backend: docs/packet-path.md, "NAT".

use lb_common::abi::DropReason;

use super::allocate::{self, Wanted};
use super::effects::{Effects, Event};
use super::forward::{self, Carried, Road};
use super::fragment::{self, NoteFate};
use super::headers::{Headers, Kind, Ports};
use super::nat::{self, NatChange, NatFlow, NatFlowKey, NatReply, NatReplyKey, Seen};
use super::rewrite::Endpoints;
use super::service::{Forwarding, Selection, Service};
use super::track::{self, Arrival};
use super::work::{Flow5, Refusal, Sent, Work};

impl NatFlowKey {
    pub(super) const fn of(flow: &Flow5, service: u32) -> Self {
        Self { client: flow.source, client_port: flow.source_port, vip_port: flow.destination_port, service }
    }
}

pub(super) fn forward(
    work: &Work<'_>,
    headers: &Headers,
    ports: &Ports,
    flow: &Flow5,
    service: &Service,
    arrival: Arrival,
    effects: &mut Effects,
) -> Result<Sent, Refusal> {
    // Its checksum covers what is about to change.
    if headers.authenticated {
        return Err(DropReason::ExtensionHeader.into());
    }
    if headers.ttl < 2 {
        return Err(Refusal::Expired);
    }
    let step = Step { work, flow, service, key: NatFlowKey::of(flow, service.number) };
    let known = step.known(ports, effects)?;
    let (nat, road, is_new) = match known {
        Some(known) => {
            let &backend = work.state.backends.get(&known.backend).ok_or(DropReason::BackendDisabled)?;
            (known, Road::to_taker(work.state, known.backend, backend)?, false)
        }
        None => {
            let (nat, road) = step.open(ports, arrival, effects)?;
            (nat, road, true)
        }
    };
    let identification = headers.fragment.filter(|_| service.forwarding == Forwarding::Nat).map(|fragment| {
        let old = fragment.identification;
        work.new_identification(flow.source, flow.destination, old, flow.protocol)
    });
    let endpoints = Endpoints {
        source: nat.our_address,
        destination: road.backend.address,
        ports: Some((nat.our_port, nat.backend_port)),
        identification,
    };
    let carried = Carried {
        forwarding: service.forwarding,
        entropy: 0,
        endpoints: Some(endpoints),
        new_flow: ports.kind == Kind::Opens || is_new,
        service: service.number,
    };
    let sent = forward::carry(work, headers, &road, &carried)?;
    effects.met.push(forward::name(headers, &road, service.forwarding));
    let fate = NoteFate::Forwarded {
        forwarding: service.forwarding,
        service: service.number,
        backend: road.index,
        hash: 0,
        endpoints: Some(endpoints.for_later()),
    };
    fragment::note(work, headers, fate, effects);
    Ok(sent)
}

struct Step<'a> {
    work: &'a Work<'a>,
    flow: &'a Flow5,
    service: &'a Service,
    key: NatFlowKey,
}

impl Step<'_> {
    /// The flow's entry, refreshed, if it has one that serves.
    fn known(&self, ports: &Ports, effects: &mut Effects) -> Result<Option<NatFlow>, Refusal> {
        let tables = &self.work.state.nat;
        let Some(&known) = tables.flows.get(&self.key) else { return Ok(None) };
        let reply_key = self.reply_key(&known);
        // It may be another flow's.
        let reply = tables.replies.get(&reply_key).filter(|reply| reply.flow_key() == self.key);
        let opens = ports.kind == Kind::Opens;
        if !self.work.state.accepts(self.service.number, known.backend, opens) {
            if !opens && ports.kind != Kind::Datagram {
                return Err(DropReason::BackendDisabled.into());
            }
            effects.met.push("flow taken from its backend");
            effects.nat.push(NatChange::Flow(self.key, None));
            if reply.is_some() {
                effects.nat.push(NatChange::Reply(reply_key, None));
            }
            return Ok(None);
        }
        let now = self.work.state.now;
        let anew = opens && reply.is_some_and(|reply| nat::is_closed(&known, reply));
        let seen = if anew {
            Seen::at(now)
        } else {
            Seen {
                time: now as u32,
                confirmed: known.seen.confirmed || !opens,
                fin: known.seen.fin || ports.fin,
                rst: known.seen.rst || ports.rst,
            }
        };
        let came_by = self.came_by();
        effects.met.push(match anew {
            true => "flow anew",
            false if came_by != known.came_by => "flow by another way",
            false => "flow refreshed",
        });
        let refreshed = NatFlow { seen, came_by, ..known };
        effects.nat.push(NatChange::Flow(self.key, Some(refreshed)));
        if let Some(&reply) = reply
            && (anew || came_by != known.came_by)
        {
            let seen = if anew { Seen::at(now) } else { reply.seen };
            let reply = if came_by == known.came_by { reply } else { self.way_back(reply) };
            effects.nat.push(NatChange::Reply(reply_key, Some(NatReply { seen, ..reply })));
        }
        Ok(Some(refreshed))
    }

    /// A flow that there was none of.
    fn open(
        &self,
        ports: &Ports,
        arrival: Arrival,
        effects: &mut Effects,
    ) -> Result<(NatFlow, Road), Refusal> {
        if !matches!(ports.kind, Kind::Opens | Kind::Datagram) {
            return Err(DropReason::NoNatFlow.into());
        }
        let index = track::pick(self.work.state, self.service, arrival, effects)?;
        let road = Road::to(self.work.state, index)?;
        let backend_port =
            if road.backend.port == 0 { self.flow.destination_port } else { road.backend.port };
        let wanted =
            Wanted { key: self.key, flow: self.flow, service: self.service, road: &road, backend_port };
        let (our_address, our_port) = allocate::allocate(self.work, &wanted, effects)?;
        let seen = Seen::at(self.work.state.now);
        let came_by = self.came_by();
        let made = NatFlow { seen, backend: index, backend_port, our_address, our_port, came_by };
        let reply = self.way_back(NatReply {
            seen,
            client: self.flow.source,
            client_port: self.flow.source_port,
            vip: self.flow.destination,
            vip_port: self.flow.destination_port,
            service: self.service.number,
            backend: index,
            interface: 0,
            next_hop: [0; 6],
            source_mac: [0; 6],
        });
        effects.nat.push(NatChange::Flow(self.key, Some(made)));
        effects.nat.push(NatChange::Reply(wanted.reply_key(our_address, our_port), Some(reply)));
        effects.events.push(Event::NatCreated);
        if self.service.selection == Selection::LeastConnections {
            effects.loads.push((index, 1));
        }
        Ok((made, road))
    }

    fn reply_key(&self, known: &NatFlow) -> NatReplyKey {
        let backend = self.work.state.backends.get(&known.backend);
        NatReplyKey {
            backend: backend.map_or(self.flow.destination, |backend| backend.address),
            backend_port: known.backend_port,
            our_address: known.our_address,
            our_port: known.our_port,
            protocol: self.flow.protocol,
        }
    }

    fn source_mac(&self) -> [u8; 6] {
        mac(self.work, 6)
    }

    fn came_by(&self) -> ([u8; 6], u16) {
        (self.source_mac(), self.work.state.ingress as u16)
    }

    fn way_back(&self, reply: NatReply) -> NatReply {
        NatReply {
            interface: self.work.state.ingress,
            next_hop: self.source_mac(),
            source_mac: mac(self.work, 0),
            ..reply
        }
    }
}

fn mac(work: &Work<'_>, at: usize) -> [u8; 6] {
    let mut mac = [0; 6];
    mac.copy_from_slice(&work.frame.bytes[at..at + 6]);
    mac
}
