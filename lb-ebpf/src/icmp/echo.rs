//! Echo replies.

use aya_ebpf::{
    bindings::{xdp_action::XDP_TX, xdp_md},
    programs::XdpContext,
};
use lb_common::{
    abi::{ANSWER_ECHO, DropReason},
    checksum,
    wire::{icmp::echo_reply, ipv4, ipv6, ne32, ne64},
};

use super::{count, make::swap_macs};
use crate::{cursor::CursorMut, journey::Journey, refusal, trace};

/// Makes the reply of the echo request that is this CPU's [`Journey`].
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_echo(ctx: *mut xdp_md) -> u64 {
    let mut ctx = XdpContext::new(ctx);
    let answered = answer(&mut ctx).ok_or(DropReason::TruncatedHeader);
    if answered.is_ok() {
        count(|counters| &mut counters.echo_replies);
        trace::answered(ANSWER_ECHO);
    }
    refusal::to_word(answered.map(|()| XDP_TX).map_err(Into::into))
}

#[inline(always)]
fn answer(ctx: &mut XdpContext) -> Option<()> {
    let journey = Journey::of_this_cpu().ok()?;
    swap_macs(&mut CursorMut::new(ctx)).ok()?;
    let mut packet = CursorMut::new(ctx).skip(journey.ip_at());
    if journey.family == 4 {
        let header = packet.at::<{ ipv4::HEADER_LEN }>(0)?;
        let (old, new) = ([header[TTL_V4], header[TTL_V4 + 1]], [TTL, header[TTL_V4 + 1]]);
        let [high, low] = checksum::replace_word([header[10], header[11]], old, new);
        (header[TTL_V4], header[10], header[11]) = (TTL, high, low);
        let swapped = [ne32(header, 16), ne32(header, 12)];
        packet.write(12, swapped)?;
    } else {
        let header = packet.at::<{ ipv6::HEADER_LEN }>(0)?;
        header[TTL_V6] = TTL;
        let swapped = [ne64(header, 24), ne64(header, 32), ne64(header, 8), ne64(header, 16)];
        packet.write(8, swapped)?;
    }
    let mut message = CursorMut::new(ctx).skip(journey.transport_at());
    let header = message.at::<4>(0)?;
    let (old, new) = ([header[0], 0], [echo_reply(journey.family), 0]);
    let [high, low] = checksum::replace_word([header[2], header[3]], old, new);
    (header[0], header[2], header[3]) = (new[0], high, low);
    Some(())
}

const TTL: u8 = 64;
/// Where it stands in the IP header.
const TTL_V4: usize = 8;
const TTL_V6: usize = 7;
