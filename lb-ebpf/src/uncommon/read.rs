//! Reading what the straight path left: whole headers, into this CPU's [`Journey`].

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::{
    abi::{DropReason, PROTOCOL_ANY, PROTOCOL_ICMP, PROTOCOL_ICMPV6},
    wire::{
        ethernet::ETHERTYPE_IPV4,
        extension,
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
    },
};

use super::walk::walk;
use crate::{
    cursor::Cursor,
    journey::{FRAGMENT_FIRST, FRAGMENT_LATER, FRAGMENT_NONE, Journey},
    parse::{self, Address as _, Transport},
};

/// What is behind a packet's IP headers.
pub enum Content {
    /// What is none of our business, whomever it is for.
    Nothing,
    /// TCP or UDP.
    Ports,
    /// Of a packet that is not in one piece.
    LaterFragment,
    Icmp,
    /// For the given reason; a packet like this is dropped if it is for a VIP of the journey's protocol, which is
    /// [`PROTOCOL_ANY`] where that is hidden.
    Unreadable(u32),
}

/// Reads the packet.
#[inline(always)]
pub fn content(ctx: &XdpContext, journey: &mut Journey) -> Content {
    let cursor = Cursor::new(ctx);
    let Some((l3, ethertype)) = parse::behind_tags(&cursor) else { return Content::Nothing };
    journey.l3 = l3 as u32;
    journey.ports = 0;
    journey.tcp_flags = 0;
    journey.fragment = FRAGMENT_NONE;
    journey.authenticated = 0;
    journey.observes = 0;
    // SAFETY: a live context.
    let word = unsafe {
        if ethertype == ETHERTYPE_IPV4 { ballast_read_v4(ctx.ctx) } else { ballast_read_v6(ctx.ctx) }
    };
    if word != PORTS {
        return Content::from_word(word);
    }
    // SAFETY: as above.
    Content::from_word(unsafe { ballast_read_ports(ctx.ctx) })
}

impl Content {
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        match word {
            NOTHING => Self::Nothing,
            PORTS => Self::Ports,
            LATER_FRAGMENT => Self::LaterFragment,
            ICMP => Self::Icmp,
            reason => Self::Unreadable(reason as u32),
        }
    }
}

/// A [`Content`] as a global function can return it: one of these, or a drop reason.
const NOTHING: u64 = 0x100;
const PORTS: u64 = 0x101;
const LATER_FRAGMENT: u64 = 0x102;
const ICMP: u64 = 0x103;

/// Reads an IPv4 header.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_read_v4(ctx: *mut xdp_md) -> u64 {
    let ctx = XdpContext::new(ctx);
    let Ok(journey) = Journey::of_this_cpu() else { return NOTHING };
    let (l3, cursor) = (journey.ip_at(), Cursor::new(&ctx));
    let Some(header) = cursor.at(l3).map(Ipv4) else { return NOTHING };
    let (header_len, total_len) = (header.header_len(), u32::from(header.total_len()));
    let protocol = header.protocol();
    journey.source = header.source().service_words();
    journey.destination = header.destination().service_words();
    journey.l4 = (l3 + header_len) as u32;
    journey.total_len = total_len;
    journey.frame_len = cursor.frame_len(journey.end() as usize) as u32;
    journey.identification = u32::from(header.identification().to_be());
    journey.dont_fragment = header.dont_fragment().into();
    journey.family = 4;
    journey.protocol = if protocol == PROTOCOL_ICMP { PROTOCOL_ANY } else { protocol };
    journey.traffic_class = header.traffic_class();
    journey.ttl = header.ttl();
    if header.is_fragment() {
        journey.fragment = if header.is_later_fragment() { FRAGMENT_LATER } else { FRAGMENT_FIRST };
    }
    if header_len < ipv4::HEADER_LEN || total_len < header_len as u32 {
        DropReason::BadIpHeader as u64
    } else if journey.end() > journey.frame_len {
        DropReason::TruncatedHeader as u64
    } else if protocol == PROTOCOL_ICMP {
        if header.is_fragment() { DropReason::Fragment as u64 } else { ICMP }
    } else if header.is_later_fragment() {
        LATER_FRAGMENT
    } else {
        PORTS
    }
}

/// Reads an IPv6 header, and those behind it.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_read_v6(ctx: *mut xdp_md) -> u64 {
    let ctx = XdpContext::new(ctx);
    let Ok(journey) = Journey::of_this_cpu() else { return NOTHING };
    let (l3, cursor) = (journey.ip_at(), Cursor::new(&ctx));
    let Some(header) = cursor.at(l3).map(Ipv6) else { return NOTHING };
    journey.source = header.source();
    journey.destination = header.destination();
    journey.l4 = (l3 + ipv6::HEADER_LEN) as u32;
    journey.total_len = ipv6::HEADER_LEN as u32 + u32::from(header.payload_len());
    journey.frame_len = cursor.frame_len(journey.end() as usize) as u32;
    journey.identification = 0;
    journey.dont_fragment = 0;
    journey.family = 6;
    journey.protocol = header.next_header();
    journey.traffic_class = header.traffic_class();
    journey.ttl = header.hop_limit();
    let refused = walk(&ctx);
    let next_header = journey.protocol;
    let is_icmp = next_header == PROTOCOL_ICMPV6;
    let is_balanced = parse::is_balanced(next_header);
    let is_hidden = refused.is_some() || extension::is_extension(next_header);
    if !is_balanced && !is_icmp && !is_hidden {
        return NOTHING;
    }
    if !is_balanced || is_hidden || journey.is_later_fragment() {
        journey.protocol = PROTOCOL_ANY;
    }
    if journey.end() > journey.frame_len {
        DropReason::TruncatedHeader as u64
    } else if let Some(reason) = refused {
        reason.into()
    } else if is_icmp {
        if journey.fragment != FRAGMENT_NONE { DropReason::Fragment as u64 } else { ICMP }
    } else if journey.is_later_fragment() {
        LATER_FRAGMENT
    } else {
        PORTS
    }
}

/// Reads the ports of a TCP or UDP packet.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_read_ports(ctx: *mut xdp_md) -> u64 {
    let ctx = XdpContext::new(ctx);
    let Ok(journey) = Journey::of_this_cpu() else { return NOTHING };
    let payload_len = journey.end().saturating_sub(journey.l4);
    let transport = parse::read_transport(
        &Cursor::new(&ctx),
        journey.transport_at(),
        payload_len as usize,
        journey.protocol,
    );
    match transport {
        Transport::Ports { ports, tcp_flags } => {
            journey.ports = ports;
            journey.tcp_flags = tcp_flags;
            PORTS
        }
        Transport::Unreadable(reason) => reason as u64,
    }
}
