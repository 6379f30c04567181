//! ICMP: echo, errors that are handed on, and errors that are made.

mod draft;
mod echo;
pub mod error;
mod make;
pub mod nat;
pub mod quoted;
mod relay;
mod route;
mod tunnel;

pub use draft::Draft;

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_PASS, XDP_REDIRECT, XDP_TX},
        xdp_md,
    },
    programs::XdpContext,
};
use lb_common::{
    abi::{ANSWER_RELAYED, Counters, PASSED_ICMP, PROTOCOL_ANY},
    wire::icmp::{self, HEADER_LEN, Icmp},
};

use crate::{
    cursor::Cursor,
    journey::{Journey, unmapped},
    maps,
    refusal::{self, Outcome, Refusal},
    service, settings, trace, uncommon,
};

/// A whole ICMP packet, for whomever it is.
#[inline(always)]
pub fn handle(ctx: &XdpContext, journey: &Journey) -> Outcome {
    // SAFETY: a live context.
    match unsafe { ballast_icmp(ctx.ctx) } {
        // SAFETY: as above.
        ECHO => refusal::from_word(unsafe { echo::ballast_echo(ctx.ctx) }),
        TO_BACKEND => handed_on(uncommon::deliver(ctx, journey)),
        ELSEWHERE => handed_on(elsewhere(ctx)),
        _ => {
            trace::passed(PASSED_ICMP);
            Ok(XDP_PASS)
        }
    }
}

const NOTHING: u64 = 0;
/// A request that is answered.
const ECHO: u64 = 1;
/// About a packet from a VIP, which is where it goes; the journey is that of the flow.
const TO_BACKEND: u64 = 2;
/// About a packet of no service, which may have left through NAT or in a tunnel: a VIP may be the address that those use.
const ELSEWHERE: u64 = 3;

/// What there is to do with an ICMP packet.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_icmp(ctx: *mut xdp_md) -> u64 {
    task(&XdpContext::new(ctx)).unwrap_or(NOTHING)
}

#[inline(always)]
fn task(ctx: &XdpContext) -> Option<u64> {
    let journey = Journey::of_this_cpu().ok()?;
    let at = journey.transport_at();
    let bytes = Cursor::new(ctx).at::<HEADER_LEN>(at)?;
    if (at + HEADER_LEN) as u32 > journey.end() {
        return None;
    }
    let header = Icmp { version: journey.family, bytes };
    if header.is_echo_request() {
        let is_answered =
            is_hosts(journey.family, journey.source) && service::lives_on_journeys_end(PROTOCOL_ANY);
        return is_answered.then_some(ECHO);
    }
    if !header.is_error() {
        return None;
    }
    let quoted = quoted::read(ctx, at + HEADER_LEN)?;
    if quoted.family != journey.family {
        return None;
    }
    Some(if relay::to_the_flow(journey, quoted) { TO_BACKEND } else { ELSEWHERE })
}

/// To the client of a flow through NAT, or of one in a tunnel.
#[inline(always)]
fn elsewhere(ctx: &XdpContext) -> Outcome {
    match nat::to_client(ctx)? {
        XDP_PASS => tunnel::answer(ctx),
        sent => Ok(sent),
    }
}

/// Counts an error about a flow that goes on. About those that don't nobody is told.
#[inline(always)]
fn handed_on(outcome: Outcome) -> Outcome {
    if let Ok(XDP_TX | XDP_REDIRECT) = outcome {
        count(|counters| &mut counters.errors_relayed);
        trace::answered(ANSWER_RELAYED);
    }
    outcome.map_err(Refusal::untold)
}

/// Whether a packet of this family can be answered.
#[inline(always)]
fn is_hosts(family: u8, source: [u64; 2]) -> bool {
    if family == 4 { icmp::is_hosts_v4(unmapped(source)) } else { icmp::is_hosts_v6(source) }
}

#[inline(always)]
pub fn count(counter: impl FnOnce(&mut Counters) -> &mut u64) {
    if settings::side_effects()
        && let Some(counters) = maps::COUNTERS.get_ptr_mut(0)
    {
        // SAFETY: the pointer is to this CPU's entry, which lives as long as the map; nobody else writes it.
        *counter(unsafe { &mut *counters }) += 1;
    }
}
