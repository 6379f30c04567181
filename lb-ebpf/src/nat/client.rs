//! A client's side of a flow: its entry, and what a packet does to it.

use lb_common::{
    abi::{
        BackendValue, CHOSEN_NAT_FLOW, DropReason, NAT_DEAD, PROTOCOL_TCP, STATE_EXISTING_FLOWS,
        STATE_NEW_FLOWS, ServiceEntry,
    },
    nat,
    wire::transport,
};

use super::{
    ATTEMPTS, change,
    entry::FlowKey,
    remove::{self, When},
    scratch::{Scratch, Whose},
    table::Place,
};
use crate::{
    admission, clock, flow,
    journey::Journey,
    maps,
    refusal::{self, Refusal},
    settings, trace,
};

/// What a packet of the client's is to its flow.
#[derive(Clone, Copy)]
pub struct Client {
    tcp: bool,
    /// A SYN.
    pub opens: bool,
}

impl Client {
    #[inline(always)]
    pub fn of(journey: &Journey) -> Self {
        let tcp = journey.protocol == PROTOCOL_TCP;
        Self { tcp, opens: tcp && transport::opens_connection(journey.tcp_flags) }
    }

    /// Whether it may start a flow.
    #[inline(always)]
    fn may_open(self) -> bool {
        self.opens || !self.tcp
    }
}

/// Counts a datagram that opens a flow, if the service may take one more: the part of admission that has to know. Asked
/// before all else, as of any other packet.
#[inline(always)]
pub fn admit(service: &ServiceEntry) -> Result<(), DropReason> {
    let (journey, scratch) = (Journey::of_this_cpu()?, Scratch::of_this_cpu()?);
    if service.new_flow_limit == 0 || journey.protocol == PROTOCOL_TCP {
        return Ok(());
    }
    scratch.flow_key = flow_key(journey, service);
    if Place::of_flow(&scratch.flow_key).is_some() { Ok(()) } else { admission::opens(service) }
}

/// What there is of the packet's flow, in the place of an action.
pub const FLOW_KNOWN: u32 = 2;
/// The packet starts it.
pub const FLOW_NEW: u32 = 3;
/// Its entry changed while it was read.
const FLOW_CHANGED: u32 = 4;

/// Leaves the entry, refreshed, in [`Scratch::flow`], if the flow has one that serves.
#[inline(always)]
pub fn find(service: &ServiceEntry) -> Result<u32, Refusal> {
    for _ in 0..ATTEMPTS {
        // SAFETY: a reference.
        let found = refusal::from_word(unsafe { ballast_nat_find(service) })?;
        if found != FLOW_CHANGED {
            return Ok(found);
        }
    }
    Err(DropReason::NatExhausted.into())
}

/// [`find`] for the verifier, once.
///
/// # Safety
///
/// A live service, or none.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_find(service: *const ServiceEntry) -> u64 {
    // SAFETY: the caller's promise.
    let found = match unsafe { service.as_ref() } {
        Some(service) => find_once(service),
        None => Err(DropReason::BadMapEntry),
    };
    refusal::to_word(found.map_err(Refusal::from))
}

#[inline(always)]
fn find_once(service: &ServiceEntry) -> Result<u32, DropReason> {
    let (journey, scratch) = (Journey::of_this_cpu()?, Scratch::of_this_cpu()?);
    let packet = Client::of(journey);
    scratch.flow_key = flow_key(journey, service);
    let Some(at) = Place::of_flow(&scratch.flow_key) else {
        return if packet.may_open() { Ok(FLOW_NEW) } else { Err(DropReason::NoNatFlow) };
    };
    let seen = at.copy_flow(&mut scratch.flow);
    if seen.has(NAT_DEAD) {
        return Err(lost(packet));
    }
    let backend = maps::BACKENDS.get(scratch.flow.backend).ok_or(DropReason::BadMapEntry)?;
    if !takes(backend, service, packet) {
        trace::note(|trace| trace.left = scratch.flow.backend);
        return leave(scratch, journey.protocol, packet);
    }
    let now = clock::now();
    let anew = packet.opens && change::is_closed();
    let refreshed = if anew { nat::anew(now) } else { nat::client_sent(seen, journey.tcp_flags, now) };
    if !at.stamp(seen, refreshed) {
        return Ok(FLOW_CHANGED);
    }
    trace::note(|trace| trace.backend(scratch.flow.backend, CHOSEN_NAT_FLOW));
    if anew {
        change::start_anew();
    }
    Ok(FLOW_KNOWN)
}

#[inline(always)]
fn flow_key(journey: &Journey, service: &ServiceEntry) -> FlowKey {
    // Word by word, because a copy from map to map is a call that goes from byte to byte.
    let [high, low] = journey.source;
    FlowKey { client: [high, low], ports: journey.ports, service: service.service }
}

#[inline(always)]
fn takes(backend: &BackendValue, service: &ServiceEntry, packet: Client) -> bool {
    let needed = if packet.opens { STATE_NEW_FLOWS } else { STATE_EXISTING_FLOWS };
    flow::state_in(backend, service.service) & needed != 0
}

/// Of a flow whose backend does not take the packet.
#[inline(always)]
fn leave(scratch: &mut Scratch, protocol: u8, packet: Client) -> Result<u32, DropReason> {
    if !packet.may_open() {
        return Err(DropReason::BackendDisabled);
    }
    if settings::side_effects() {
        remove::name(scratch, protocol)?;
        if !remove::remove(When::Now, Whose::Packet) {
            return Err(lost(packet));
        }
    }
    Ok(FLOW_NEW)
}

/// Somebody else is taking the flow away.
#[inline(always)]
fn lost(packet: Client) -> DropReason {
    if packet.may_open() { DropReason::NatExhausted } else { DropReason::NoNatFlow }
}
