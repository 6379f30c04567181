//! Errors that are made of packets that go no further: time exceeded, too big, and port unreachable.

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    programs::XdpContext,
};
use lb_common::{
    abi::{
        ANSWER_LIMITED, ANSWER_PORT_UNREACHABLE, ANSWER_TIME_EXCEEDED, ANSWER_TOO_BIG, DropReason,
        ICMP_ERRORS_PER_UNIT,
    },
    wire::{
        ethernet::ETHERTYPE_IPV4,
        icmp::Message,
        ipv4::Ipv4,
        ipv6::{self, Ipv6},
    },
};

use super::{count, draft::Draft, is_hosts, make};
use crate::{
    clock,
    cursor::Cursor,
    maps,
    parse::{self, Address as _},
    refusal::{self, Outcome, Refusal},
    reject, settings, trace,
};

/// Makes the frame an error to its sender, or refuses it after all.
#[inline(always)]
pub fn answer(ctx: &mut XdpContext, refusal: Refusal) -> Outcome {
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_answer(ctx.ctx, refusal::to_word(Err(refusal))) })
}

/// [`answer`] for the verifier.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_answer(ctx: *mut xdp_md, word: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    let Err(refusal) = refusal::from_word(word) else { return word };
    trace::refused(refusal);
    if refusal.is(DropReason::Rejected) {
        match reject::reset(&ctx) {
            Ok(XDP_PASS) => {}
            Ok(sent) => return refusal::to_word(Ok(sent)),
            Err(_) => return word,
        }
    }
    if draft(&ctx, refusal).is_none() || !is_within_budget() {
        return word;
    }
    let Ok(action) = make::make(&ctx) else { return word };
    count(|counters| {
        if refusal.is(DropReason::PacketTooBig) {
            &mut counters.too_big_sent
        } else if refusal.is(DropReason::Rejected) {
            &mut counters.port_unreachable_sent
        } else {
            &mut counters.time_exceeded_sent
        }
    });
    if settings::tracing() {
        trace::answered(if refusal.is(DropReason::PacketTooBig) {
            ANSWER_TOO_BIG
        } else if refusal.is(DropReason::Rejected) {
            ANSWER_PORT_UNREACHABLE
        } else {
            ANSWER_TIME_EXCEEDED
        });
    }
    refusal::to_word(Ok(action))
}

/// What the packet's sender is told; `None` if it can't be.
#[inline(always)]
fn draft(ctx: &XdpContext, refusal: Refusal) -> Option<()> {
    let draft = Draft::of_this_cpu().ok()?;
    let cursor = Cursor::new(ctx);
    let (l3, ethertype) = parse::behind_tags(&cursor)?;
    let total_len = if ethertype == ETHERTYPE_IPV4 {
        let header = Ipv4(cursor.at(l3)?);
        draft.family = 4;
        draft.source = header.destination().service_words();
        draft.destination = header.source().service_words();
        u32::from(header.total_len())
    } else {
        let header = Ipv6(cursor.at(l3)?);
        draft.family = 6;
        draft.source = header.destination();
        draft.destination = header.source();
        ipv6::HEADER_LEN as u32 + u32::from(header.payload_len())
    };
    let (packet_end, first_len) = (l3 as u32 + total_len, cursor.first_len() as u32);
    draft.l3 = l3 as u32;
    draft.frame_len = cursor.whole_len() as u32;
    let message = if refusal.is(DropReason::PacketTooBig) {
        Message::TooBig(refusal.mtu)
    } else if refusal.is(DropReason::Rejected) {
        Message::PortUnreachable
    } else {
        Message::TimeExceeded
    };
    draft.say(message, draft.l3, if packet_end < first_len { packet_end } else { first_len });
    is_hosts(draft.family as u8, draft.destination).then_some(())
}

/// Whether this CPU may make one more error this second.
#[inline(always)]
pub fn is_within_budget() -> bool {
    let Some(budget) = maps::ICMP_BUDGET.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's entry, which lives as long as the map.
    let budget = unsafe { &mut *budget };
    let now = clock::now();
    let sent = if budget.time == now { budget.sent } else { 0 };
    if sent >= ICMP_ERRORS_PER_UNIT {
        count(|counters| &mut counters.errors_limited);
        trace::answered(ANSWER_LIMITED);
        return false;
    }
    if settings::side_effects() {
        budget.time = now;
        budget.sent = sent + 1;
    }
    true
}
