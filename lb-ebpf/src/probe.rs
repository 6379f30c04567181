//! Health checks over the real path: packets of the host itself to a VIP, whose mark names a backend, are carried to it by
//! the same steps and from the same records as clients' packets. For tc's egress hook, as far as the host's routes to VIPs
//! lead; no flow is looked up or made, and nothing is counted. What comes here is stamped, for the daemon to know it from what
//! others took on the way.

use core::ptr::{addr_of, read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_ADJ_ROOM_FIXED_GSO, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{bpf_ktime_get_ns, bpf_redirect},
    macros::classifier,
    programs::TcContext,
};
use lb_common::{
    abi::{
        DropReason, EgressValue, FORWARDING_GUE, HASH_FLOW, NextHop, PROBE_TTL, PROTOCOL_ICMP,
        PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, SERVICE_IN_USE, STATE_IN_USE, probed_backend,
    },
    checksum::Change,
    wire::{
        ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        ne64,
        transport::{self, TCP_HEADER_LEN, UDP_HEADER_LEN},
    },
};

use crate::{
    cursor::{Cursor, CursorMut},
    forward::{
        carry::carry,
        encap::{HOP_LIMIT, Room, TYPE, UNTAGGED},
    },
    journey::Journey,
    maps,
    parse::Address as _,
    refusal::Refusal,
    select::Subject,
};

/// What is no probe goes on to the next filter as it came.
#[classifier]
pub fn ballast_probe(mut ctx: TcContext) -> i32 {
    // SAFETY: a live context.
    let (mark, here) = unsafe { ((*ctx.skb.skb).mark, (*ctx.skb.skb).ifindex) };
    let Some(backend) = probed_backend(mark) else { return TC_ACT_UNSPEC };
    match send(&mut ctx, backend) {
        Ok(Some(way)) => {
            // It may meet this program again on the other interface.
            ctx.set_mark(0);
            if way.ifindex == here {
                return TC_ACT_OK as i32;
            }
            // SAFETY: takes numbers.
            unsafe { bpf_redirect(way.ifindex, 0) as i32 }
        }
        Ok(None) => TC_ACT_UNSPEC,
        // As a client's packet would be.
        Err(_) => TC_ACT_SHOT as i32,
    }
}

/// Carries a probe of this backend; returns the way out. `None`: it is no probe, whatever its mark.
#[inline(always)]
fn send(ctx: &mut TcContext, index: u32) -> Result<Option<&'static EgressValue>, Refusal> {
    let Some(backend) = maps::BACKENDS.get(index) else { return Ok(None) };
    // SAFETY: both fields are aligned words of a live map entry. Volatile, because the controller changes them at any
    // time, each by one store.
    let (state, next_hop) = unsafe {
        (read_volatile(addr_of!(backend.state)), NextHop(read_volatile(addr_of!(backend.next_hop))))
    };
    let Some(service) = maps::SERVICES.get(backend.service) else { return Ok(None) };
    let journey = Journey::of_this_cpu()?;
    let Some(len) = read(ctx, journey) else { return Ok(None) };
    // Others may use marks like ours, but not for the VIP of that very backend.
    let vip = &service.key.address;
    let is_for_vip = journey.destination[0] == ne64(vip, 0) && journey.destination[1] == ne64(vip, 8);
    if state & STATE_IN_USE == 0 || service.flags & SERVICE_IN_USE == 0 || !is_for_vip {
        return Ok(None);
    }
    stamp(index);
    // Whether it takes flows is not asked: a backend that drains or is down is checked all the same.
    if next_hop.egress() == 0 {
        return Err(DropReason::NextHopUnresolved.into());
    }
    if journey.total_len + MAX_OVERHEAD > u32::from(u16::MAX) {
        return Err(DropReason::PacketTooBig.into());
    }
    journey.next_hop = next_hop.0;
    journey.backend = index;
    journey.service = backend.service;
    journey.forwarding = service.forwarding.into();
    let is_by_flow = service.forwarding == FORWARDING_GUE || service.hash_key == HASH_FLOW;
    journey.hash = if is_by_flow { Subject::flow_hash(&*journey) } else { Subject::source_hash(&*journey) };
    renew_ttl(ctx, journey).ok_or(DropReason::TruncatedHeader)?;
    carry(ctx, journey, len).map(Some)
}

/// Says that a probe of this backend came so far. What becomes of it from here on would become of its traffic, too.
#[inline(always)]
fn stamp(index: u32) {
    if let Some(stamp) = maps::PROBE_STAMPS.get_ptr_mut(index) {
        // SAFETY: an aligned word of a live map entry, stored as a whole. The helper takes nothing.
        unsafe { write_volatile(stamp, bpf_ktime_get_ns()) };
    }
}

