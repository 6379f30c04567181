//! Rewriting a packet for its backend, a file a forwarding mode.

mod encap;
mod l2_dsr;

use aya_ebpf::programs::XdpContext;
use lb_common::abi::{DropReason, EgressValue, FORWARDING_IPIP, FORWARDING_L2_DSR, NextHop, ServiceEntry};

use crate::{Forwarded, cursor::CursorMut, maps, parse::Packet, select::Selected};

/// Rewrites the packet as the service says. After an error the packet may be half rewritten and must be dropped.
#[inline(always)]
pub fn rewrite(
    ctx: &mut XdpContext,
    service: &ServiceEntry,
    packet: &Packet,
    selected: Selected,
) -> Result<Forwarded, DropReason> {
    let egress = selected.next_hop.egress();
    let way = maps::EGRESS.get(egress).ok_or(DropReason::BadMapEntry)?;
    match service.forwarding {
        FORWARDING_L2_DSR => l2_dsr::rewrite(ctx, way, selected.next_hop)?,
        FORWARDING_IPIP => encap::rewrite(ctx, way, packet, &selected)?,
        _ => return Err(DropReason::BadMapEntry),
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
fn write_macs(cursor: &mut CursorMut<'_>, way: &EgressValue, next_hop: NextHop) -> Result<(), DropReason> {
    let macs = cursor.at::<12>(0).ok_or(DropReason::TruncatedHeader)?;
    let [d0, d1, d2, d3, d4, d5] = next_hop.mac();
    let [s0, s1, s2, s3, s4, s5] = way.source_mac;
    *macs = [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5];
    Ok(())
}
