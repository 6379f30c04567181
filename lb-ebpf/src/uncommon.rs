//! Packets off the straight path: fragments, IPv6 extension headers, ICMP.

mod deliver;
mod read;
mod walk;

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    programs::XdpContext,
};
use lb_common::abi::PASSED_NO_SERVICE;

pub use deliver::{deliver, depart};

use self::read::Content;
use crate::{
    fragment, icmp,
    journey::Journey,
    refusal::{self, Outcome, Refusal},
    service, trace,
};

#[inline(always)]
pub fn handle(ctx: &mut XdpContext) -> Outcome {
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_uncommon(ctx.ctx) })
}

/// [`handle`] for the verifier: verified once, and none of the straight path's registers spilled for it.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_uncommon(ctx: *mut xdp_md) -> u64 {
    refusal::to_word(decide(&mut XdpContext::new(ctx)))
}

#[inline(always)]
fn decide(ctx: &mut XdpContext) -> Outcome {
    let journey = Journey::of_this_cpu()?;
    let outcome = match read::content(ctx, journey) {
        Content::Nothing => return Ok(XDP_PASS),
        Content::LaterFragment => return fragment::follow(ctx).map_err(Refusal::untold),
        Content::Icmp => return icmp::handle(ctx, journey),
        Content::Unreadable(reason) if service::lives_on_journeys_end(journey.protocol) => {
            Err(Refusal { reason, mtu: 0 })
        }
        Content::Unreadable(_) => {
            trace::passed(PASSED_NO_SERVICE);
            Ok(XDP_PASS)
        }
        Content::Ports => {
            fragment::begin()?;
            deliver(ctx, journey)
        }
    };
    if journey.is_first_fragment() {
        fragment::note(journey, outcome);
    }
    outcome
}
