//! Errors about flows through NAT, both ways: the packet that is quoted gets the addresses that whoever is told knows, as
//! does the one around it (RFC 5508 section 4.2).

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    programs::XdpContext,
};
use lb_common::{
    abi::{CHOSEN_NAT_FLOW, DropReason, NAT_DEAD, PASSED_NO_FLOW, PROTOCOL_TCP, ServiceEntry},
    checksum::Change,
};

use super::quoted::Quoted;
use crate::{
    cursor::CursorMut,
    journey::{Journey, unmapped},
    maps,
    nat::{
        Scratch,
        entry::{FlowKey, ReplyKey, backend_address, swapped},
        leg::{self, Account, Road},
        rewrite::{self, CHECKSUM_TCP, Endpoints},
        table::Place,
        way_back::WayBack,
    },
    refusal::{self, Outcome},
    service, trace,
};

/// Hands an error about a packet of the service, whose flow is this CPU's [`Journey`], to the flow's backend.
#[inline(always)]
pub fn to_backend(ctx: &XdpContext, service: &ServiceEntry) -> Outcome {
    // SAFETY: a live context, and a reference.
    refusal::from_word(unsafe { ballast_nat_error_to_backend(ctx.ctx, service) })
}

/// [`to_backend`] for the verifier.
///
/// # Safety
///
/// A live context, and a live service or none.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_error_to_backend(ctx: *mut xdp_md, service: *const ServiceEntry) -> u64 {
    // SAFETY: the caller's promise.
    let outcome = match unsafe { service.as_ref() } {
        Some(service) => tell_backend(&mut XdpContext::new(ctx), service.service),
        None => Err(DropReason::BadMapEntry.into()),
    };
    refusal::to_word(outcome)
}

#[inline(always)]
fn tell_backend(ctx: &mut XdpContext, service: u32) -> Outcome {
    let (journey, scratch) = (Journey::of_this_cpu()?, Scratch::of_this_cpu()?);
    scratch.flow_key = FlowKey { client: journey.source, ports: journey.ports, service };
    trace::note(|trace| {
        trace.service(service);
        trace.passed = PASSED_NO_FLOW;
    });
    let Some(at) = Place::of_flow(&scratch.flow_key) else { return Ok(XDP_PASS) };
    let seen = at.copy_flow(&mut scratch.flow);
    if seen.has(NAT_DEAD) || at.seen().0 != seen.0 {
        return Ok(XDP_PASS);
    }
    trace::note(|trace| {
        trace.passed = 0;
        trace.backend(scratch.flow.backend, CHOSEN_NAT_FLOW);
    });
    may_change(journey)?;
    scratch.from = rewrite::source(ctx, journey)?;
    let index = scratch.flow.backend;
    let backend = maps::BACKENDS.get(index).ok_or(DropReason::BadMapEntry)?;
    leg::takes(backend, service)?;
    let inside = Endpoints {
        source: backend_address(backend),
        destination: &scratch.flow.our_address,
        ports: scratch.flow.reply_ports,
        identification: None,
    };
    let around = Endpoints { source: &scratch.from, destination: backend_address(backend), ..inside };
    let road = Road { service, index, backend, opens_flow: false };
    leg::to_backend(ctx, journey, &road, |ctx| rewrite(ctx, journey, &inside, &around))
}

/// Hands an error about a packet that NAT sent to a backend, as quoted, to the flow's client. [`XDP_PASS`]: it is about none.
#[inline(always)]
pub fn to_client(ctx: &XdpContext) -> Outcome {
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_nat_error_to_client(ctx.ctx) })
}

/// [`to_client`] for the verifier.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_error_to_client(ctx: *mut xdp_md) -> u64 {
    refusal::to_word(tell_client(&mut XdpContext::new(ctx)))
}

#[inline(always)]
fn tell_client(ctx: &mut XdpContext) -> Outcome {
    let (journey, scratch) = (Journey::of_this_cpu()?, Scratch::of_this_cpu()?);
    let quoted = Quoted::of_this_cpu()?;
    // An error for somebody else is not about a packet that left here, whatever it quotes.
    if !quoted.has_ports() || quoted.source != journey.destination || !service::translates() {
        return Ok(XDP_PASS);
    }
    scratch.reply_key = ReplyKey {
        backend: quoted.destination,
        our_address: quoted.source,
        ports: swapped(quoted.ports),
        protocol: quoted.protocol.into(),
    };
    let Some(at) = Place::of_reply(&scratch.reply_key) else { return Ok(XDP_PASS) };
    let seen = at.copy_reply(&mut scratch.reply);
    if seen.has(NAT_DEAD) || at.seen().0 != seen.0 {
        return Ok(XDP_PASS);
    }
    trace::reply(scratch.reply.service, scratch.reply.backend);
    may_change(journey)?;
    let reply = &scratch.reply;
    let account = Account { service: reply.service, backend: reply.backend };
    leg::may_reply(journey, account)?;
    let inside = Endpoints {
        source: &reply.client,
        destination: &reply.vip,
        ports: swapped(reply.ports),
        identification: None,
    };
    // Of backends the client knows nothing.
    let source = if journey.source == quoted.destination { &reply.vip } else { &journey.source };
    let around = Endpoints { source, destination: &reply.client, ..inside };
    leg::to_client(ctx, journey, account, &WayBack::in_reply(reply), |ctx| {
        rewrite(ctx, journey, &inside, &around)
    })
}

