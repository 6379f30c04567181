//! Rewriting off the straight path, for what needs no copy of its own: tunnels of mixed families, tunnels for packets
//! with VLAN tags, and packets with extension headers or in fragments.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::{
    bindings::{xdp_action::XDP_TX, xdp_md},
    programs::XdpContext,
};
use lb_common::{
    abi::{
        DropReason, EgressValue, FORWARDING_GUE, FORWARDING_IPIP, FORWARDING_L2_DSR, PROTOCOL_UDP,
        STATE_IPV6, ServiceEntry,
    },
    wire::{
        PROTOCOL_IPV4, PROTOCOL_IPV6,
        ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, TAG_LEN},
        ipv4, ipv6, ne32, ne64,
        transport::UDP_HEADER_LEN,
    },
};

use super::{
    encap::{self, Room},
    l2_dsr, write_macs,
};
use crate::{
    cursor::CursorMut,
    journey::Journey,
    maps,
    parse::{Address, Packet},
    refusal::{self, Refusal},
    select::Selected,
};

/// Rewrites the packet as its service says.
#[inline(always)]
pub fn rewrite<A: Address>(
    ctx: &mut XdpContext,
    service: &ServiceEntry,
    packet: &Packet<A>,
    selected: &Selected,
) -> Result<(), Refusal> {
    Journey::start(packet)?.to(selected, service.service, service.forwarding);
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_carry(ctx.ctx) }).map(|_| ())
}

/// Rewrites the packet as this CPU's [`Journey`] says. A global function: verified once.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_carry(ctx: *mut xdp_md) -> u64 {
    let mut ctx = XdpContext::new(ctx);
    let carried = Journey::of_this_cpu()
        .map_err(Refusal::from)
        .and_then(|journey| carry(&mut ctx, journey, journey.total_len));
    refusal::to_word(carried.map(|_| XDP_TX))
}

/// Rewrites the packet; returns the way out. `len`: of the packet, or of the longest that it will be cut into.
#[inline(always)]
pub fn carry(ctx: &mut impl Room, journey: &Journey, len: u32) -> Result<&'static EgressValue, Refusal> {
    let way = maps::EGRESS.get(journey.next_hop().egress()).ok_or(DropReason::BadMapEntry)?;
    match journey.forwarding as u8 {
        FORWARDING_L2_DSR => l2_dsr::rewrite(ctx, way, len, journey.next_hop())?,
        FORWARDING_IPIP | FORWARDING_GUE => tunnel(ctx, way, journey, len)?,
        _ => return Err(DropReason::BadMapEntry.into()),
    }
    Ok(way)
}

/// [`encap`] for any number of tags and both families, outside and inside.
#[inline(always)]
fn tunnel(ctx: &mut impl Room, way: &EgressValue, journey: &Journey, len: u32) -> Result<(), Refusal> {
    let backend = maps::BACKENDS.get(journey.backend).ok_or(DropReason::BadMapEntry)?;
    // SAFETY: an aligned field of a live map entry, which the controller changes by one store.
    let is_ipv6 = unsafe { read_volatile(addr_of!(backend.state)) } & STATE_IPV6 != 0;
    let is_gue = journey.forwarding as u8 == FORWARDING_GUE;
    let outer_len = if is_ipv6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
    let overhead = outer_len + if is_gue { UDP_HEADER_LEN } else { 0 };
    encap::check(journey.ttl, len, overhead as u32, way.mtu)?;

    let tags_len = ethernet::tags_len(journey.l3 as usize);
    let mut cursor = CursorMut::new(ctx).skip(tags_len);
    if journey.family == 4 {
        ipv4::decrement_ttl(cursor.at(encap::UNTAGGED).ok_or(DropReason::TruncatedHeader)?);
    } else {
        let at = encap::UNTAGGED + encap::HOP_LIMIT;
        let [hop_limit] = cursor.at::<1>(at).ok_or(DropReason::TruncatedHeader)?;
        *hop_limit = journey.ttl - 1;
    }

    let mut cursor = ctx.make_room(overhead, is_ipv6)?;
    // As much as there may be of tags; what of it is not theirs will be written over.
    let tags = *cursor.at(overhead + encap::TYPE).ok_or(DropReason::TruncatedHeader)?;
    cursor.write(encap::TYPE, ne64::<{ 2 * TAG_LEN }>(&tags, 0)).ok_or(DropReason::TruncatedHeader)?;
    write_macs(&mut cursor, way, journey.next_hop())?;
    let mut cursor = cursor.skip(tags_len);
    let protocol = match journey.family {
        _ if is_gue => PROTOCOL_UDP,
        4 => PROTOCOL_IPV4,
        _ => PROTOCOL_IPV6,
    };
    let ethertype = if is_ipv6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
    cursor.write(encap::TYPE, ethertype.to_be()).ok_or(DropReason::TruncatedHeader)?;
    if is_ipv6 {
        let payload_len = journey.total_len + (overhead - outer_len) as u32;
        let head = ipv6::outer_head(journey.traffic_class, journey.hash as u32, payload_len as u16, protocol);
        encap::write_ipv6(&mut cursor, encap::UNTAGGED, head, way, backend)?;
    } else {
        let (identification, dont_fragment) = if journey.family == 4 {
            (u16::from_be(journey.identification as u16), journey.dont_fragment as u16)
        } else {
            // Nobody on the way may fragment IPv6, so this needs no identification (RFC 6864 section 4.1).
            (0, ipv4::DONT_FRAGMENT)
        };
        let outer = ipv4::outer_header(ipv4::Outer {
            traffic_class: journey.traffic_class,
            total_len: journey.total_len as u16 + overhead as u16,
            identification,
            dont_fragment,
            protocol,
            source: ne32(&way.source, encap::MAPPED),
            destination: ne32(&backend.address, encap::MAPPED),
        });
        cursor.write(encap::UNTAGGED, outer).ok_or(DropReason::TruncatedHeader)?;
    }
    if is_gue {
        encap::write_udp(&mut cursor, encap::UNTAGGED + outer_len, journey.hash, journey.total_len)?;
    }
    Ok(())
}
