//! Rewriting a packet for its backend, a file a forwarding mode.

pub mod carry;
pub mod encap;
mod l2_dsr;

use core::{
    mem::offset_of,
    ptr::{addr_of, read_volatile},
};

use aya_ebpf::programs::XdpContext;
use lb_common::abi::{
    DropReason, EgressValue, FORWARDING_GUE, FORWARDING_IPIP, FORWARDING_L2_DSR, NextHop, ServiceEntry,
};

pub use encap::Tunnel;

use crate::{cursor::CursorMut, maps, parse::Packet, refusal::Refusal, select::Selected, send::Forwarded};

/// Rewrites the packet as the service says, the straight way where there is one. After most errors the packet may be half
/// rewritten and must be dropped; [`Refusal`] says after which not.
#[inline(always)]
pub fn rewrite<A: Tunnel>(
    ctx: &mut XdpContext,
    service: &ServiceEntry,
    packet: &Packet<A>,
    selected: Selected,
) -> Result<Forwarded, Refusal> {
    let egress = selected.next_hop.egress();
    let way = maps::EGRESS.get(egress).ok_or(DropReason::BadMapEntry)?;
    let is_plain = selected.is_ipv6 == (A::VERSION == 6) && packet.l3 == encap::UNTAGGED;
    match service.forwarding {
        FORWARDING_L2_DSR => l2_dsr::rewrite(ctx, way, packet.total_len, selected.next_hop)?,
        FORWARDING_IPIP if is_plain => A::encapsulate::<false>(ctx, way, packet, &selected)?,
        FORWARDING_GUE if is_plain => A::encapsulate::<true>(ctx, way, packet, &selected)?,
        _ => carry::rewrite(ctx, service, packet, &selected)?,
    }
    Ok(Forwarded {
        egress,
        ifindex: way.ifindex,
        service: service.service,
        backend: selected.index,
        frame_len: packet.frame_len as u64,
        opens_flow: selected.opens_flow,
    })
}

/// Writes the frame's two MAC addresses.
#[inline(always)]
pub fn write_macs(
    cursor: &mut CursorMut<'_>,
    way: &EgressValue,
    next_hop: NextHop,
) -> Result<(), DropReason> {
    const _: () = assert!(offset_of!(EgressValue, source_mac) % 8 == 0);
    // SAFETY: an aligned word of a live map entry: the address and its padding. Volatile, or the compiler would load it
    // in three parts.
    let source = unsafe { read_volatile(addr_of!(way.source_mac).cast::<u64>()) };
    write_mac_words(cursor, next_hop.0, source)
}

/// Reads them into words, whose first bytes are lowest: destination and source.
#[inline(always)]
pub fn read_mac_words(cursor: &CursorMut<'_>) -> Option<(u64, u64)> {
    let (first, last): (u64, u32) = (cursor.read(0)?, cursor.read(8)?);
    Some((first << 16 >> 16, (first >> 48) | (u64::from(last) << 16)))
}

/// Writes them from words, whose first bytes are lowest and whose upper two are none of theirs.
#[inline(always)]
pub fn write_mac_words(cursor: &mut CursorMut<'_>, destination: u64, source: u64) -> Result<(), DropReason> {
    let destination = destination << 16 >> 16;
    cursor.write(0, (destination | (source << 48)).to_le()).ok_or(DropReason::TruncatedHeader)?;
    cursor.write(8, ((source >> 16) as u32).to_le()).ok_or(DropReason::TruncatedHeader)?;
    Ok(())
}