/// What is to be known of the packet, and the length of the longest that it will be cut into. `None`: it is nothing that a
/// check sends.
#[inline(always)]
fn read(ctx: &TcContext, journey: &mut Journey) -> Option<u32> {
    let cursor = Cursor::new(ctx);
    let l4 = match u16::from_be_bytes(*cursor.at(TYPE)?) {
        ETHERTYPE_IPV4 => {
            let header = Ipv4(cursor.at(UNTAGGED)?);
            if header.header_len() != ipv4::HEADER_LEN || header.is_fragment() {
                return None;
            }
            journey.family = 4;
            journey.source = header.source().service_words();
            journey.destination = header.destination().service_words();
            journey.total_len = header.total_len().into();
            journey.traffic_class = header.traffic_class();
            journey.protocol = header.protocol();
            journey.identification = u32::from(header.identification().to_be());
            journey.dont_fragment = header.dont_fragment().into();
            UNTAGGED + ipv4::HEADER_LEN
        }
        ETHERTYPE_IPV6 => {
            let header = Ipv6(cursor.at(UNTAGGED)?);
            journey.family = 6;
            journey.source = header.source();
            journey.destination = header.destination();
            journey.total_len = u32::from(header.payload_len()) + ipv6::HEADER_LEN as u32;
            journey.traffic_class = header.traffic_class();
            journey.protocol = header.next_header();
            journey.identification = 0;
            journey.dont_fragment = 0;
            UNTAGGED + ipv6::HEADER_LEN
        }
        _ => return None,
    };
    journey.l3 = UNTAGGED as u32;
    journey.l4 = l4 as u32;
    journey.ttl = PROBE_TTL;
    let header_len = match journey.protocol {
        PROTOCOL_TCP => {
            let header = cursor.at::<TCP_HEADER_LEN>(l4)?;
            journey.ports = transport::ports(header);
            u32::from(header[DATA_OFFSET] >> 4) * 4
        }
        PROTOCOL_UDP => {
            journey.ports = transport::ports(cursor.at::<UDP_HEADER_LEN>(l4)?);
            UDP_HEADER_LEN as u32
        }
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => {
            journey.ports = 0;
            0
        }
        _ => return None,
    };
    // SAFETY: a live context.
    match unsafe { (*ctx.skb.skb).gso_size } {
        0 => Some(journey.total_len),
        payload => Some((l4 - UNTAGGED) as u32 + header_len + payload),
    }
}

/// Gives the packet the TTL of one that a client sent.
#[inline(always)]
fn renew_ttl(ctx: &mut TcContext, journey: &Journey) -> Option<()> {
    let mut cursor = CursorMut::new(ctx);
    if journey.family == 6 {
        *cursor.at(UNTAGGED + HOP_LIMIT)? = [PROBE_TTL];
        return Some(());
    }
    let old: u16 = cursor.read(UNTAGGED + TTL)?;
    let new = u16::from_ne_bytes([PROBE_TTL, journey.protocol]);
    let checksum: u16 = cursor.read(UNTAGGED + CHECKSUM)?;
    cursor.write(UNTAGGED + TTL, new)?;
    cursor.write(UNTAGGED + CHECKSUM, Change::NONE.word16(old, new).mend(checksum))
}

impl Room for TcContext {
    #[inline(always)]
    fn make_room(&mut self, len: usize, is_ipv6: bool) -> Result<CursorMut<'_>, DropReason> {
        let (family, header_len) = if is_ipv6 {
            (BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, ipv6::HEADER_LEN)
        } else {
            (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, ipv4::HEADER_LEN)
        };
        let udp = if len > header_len { BPF_F_ADJ_ROOM_ENCAP_L4_UDP } else { 0 };
        // The kernel learns what is inside and what outside, for what is left to be done when the frame is sent: to cut
        // large segments, and to write checksums. Segments stay as long as they are: checks choose them short enough.
        let flags = BPF_F_ADJ_ROOM_FIXED_GSO | family | udp;
        match self.adjust_room(len as i32, BPF_ADJ_ROOM_MAC, flags.into()) {
            Ok(()) => Ok(CursorMut::new(self)),
            Err(_) => Err(DropReason::NoHeadroom),
        }
    }
}

/// Where things stand in an IPv4 header, and in TCP's.
const TTL: usize = 8;
const CHECKSUM: usize = 10;
const DATA_OFFSET: usize = 12;
/// IPv6 and UDP.
const MAX_OVERHEAD: u32 = 48;
