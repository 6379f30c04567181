//! `ipip`: the whole packet inside another IP header of the same family (RFC 2003, RFC 2473); `gue`: with a UDP header
//! between them. What is not so plain goes the way of [`carry`](super::carry).
//!
//! The balancer forwards as a router does, so the inner TTL goes down by one; DSCP, ECN and "don't fragment" are
//! copied outwards. VLAN tags stay in front.

use aya_ebpf::{helpers::generated::bpf_xdp_adjust_head, programs::XdpContext};
use lb_common::{
    abi::{BackendValue, DropReason, EgressValue, PROTOCOL_UDP},
    wire::{
        PROTOCOL_IPV4, PROTOCOL_IPV6, ethernet::HEADER_LEN, gue, ipv4, ipv6, ne32, ne64,
        transport::UDP_HEADER_LEN,
    },
};

use super::write_macs;
use crate::{
    cursor::{CursorMut, PacketData},
    parse::{Address, Packet, V4, V6},
    refusal::Refusal,
    select::Selected,
};

/// How a packet of a family gets its outer header.
pub trait Tunnel: Address {
    /// Of a packet without tags, so that every offset is a constant; one with tags goes the way of [`carry`](super::carry),
    /// because a copy for each number of tags is more than some kernels' verifiers have patience for.
    fn encapsulate<const GUE: bool>(
        ctx: &mut XdpContext,
        way: &EgressValue,
        packet: &Packet<Self>,
        selected: &Selected,
    ) -> Result<(), Refusal>;
}

/// Where the IP header of a packet without tags starts.
pub const UNTAGGED: usize = HEADER_LEN;

/// Where the type, or the first tag, stands.
pub const TYPE: usize = 12;

impl Tunnel for V4 {
    #[inline(always)]
    fn encapsulate<const GUE: bool>(
        ctx: &mut XdpContext,
        way: &EgressValue,
        packet: &Packet<Self>,
        selected: &Selected,
    ) -> Result<(), Refusal> {
        let overhead = ipv4::HEADER_LEN + if GUE { UDP_HEADER_LEN } else { 0 };
        check(packet.ttl, packet.total_len, overhead as u32, way.mtu)?;
        let mut cursor = CursorMut::new(ctx);
        ipv4::decrement_ttl(cursor.at(UNTAGGED).ok_or(DropReason::TruncatedHeader)?);
        let outer = ipv4::outer_header(ipv4::Outer {
            traffic_class: packet.traffic_class,
            total_len: packet.total_len as u16 + overhead as u16,
            // Only a packet that may be fragmented needs one (RFC 6864 section 4.1), and then a fresh one a packet: the
            // client's own.
            identification: packet.identification,
            dont_fragment: packet.dont_fragment,
            protocol: if GUE { PROTOCOL_UDP } else { PROTOCOL_IPV4 },
            source: ne32(&way.source, MAPPED),
            destination: ne32(&selected.backend.address, MAPPED),
        });
        let mut cursor = grow(ctx, overhead)?;
        write_macs(&mut cursor, way, selected.next_hop)?;
        cursor.write(UNTAGGED, outer).ok_or(DropReason::TruncatedHeader)?;
        if GUE {
            write_udp(&mut cursor, UNTAGGED + ipv4::HEADER_LEN, selected.hash, packet.total_len)?;
        }
        Ok(())
    }
}

