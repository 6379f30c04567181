//! The way out of the host, and what is counted on it.

use aya_ebpf::{
    bindings::xdp_action::{XDP_REDIRECT, XDP_TX},
    programs::XdpContext,
};
use lb_common::abi::{DropReason, TrafficCounters};

use crate::{maps, refusal::Outcome, settings, trace};

/// A packet that is ready to leave for a backend.
pub struct Forwarded {
    /// Number in `EGRESS` and `EGRESS_DEVICES`.
    pub egress: u32,
    pub ifindex: u32,
    pub service: u32,
    pub backend: u32,
    /// Length of the frame as received, without FCS.
    pub frame_len: u64,
    pub opens_flow: bool,
}

/// Picks the XDP action for a rewritten packet and counts it for its service and backend.
#[inline(always)]
pub fn forwarded(ctx: &XdpContext, forwarded: &Forwarded) -> Outcome {
    let action = if forwarded.ifindex == ctx.ingress_ifindex() as u32 {
        XDP_TX
    } else {
        maps::EGRESS_DEVICES.redirect(forwarded.egress, 0).map_err(|_| DropReason::NoEgress)?;
        trace::redirected(forwarded.ifindex);
        XDP_REDIRECT
    };
    account(forwarded.service, forwarded.backend, |counters| {
        counters.packets += 1;
        counters.bytes += forwarded.frame_len;
        counters.new_flows += forwarded.opens_flow as u64;
    });
    Ok(action)
}

/// Counts a packet for its service and its backend.
#[inline(always)]
pub fn account(service: u32, backend: u32, count: impl Fn(&mut TrafficCounters)) {
    if settings::side_effects() {
        add(maps::SERVICE_COUNTERS.get_ptr_mut(service), &count);
        add(maps::BACKEND_COUNTERS.get_ptr_mut(backend), &count);
    }
}

#[inline(always)]
fn add(counters: Option<*mut TrafficCounters>, count: &impl Fn(&mut TrafficCounters)) {
    if let Some(counters) = counters {
        // SAFETY: the pointer is to this CPU's entry, which lives as long as the map; nobody else writes it.
        count(unsafe { &mut *counters });
    }
}
