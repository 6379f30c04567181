//! From a client to a backend.

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    programs::XdpContext,
};
use lb_common::abi::{DropReason, FATE_FORWARD, FORWARDING_NAT, ServiceEntry};

use super::{
    change,
    client::{self, Client},
    entry::{backend_address, swapped},
    fate::{self, Fate},
    leg, new,
    rewrite::{self, Endpoints},
    scratch::Scratch,
    way_back::WayBack,
};
use crate::{
    fragment,
    journey::{FRAGMENT_FIRST, FRAGMENT_NONE, Journey},
    maps,
    refusal::{self, Outcome},
    settings, trace,
};

/// Finds or makes the flow of this CPU's [`Journey`], for [`ballast_nat_send`].
///
/// # Safety
///
/// A live context, and a live service or none.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_forward(ctx: *mut xdp_md, service: *const ServiceEntry) -> u64 {
    let mut ctx = XdpContext::new(ctx);
    // SAFETY: the caller's promise.
    let outcome = match unsafe { service.as_ref() } {
        Some(service) => forward(&mut ctx, service),
        None => Err(DropReason::BadMapEntry.into()),
    };
    refusal::to_word(outcome)
}

#[inline(always)]
fn forward(ctx: &mut XdpContext, service: &ServiceEntry) -> Outcome {
    let (journey, scratch) = (Journey::of_this_cpu()?, Scratch::of_this_cpu()?);
    trace::note(|trace| trace.service(service.service));
    client::admit(service)?;
    if journey.authenticated != 0 {
        return Err(DropReason::ExtensionHeader.into());
    }
    if journey.ttl <= 1 {
        return Err(DropReason::TtlExpired.into());
    }
    let is_new = client::find(service)? == client::FLOW_NEW && new::make(ctx, service)?;
    if scratch.flow.came_by != WayBack::of(ctx)?.came_by() && settings::side_effects() {
        change::tell_of_another_way(ctx)?;
    }
    journey.opens_flow = (is_new || Client::of(journey).opens).into();
    Ok(XDP_PASS)
}

/// Sends the packet to the backend of [`Scratch::flow`]. Called when all else has returned, because its registers need
/// the stack.
///
/// # Safety
///
/// A live context, and a live service or none.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_send(ctx: *mut xdp_md, service: *const ServiceEntry) -> u64 {
    let mut ctx = XdpContext::new(ctx);
    // SAFETY: the caller's promise.
    let outcome = match unsafe { service.as_ref() } {
        Some(service) => send(&mut ctx, service),
        None => Err(DropReason::BadMapEntry.into()),
    };
    refusal::to_word(outcome)
}

#[inline(always)]
fn send(ctx: &mut XdpContext, service: &ServiceEntry) -> Outcome {
    let (journey, scratch) = (Journey::of_this_cpu()?, Scratch::of_this_cpu()?);
    let index = scratch.flow.backend;
    let backend = maps::BACKENDS.get(index).ok_or(DropReason::BadMapEntry)?;
    let endpoints = Endpoints {
        source: &scratch.flow.our_address,
        destination: backend_address(backend),
        ports: swapped(scratch.flow.reply_ports),
        identification: identification(journey, service.forwarding),
    };
    let opens_flow = journey.opens_flow != 0;
    let road = leg::Road { service: service.service, index, backend, opens_flow };
    let sent = leg::to_backend(ctx, journey, &road, |ctx| rewrite::rewrite(ctx, journey, &endpoints))?;
    if journey.fragment == FRAGMENT_FIRST {
        let fate = Fate {
            kind: FATE_FORWARD,
            forwarding: service.forwarding,
            service: service.service,
            backend: index,
        };
        fate::note(journey, fragment::draft()?, &fate, &endpoints);
    }
    Ok(sent)
}

/// Identification of a fragment: in `nat` a new one, because several clients have one address now.
#[inline(always)]
fn identification(journey: &Journey, forwarding: u8) -> Option<u32> {
    (journey.fragment != FRAGMENT_NONE && forwarding == FORWARDING_NAT)
        .then(|| ballast_nat_identification() as u32)
}

/// [`Journey::new_identification`] for the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_nat_identification() -> u64 {
    Journey::of_this_cpu().map_or(0, |journey| journey.new_identification(settings::hash_key()).into())
}