impl Tunnel for V6 {
    #[inline(always)]
    fn encapsulate<const GUE: bool>(
        ctx: &mut XdpContext,
        way: &EgressValue,
        packet: &Packet<Self>,
        selected: &Selected,
    ) -> Result<(), Refusal> {
        let overhead = ipv6::HEADER_LEN + if GUE { UDP_HEADER_LEN } else { 0 };
        check(packet.ttl, packet.total_len, overhead as u32, way.mtu)?;
        let mut cursor = CursorMut::new(ctx);
        let [hop_limit] = cursor.at::<1>(UNTAGGED + HOP_LIMIT).ok_or(DropReason::TruncatedHeader)?;
        *hop_limit = packet.ttl - 1;
        let (payload_len, next_header) = if GUE {
            (packet.total_len + UDP_HEADER_LEN as u32, PROTOCOL_UDP)
        } else {
            (packet.total_len, PROTOCOL_IPV6)
        };
        let head =
            ipv6::outer_head(packet.traffic_class, selected.hash as u32, payload_len as u16, next_header);
        let mut cursor = grow(ctx, overhead)?;
        write_macs(&mut cursor, way, selected.next_hop)?;
        write_ipv6(&mut cursor, UNTAGGED, head, way, selected.backend)?;
        if GUE {
            write_udp(&mut cursor, UNTAGGED + ipv6::HEADER_LEN, selected.hash, packet.total_len)?;
        }
        Ok(())
    }
}

/// Writes an outer IPv6 header at `l3`.
#[inline(always)]
pub fn write_ipv6(
    cursor: &mut CursorMut<'_>,
    l3: usize,
    head: u64,
    way: &EgressValue,
    backend: &BackendValue,
) -> Result<(), DropReason> {
    cursor.write(l3, head).ok_or(DropReason::TruncatedHeader)?;
    let addresses =
        [ne64(&way.source, 0), ne64(&way.source, 8), ne64(&backend.address, 0), ne64(&backend.address, 8)];
    cursor.write(l3 + 8, addresses).ok_or(DropReason::TruncatedHeader)
}

/// Writes the UDP header of `gue` around a packet of `inner_len` bytes.
#[inline(always)]
pub fn write_udp(
    cursor: &mut CursorMut<'_>,
    at: usize,
    flow_hash: u64,
    inner_len: u32,
) -> Result<(), DropReason> {
    cursor.write(at, gue::udp_header(flow_hash as u32, inner_len as u16)).ok_or(DropReason::TruncatedHeader)
}

/// Where the IPv4 address stands in a mapped one.
pub const MAPPED: usize = 12;

/// Where the hop limit stands in an IPv6 header.
pub const HOP_LIMIT: usize = 7;

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

/// Makes room for `overhead` bytes before the IP header and moves the type to its new place. Neither MAC addresses nor the
/// room are written.
#[inline(always)]
fn grow(ctx: &mut XdpContext, overhead: usize) -> Result<CursorMut<'_>, DropReason> {
    let mut cursor = make_room(ctx, overhead)?;
    let kept: [u8; 2] = *cursor.at(overhead + TYPE).ok_or(DropReason::TruncatedHeader)?;
    *cursor.at(TYPE).ok_or(DropReason::TruncatedHeader)? = kept;
    Ok(cursor)
}

/// Makes room before the frame; what it holds is not the frame's.
#[inline(always)]
fn make_room(ctx: &mut XdpContext, len: usize) -> Result<CursorMut<'_>, DropReason> {
    // SAFETY: a live context. No header reference exists: they borrow the context, which is borrowed mutably here.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(len as i32)) } != 0 {
        return Err(DropReason::NoHeadroom);
    }
    Ok(CursorMut::new(ctx))
}

/// A frame that an outer header can be put into, XDP's or the host's own on its way out.
pub trait Room: PacketData {
    /// Makes `len` bytes of room for an outer IP header of the family, with UDP's behind it if there is so much of it.
    /// The IP header, and VLAN tags where the frame may have any, are that much further on then; what is before them is
    /// the caller's to write.
    fn make_room(&mut self, len: usize, is_ipv6: bool) -> Result<CursorMut<'_>, DropReason>;
}

impl Room for XdpContext {
    #[inline(always)]
    fn make_room(&mut self, len: usize, _is_ipv6: bool) -> Result<CursorMut<'_>, DropReason> {
        make_room(self, len)
    }
}
