//! Errors about packets that left in a tunnel: their senders are told, in errors of our own.

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    programs::XdpContext,
};
use lb_common::{
    abi::{ANSWER_TUNNEL, FORWARDING_GUE, FORWARDING_IPIP, GUE_PORT, PASSED_ICMP, PROTOCOL_UDP},
    wire::{
        PROTOCOL_IPV4, PROTOCOL_IPV6,
        icmp::{HEADER_LEN, Icmp, Message},
        ipv4, ipv6,
        transport::{self, UDP_HEADER_LEN},
    },
};

use super::{
    draft::Draft,
    error, is_hosts, make,
    quoted::{self, Quoted},
    route,
};
use crate::{
    cursor::Cursor,
    journey::Journey,
    refusal::Outcome,
    service::{self, Found},
    trace,
};

/// Makes of the error one to the client whose packet it is about, if it quotes a packet in a tunnel of ours.
#[inline(always)]
pub fn answer(ctx: &XdpContext) -> Outcome {
    // SAFETY: a live context.
    if unsafe { ballast_tunnel(ctx.ctx) } == 0 {
        trace::passed(PASSED_ICMP);
        return Ok(XDP_PASS);
    }
    make::make(ctx)?;
    trace::answered(ANSWER_TUNNEL);
    route::to_destination(ctx)
}

/// Finds out what to say; 0: nothing.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_tunnel(ctx: *mut xdp_md) -> u64 {
    // Whoever forges such an error, about as many as it likes, has others told no more than anybody does.
    (draft(&XdpContext::new(ctx)).is_some() && error::is_within_budget()).into()
}

#[inline(always)]
fn draft(ctx: &XdpContext) -> Option<()> {
    let (journey, outer) = (Journey::of_this_cpu().ok()?, Quoted::of_this_cpu().ok()?);
    // What is ours is not kept where packets look. But who sends to us about a packet from elsewhere lies.
    if outer.source != journey.destination {
        return None;
    }
    let mut overhead = if outer.family == 4 { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    let mut at = outer.l4 as usize;
    let (protocol, ports) = (outer.protocol, outer.ports);
    match protocol {
        PROTOCOL_IPV4 | PROTOCOL_IPV6 => {}
        PROTOCOL_UDP if transport::destination_port(ports) == GUE_PORT.to_be_bytes() => {
            at += UDP_HEADER_LEN;
            overhead += UDP_HEADER_LEN;
        }
        _ => return None,
    }
    let inner = quoted::read(ctx, at)?;
    let is_announced = match protocol {
        PROTOCOL_IPV4 => inner.family == 4,
        PROTOCOL_IPV6 => inner.family == 6,
        _ => true,
    };
    if !is_announced || !inner.has_ports() || !is_hosts(inner.family, inner.source) {
        return None;
    }
    let cursor = Cursor::new(ctx);
    let mtu = Icmp { version: journey.family, bytes: cursor.at::<HEADER_LEN>(journey.transport_at())? }.mtu();
    journey.destination = inner.destination;
    journey.ports = inner.ports;
    journey.protocol = inner.protocol;
    let Found::Service(service) = service::of_journey() else { return None };
    if service.forwarding != FORWARDING_IPIP && service.forwarding != FORWARDING_GUE {
        return None;
    }
    trace::note(|trace| trace.service(service.service));
    let draft = Draft::of_this_cpu().ok()?;
    draft.family = inner.family.into();
    draft.source = inner.destination;
    draft.destination = inner.source;
    draft.l3 = journey.l3;
    draft.frame_len = cursor.whole_len() as u32;
    let message = match mtu {
        Some(mtu) => Message::TooBig(mtu.saturating_sub(overhead as u32)),
        None => Message::Unreachable,
    };
    draft.say(message, inner.l3, inner.end);
    Some(())
}
