//! The last steps of a packet that NAT has found new addresses for.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::{
    bindings::xdp_action::{XDP_REDIRECT, XDP_TX},
    helpers::generated::{bpf_check_mtu, bpf_redirect},
    programs::XdpContext,
};
use lb_common::abi::{BackendValue, DropReason, NextHop, STATE_EXISTING_FLOWS};

use super::way_back::WayBack;
use crate::{
    cursor::CursorMut,
    flow,
    forward::{encap, write_mac_words, write_macs},
    maps,
    refusal::{Outcome, Refusal},
    send::{self, Forwarded},
    trace,
};

/// Where a packet goes, and for whom it is counted.
pub struct Road {
    pub service: u32,
    /// Backend index.
    pub index: u32,
    pub backend: &'static BackendValue,
    pub opens_flow: bool,
}

/// What decides whether a packet may leave, and is counted of it.
pub trait Leaving {
    /// Or hop limit.
    fn ttl(&self) -> u8;
    /// IP header and payload in bytes.
    fn total_len(&self) -> u32;
    /// Bytes as received, without FCS.
    fn frame_len(&self) -> u32;
}

/// For whom a reply is counted.
#[derive(Clone, Copy)]
pub struct Account {
    pub service: u32,
    /// Index.
    pub backend: u32,
}

/// Whether the backend takes packets of the service's existing flows.
#[inline(always)]
pub fn takes(backend: &BackendValue, service: u32) -> Result<(), DropReason> {
    if flow::state_in(backend, service) & STATE_EXISTING_FLOWS == 0 {
        Err(DropReason::BackendDisabled)
    } else {
        Ok(())
    }
}

/// Whether a packet may go to the flow's client, but for its size.
#[inline(always)]
pub fn may_reply(packet: &impl Leaving, account: Account) -> Result<(), DropReason> {
    if packet.ttl() <= 1 {
        return Err(DropReason::TtlExpired);
    }
    takes(maps::BACKENDS.get(account.backend).ok_or(DropReason::BadMapEntry)?, account.service)
}

/// The way to the backend, TTL, size, new addresses, and out. After [`DropReason::TtlExpired`] and
/// [`DropReason::PacketTooBig`] the packet is as it came.
#[inline(always)]
pub fn to_backend(
    ctx: &mut XdpContext,
    packet: &impl Leaving,
    road: &Road,
    rewrite: impl FnOnce(&mut XdpContext) -> Result<(), DropReason>,
) -> Outcome {
    // SAFETY: an aligned word of a live map entry, which the controller changes by one store.
    let next_hop = NextHop(unsafe { read_volatile(addr_of!(road.backend.next_hop)) });
    let egress = next_hop.egress();
    if egress == 0 {
        return Err(DropReason::NextHopUnresolved.into());
    }
    let way = maps::EGRESS.get(egress).ok_or(DropReason::BadMapEntry)?;
    encap::check(packet.ttl(), packet.total_len(), 0, way.mtu)?;
    rewrite(ctx)?;
    write_macs(&mut CursorMut::new(ctx), way, next_hop)?;
    send::forwarded(
        ctx,
        &Forwarded {
            egress,
            ifindex: way.ifindex,
            service: road.service,
            backend: road.index,
            frame_len: packet.frame_len().into(),
            opens_flow: road.opens_flow,
        },
    )
}

/// Size, new addresses, and out to the client.
#[inline(always)]
pub fn to_client(
    ctx: &mut XdpContext,
    packet: &impl Leaving,
    account: Account,
    way: &WayBack,
    rewrite: impl FnOnce(&mut XdpContext) -> Result<(), DropReason>,
) -> Outcome {
    let stays = way.ifindex == ctx.ingress_ifindex() as u32;
    if !stays {
        fits(ctx, packet.total_len(), way.ifindex)?;
    }
    rewrite(ctx)?;
    write_mac_words(&mut CursorMut::new(ctx), way.next_hop, way.source_mac)?;
    send::account(account.service, account.backend, |counters| {
        counters.reply_packets += 1;
        counters.reply_bytes += u64::from(packet.frame_len());
    });
    if !stays {
        trace::redirected(way.ifindex);
        // SAFETY: takes numbers alone, and does nothing before the program has ended.
        unsafe { bpf_redirect(way.ifindex, 0) };
        return Ok(XDP_REDIRECT);
    }
    Ok(XDP_TX)
}

/// Whether an interface takes a packet of this length. What came in by an interface goes out by it.
#[inline(always)]
fn fits(ctx: &XdpContext, total_len: u32, ifindex: u32) -> Result<(), Refusal> {
    // The packet's length in, the interface's MTU out.
    let mut len = total_len;
    // SAFETY: a live context and a number on the stack; since 5.12.
    let answer = unsafe { bpf_check_mtu(ctx.ctx.cast(), ifindex, &raw mut len, 0, 0) };
    match answer {
        0 => Ok(()),
        answer if answer < 0 => Err(DropReason::NoEgress.into()),
        _ => Err(Refusal::too_big(len)),
    }
}
