//! `ipip`: the whole packet inside another IP header of the same family (RFC 2003, RFC 2473).
//!
//! The balancer forwards as a router does, so the inner TTL goes down by one; DSCP, ECN and "don't fragment" are
//! copied outwards. VLAN tags stay in front.

use aya_ebpf::{helpers::generated::bpf_xdp_adjust_head, programs::XdpContext};
use lb_common::{
    abi::{DropReason, EgressValue},
    wire::{
        ethernet::{HEADER_LEN, TAG_LEN},
        ipv4, ipv6, ne32, ne64,
    },
};

use super::write_macs;
use crate::{
    cursor::CursorMut,
    parse::{Address, Packet, V4, V6},
    refusal::Refusal,
    select::Selected,
};

/// How a packet of a family gets its outer header.
pub trait Tunnel: Address {
    /// `L3` is where the IP header starts, `KEPT` the length of tags and type.
    fn encapsulate<const L3: usize, const KEPT: usize>(
        ctx: &mut XdpContext,
        way: &EgressValue,
        packet: &Packet<Self>,
        selected: &Selected,
    ) -> Result<(), Refusal>;
}

#[inline(always)]
pub fn rewrite<A: Tunnel>(
    ctx: &mut XdpContext,
    way: &EgressValue,
    packet: &Packet<A>,
    selected: &Selected,
) -> Result<(), Refusal> {
    // One copy a number of tags, so that every offset behind it is a constant.
    match packet.l3 {
        UNTAGGED => A::encapsulate::<UNTAGGED, 2>(ctx, way, packet, selected),
        TAGGED => A::encapsulate::<TAGGED, 6>(ctx, way, packet, selected),
        _ => A::encapsulate::<QINQ, 10>(ctx, way, packet, selected),
    }
}

const UNTAGGED: usize = HEADER_LEN;
const TAGGED: usize = HEADER_LEN + TAG_LEN;
const QINQ: usize = HEADER_LEN + 2 * TAG_LEN;

/// Where the type, or the first tag, stands.
const TYPE: usize = 12;

impl Tunnel for V4 {
    #[inline(always)]
    fn encapsulate<const L3: usize, const KEPT: usize>(
        ctx: &mut XdpContext,
        way: &EgressValue,
        packet: &Packet<Self>,
        selected: &Selected,
    ) -> Result<(), Refusal> {
        check(packet.ttl, packet.total_len, ipv4::HEADER_LEN as u32, way.mtu)?;
        let mut cursor = CursorMut::new(ctx);
        ipv4::decrement_ttl(cursor.at(L3).ok_or(DropReason::TruncatedHeader)?);
        let outer = ipv4::outer_header(ipv4::Outer {
            traffic_class: packet.traffic_class,
            total_len: packet.total_len as u16 + ipv4::HEADER_LEN as u16,
            // Only a packet that may be fragmented needs one (RFC 6864 section 4.1), and then a fresh one a packet: the
            // client's own.
            identification: packet.identification,
            dont_fragment: packet.dont_fragment,
            source: ne32(&way.source, MAPPED),
            destination: ne32(&selected.backend.address, MAPPED),
        });
        let mut cursor = grow::<L3, KEPT, { ipv4::HEADER_LEN }>(ctx)?;
        write_macs(&mut cursor, way, selected.next_hop)?;
        Ok(cursor.write(L3, outer).ok_or(DropReason::TruncatedHeader)?)
    }
}

impl Tunnel for V6 {
    #[inline(always)]
    fn encapsulate<const L3: usize, const KEPT: usize>(
        ctx: &mut XdpContext,
        way: &EgressValue,
        packet: &Packet<Self>,
        selected: &Selected,
    ) -> Result<(), Refusal> {
        check(packet.ttl, packet.total_len, ipv6::HEADER_LEN as u32, way.mtu)?;
        let mut cursor = CursorMut::new(ctx);
        let [hop_limit] = cursor.at::<1>(L3 + HOP_LIMIT).ok_or(DropReason::TruncatedHeader)?;
        *hop_limit = packet.ttl - 1;
        let head = ipv6::outer_head(packet.traffic_class, selected.hash as u32, packet.total_len as u16);
        let mut cursor = grow::<L3, KEPT, { ipv6::HEADER_LEN }>(ctx)?;
        write_macs(&mut cursor, way, selected.next_hop)?;
        cursor.write(L3, head).ok_or(DropReason::TruncatedHeader)?;
        let addresses = [
            ne64(&way.source, 0),
            ne64(&way.source, 8),
            ne64(&selected.backend.address, 0),
            ne64(&selected.backend.address, 8),
        ];
        Ok(cursor.write(L3 + 8, addresses).ok_or(DropReason::TruncatedHeader)?)
    }
}

/// Where the IPv4 address stands in a mapped one.
const MAPPED: usize = 12;

/// Where the hop limit stands in an IPv6 header.
const HOP_LIMIT: usize = 7;

/// Whether a packet may be sent on: its TTL allows one more hop, and with its outer header it fits the link and a
/// 16-bit length.
#[inline(always)]
pub fn check(ttl: u8, total_len: u32, overhead: u32, mtu: u32) -> Result<(), Refusal> {
    let mtu = if mtu > u16::MAX as u32 { u16::MAX as u32 } else { mtu };
    if ttl <= 1 {
        Err(DropReason::TtlExpired.into())
    } else if total_len + overhead > mtu {
        Err(Refusal::too_big(mtu.saturating_sub(overhead)))
    } else {
        Ok(())
    }
}

/// Makes room for `OUTER` bytes before the IP header and moves tags and type to their new place. Neither MAC addresses
/// nor the room are written.
#[inline(always)]
fn grow<const L3: usize, const KEPT: usize, const OUTER: usize>(
    ctx: &mut XdpContext,
) -> Result<CursorMut<'_>, DropReason> {
    // SAFETY: a live context. No header reference exists: they borrow the context, which is borrowed mutably here.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(OUTER as i32)) } != 0 {
        return Err(DropReason::NoHeadroom);
    }
    let mut cursor = CursorMut::new(ctx);
    let kept: [u8; KEPT] = *cursor.at(OUTER + TYPE).ok_or(DropReason::TruncatedHeader)?;
    *cursor.at(TYPE).ok_or(DropReason::TruncatedHeader)? = kept;
    Ok(cursor)
}
