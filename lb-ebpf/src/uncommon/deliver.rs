//! From a packet whose flow is known to where it goes: the same steps as on the straight path, by this CPU's [`Journey`].
//!
//! They are global functions next to each other and not one inside the other, because the stack has to do for all that
//! are called at a time.

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    programs::XdpContext,
};
use lb_common::abi::{DropReason, ENTRY_ADMISSION, PASSED_NO_SERVICE, ServiceEntry, translates};

use crate::{
    admission,
    forward::carry,
    icmp,
    journey::Journey,
    maps, nat,
    refusal::{self, Outcome, Refusal},
    select, send,
    service::{self, Found},
    trace,
};

/// To a backend of its service, or back to a client.
#[inline(always)]
pub fn deliver(ctx: &XdpContext, journey: &Journey) -> Outcome {
    match service::of_journey() {
        Found::Service(service) => to_backend(ctx, journey, service),
        Found::PerhapsReply if journey.observes == 0 => {
            // SAFETY: a live context.
            refusal::from_word(unsafe { nat::ballast_nat_reply(ctx.ctx) })
        }
        _ => {
            trace::passed(PASSED_NO_SERVICE);
            Ok(XDP_PASS)
        }
    }
}

#[inline(always)]
fn to_backend(ctx: &XdpContext, journey: &Journey, service: &ServiceEntry) -> Outcome {
    if service.flags & ENTRY_ADMISSION != 0 && journey.observes == 0 {
        admission::admit_journey(service)?;
    }
    if translates(service.forwarding) {
        if journey.observes != 0 {
            return icmp::nat::to_backend(ctx, service);
        }
        return nat::forward_journey(ctx, service);
    }
    // SAFETY: a reference.
    refusal::from_word(unsafe { ballast_select(service) })?;
    depart(ctx)
}

/// Selects a backend for this CPU's [`Journey`].
///
/// # Safety
///
/// A live service, or none.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_select(service: *const ServiceEntry) -> u64 {
    // SAFETY: the caller's promise.
    let selected = match unsafe { service.as_ref() } {
        Some(service) => select(service),
        None => Err(DropReason::BadMapEntry.into()),
    };
    refusal::to_word(selected.map(|()| XDP_PASS))
}

#[inline(always)]
fn select(service: &ServiceEntry) -> Result<(), Refusal> {
    let journey = Journey::of_this_cpu()?;
    let selected = select::backend(service, journey)?;
    journey.to(&selected, service.service, service.forwarding);
    Ok(())
}

/// Rewrites the packet as this CPU's [`Journey`] says, and sends it.
#[inline(always)]
pub fn depart(ctx: &XdpContext) -> Outcome {
    // SAFETY: a live context.
    refusal::from_word(unsafe { carry::ballast_carry(ctx.ctx) })?;
    // SAFETY: as above.
    refusal::from_word(unsafe { ballast_send(ctx.ctx) })
}

/// [`send::forwarded`] of this CPU's [`Journey`].
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_send(ctx: *mut xdp_md) -> u64 {
    refusal::to_word(send(&XdpContext::new(ctx)))
}

#[inline(always)]
fn send(ctx: &XdpContext) -> Outcome {
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