/// Refuses what is under an authentication header. In front of a quoted packet's ports none can be read.
#[inline(always)]
fn may_change(journey: &Journey) -> Result<(), DropReason> {
    if journey.authenticated == 0 { Ok(()) } else { Err(DropReason::ExtensionHeader) }
}

/// Gives the quoted packet and the one around it new addresses.
#[inline(always)]
fn rewrite(
    ctx: &mut XdpContext,
    journey: &Journey,
    inside: &Endpoints<'_>,
    around: &Endpoints<'_>,
) -> Result<(), DropReason> {
    let quoted = Quoted::of_this_cpu()?;
    let mut cursor = CursorMut::new(ctx);
    write(&mut cursor, journey, quoted, inside, around).ok_or(DropReason::TruncatedHeader)
}

#[inline(always)]
fn write(
    cursor: &mut CursorMut<'_>,
    journey: &Journey,
    quoted: &Quoted,
    inside: &Endpoints<'_>,
    around: &Endpoints<'_>,
) -> Option<()> {
    let quotation = quoted_packet(cursor, quoted, inside)?;
    let header = rewrite::header(cursor, journey, around)?;
    // ICMPv6 covers the addresses around it as well (RFC 4443 section 2.3).
    let change = if journey.family == 4 { quotation } else { quotation.and(header) };
    let at = journey.transport_at() + CHECKSUM_ICMP;
    let sum: u16 = cursor.read(at)?;
    cursor.write(at, change.mend(sum))
}

/// Says what becomes of all of the quotation.
#[inline(always)]
fn quoted_packet(cursor: &mut CursorMut<'_>, quoted: &Quoted, new: &Endpoints<'_>) -> Option<Change> {
    let (l3, l4) = (quoted.l3 as usize & MAX_QUOTED, quoted.l4 as usize & MAX_QUOTED);
    let (addresses, rest) =
        if quoted.family == 4 { header_v4(cursor, l3, new)? } else { header_v6(cursor, l3, new)? };
    let change = addresses.word32(cursor.read(l4)?, new.ports);
    cursor.write(l4, new.ports)?;
    let all = change.and(rest);
    if quoted.protocol != PROTOCOL_TCP {
        let sum: u16 = cursor.read(l4 + CHECKSUM_UDP)?;
        let mended = change.mend_udp(sum);
        cursor.write(l4 + CHECKSUM_UDP, mended)?;
        return Some(all.word16(sum, mended));
    }
    if (l4 + CHECKSUM_TCP + 2) as u32 > quoted.end {
        return Some(all);
    }
    let sum: u16 = cursor.read(l4 + CHECKSUM_TCP)?;
    let mended = change.mend(sum);
    cursor.write(l4 + CHECKSUM_TCP, mended)?;
    Some(all.word16(sum, mended))
}

/// What becomes of the addresses, and of the rest of the header.
#[inline(always)]
fn header_v4(cursor: &mut CursorMut<'_>, l3: usize, new: &Endpoints<'_>) -> Option<(Change, Change)> {
    let [source, destination]: [u32; 2] = cursor.read(l3 + ADDRESSES_V4)?;
    let (new_source, new_destination) = (unmapped(*new.source), unmapped(*new.destination));
    let addresses = Change::NONE.word32(source, new_source).word32(destination, new_destination);
    let sum: u16 = cursor.read(l3 + CHECKSUM_V4)?;
    let mended = addresses.mend(sum);
    cursor.write(l3 + CHECKSUM_V4, mended)?;
    cursor.write(l3 + ADDRESSES_V4, [new_source, new_destination])?;
    Some((addresses, Change::NONE.word16(sum, mended)))
}

#[inline(always)]
fn header_v6(cursor: &mut CursorMut<'_>, l3: usize, new: &Endpoints<'_>) -> Option<(Change, Change)> {
    let addresses = rewrite::addresses_v6(cursor, l3, new)?;
    Some((addresses, Change::NONE))
}

/// A bit for each offset of a quoted header: behind a header of 574 bytes at most, that of ICMP, and 60 bytes of its own.
const MAX_QUOTED: usize = 0x3ff;

const CHECKSUM_ICMP: usize = 2;
const CHECKSUM_UDP: usize = 6;
const CHECKSUM_V4: usize = 10;
const ADDRESSES_V4: usize = 12;
