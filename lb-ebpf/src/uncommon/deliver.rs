//! From a packet whose flow is known to where it goes, by this CPU's [`Journey`].

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    programs::XdpContext,
};
use lb_common::abi::{DropReason, ENTRY_ADMISSION, ServiceEntry, translates};

use crate::{
    admission,
    forward::carry,
    journey::Journey,
    maps, nat,
    refusal::{self, Outcome},
    select, send,
    service::{self, Found},
};

/// To a backend of its service, or back to a client.
#[inline(always)]
pub fn deliver(ctx: &XdpContext) -> Outcome {
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_deliver(ctx.ctx) })
}

/// [`deliver`] for the verifier.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_deliver(ctx: *mut xdp_md) -> u64 {
    refusal::to_word(by_service(&mut XdpContext::new(ctx)))
}

#[inline(always)]
fn by_service(ctx: &mut XdpContext) -> Outcome {
    let journey = Journey::of_this_cpu()?;
    match service::of_journey() {
        Found::Service(service) => to_backend(ctx, journey, service),
        Found::PerhapsReply if journey.observes == 0 => {
            // SAFETY: a live context.
            refusal::from_word(unsafe { nat::ballast_nat_reply(ctx.ctx) })
        }
        _ => Ok(XDP_PASS),
    }
}

/// The same steps as on the straight path.
#[inline(always)]
fn to_backend(ctx: &mut XdpContext, journey: &mut Journey, service: &ServiceEntry) -> Outcome {
    let packet = journey.packet();
    let observes = journey.observes != 0;
    if service.flags & ENTRY_ADMISSION != 0 && !observes {
        admission::admit(service, &packet)?;
    }
    if translates(service.forwarding) {
        if journey.authenticated != 0 {
            return Err(DropReason::ExtensionHeader.into());
        }
        // SAFETY: a live context, and a reference.
        return refusal::from_word(unsafe { nat::ballast_nat_forward(ctx.ctx, service) });
    }
    let selected = select::chosen(service, &packet, observes)?;
    journey.to(&selected, service.service, service.forwarding);
    depart(ctx)
}

/// Rewrites the packet as this CPU's [`Journey`] says, and sends it.
#[inline(always)]
pub fn depart(ctx: &XdpContext) -> Outcome {
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_depart(ctx.ctx) })
}

/// [`depart`] for the verifier.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_depart(ctx: *mut xdp_md) -> u64 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: a live context.
    let rewritten = refusal::from_word(unsafe { carry::ballast_carry(ctx.ctx) });
    refusal::to_word(rewritten.and_then(|_| sent(&ctx)))
}

#[inline(always)]
fn sent(ctx: &XdpContext) -> Outcome {
    let journey = Journey::of_this_cpu()?;
    let egress = journey.next_hop().egress();
    let way = maps::EGRESS.get(egress).ok_or(DropReason::BadMapEntry)?;
    let forwarded = send::Forwarded {
        egress,
        ifindex: way.ifindex,
        service: journey.service,
        backend: journey.backend,
        frame_len: journey.frame_len.into(),
        opens_flow: journey.opens_flow != 0,
    };
    send::forwarded(ctx, &forwarded)
}
