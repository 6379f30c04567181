//! The straight path of a flow that is known, of packets without tags, options and extension headers, so that every offset
//! is a constant: one look at the flow's entry, and out. What there is more to takes the way of the [`Journey`].
//!
//! [`Journey`]: crate::journey::Journey

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    programs::XdpContext,
};
use lb_common::{
    abi::{CHOSEN_NAT_FLOW, NAT_DEAD, PASSED_NO_FLOW, PROTOCOL_TCP},
    nat,
    wire::{
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        transport,
    },
};

use super::{
    entry::{FlowKey, ReplyKey, backend_address, swapped},
    leg::{self, Account, Leaving, Road},
    rewrite::{self, Endpoints},
    table::Place,
    way_back::WayBack,
};
use crate::{
    clock,
    cursor::Cursor,
    forward::encap::UNTAGGED,
    maps,
    parse::{self, Address, Transport, V4, V6},
    refusal::{self, Outcome},
    trace,
};

/// Sends a packet without tags to the backend of its flow. `None`: there is more to it; nothing has been done.
#[inline(always)]
pub fn forward<A: Address>(ctx: &XdpContext, service: u32) -> Option<Outcome> {
    // SAFETY: a live context.
    from_word(unsafe {
        if A::VERSION == 4 {
            ballast_nat_straight_v4(ctx.ctx, service)
        } else {
            ballast_nat_straight_v6(ctx.ctx, service)
        }
    })
}

/// Sends a packet without tags to the client that its flow's entry names, or passes it. `None`: as above.
#[inline(always)]
pub fn reply<A: Address>(ctx: &XdpContext) -> Option<Outcome> {
    // SAFETY: a live context.
    from_word(unsafe {
        if A::VERSION == 4 { ballast_nat_back_v4(ctx.ctx) } else { ballast_nat_back_v6(ctx.ctx) }
    })
}

/// In the place of an outcome: there is more to this packet.
const MORE: u64 = u64::MAX;

#[inline(always)]
fn from_word(word: u64) -> Option<Outcome> {
    (word != MORE).then(|| refusal::from_word(word))
}

#[inline(always)]
fn to_word(outcome: Option<Outcome>) -> u64 {
    outcome.map_or(MORE, refusal::to_word)
}

/// [`forward`] for the verifier.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_straight_v4(ctx: *mut xdp_md, service: u32) -> u64 {
    to_word(forward_known::<V4>(&mut XdpContext::new(ctx), service))
}

/// As [`ballast_nat_straight_v4`].
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_straight_v6(ctx: *mut xdp_md, service: u32) -> u64 {
    to_word(forward_known::<V6>(&mut XdpContext::new(ctx), service))
}

/// [`reply`] for the verifier.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_back_v4(ctx: *mut xdp_md) -> u64 {
    to_word(reply_known::<V4>(&mut XdpContext::new(ctx)))
}

/// As [`ballast_nat_back_v4`].
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_back_v6(ctx: *mut xdp_md) -> u64 {
    to_word(reply_known::<V6>(&mut XdpContext::new(ctx)))
}

#[inline(always)]
fn forward_known<A: Address>(ctx: &mut XdpContext, service: u32) -> Option<Outcome> {
    let head = Head::read::<A>(&Cursor::new(&*ctx))?;
    if head.ttl <= 1 || transport::opens_connection(head.tcp_flags) {
        return None;
    }
    let at = Place::of_flow(&FlowKey { client: head.source, ports: head.ports, service })?;
    let flow = at.read_flow();
    if flow.seen.has(NAT_DEAD) || flow.came_by != WayBack::of(ctx).ok()?.came_by() {
        return None;
    }
    let backend = maps::BACKENDS.get(flow.backend)?;
    leg::takes(backend, service).ok()?;
    if !at.stamp(flow.seen, nat::client_sent(flow.seen, head.tcp_flags, clock::now())) {
        return None;
    }
    trace::note(|trace| {
        trace.service(service);
        trace.backend(flow.backend, CHOSEN_NAT_FLOW);
    });
    let new = Endpoints {
        source: &flow.our_address,
        destination: backend_address(backend),
        ports: swapped(flow.reply_ports),
        identification: None,
    };
    let road = Road { service, index: flow.backend, backend, opens_flow: false };
    Some(leg::to_backend(ctx, &head, &road, |ctx| rewrite::plain::<A>(ctx, head.is_tcp, &new)))
}

#[inline(always)]
fn reply_known<A: Address>(ctx: &mut XdpContext) -> Option<Outcome> {
    let head = Head::read::<A>(&Cursor::new(&*ctx))?;
    let key = ReplyKey {
        backend: head.source,
        our_address: head.destination,
        ports: head.ports,
        protocol: head.protocol.into(),
    };
    let Some(at) = Place::of_reply(&key) else {
        trace::passed(PASSED_NO_FLOW);
        return Some(Ok(XDP_PASS));
    };
    let reply = at.read_reply();
    let account = Account { service: reply.service, backend: reply.backend };
    if reply.seen.has(NAT_DEAD) || leg::may_reply(&head, account).is_err() {
        return None;
    }
    if !at.stamp(reply.seen, nat::backend_sent(reply.seen, head.tcp_flags, clock::now())) {
        return None;
    }
    trace::reply(reply.service, reply.backend);
    let new = Endpoints {
        source: &reply.vip,
        destination: &reply.client,
        ports: reply.ports,
        identification: None,
    };
    let way = WayBack::in_reply(&reply);
    Some(leg::to_client(ctx, &head, account, &way, |ctx| rewrite::plain::<A>(ctx, head.is_tcp, &new)))
}

/// What there is to know of a packet. Addresses as a service key has them.
struct Head {
    source: [u64; 2],
    destination: [u64; 2],
    ports: u32,
    total_len: u32,
    frame_len: u32,
    protocol: u8,
    is_tcp: bool,
    /// 0 for UDP.
    tcp_flags: u8,
    ttl: u8,
}

impl Head {
    /// `None`: of a packet with options, or that is not TCP or UDP in the frame's first buffer.
    #[inline(always)]
    fn read<A: Address>(cursor: &Cursor<'_>) -> Option<Self> {
        let (source, destination, protocol, ttl, total_len) = if A::VERSION == 4 {
            let header = Ipv4(cursor.at(UNTAGGED)?);
            if header.header_len() != ipv4::HEADER_LEN {
                return None;
            }
            let (source, destination) =
                (header.source().service_words(), header.destination().service_words());
            (source, destination, header.protocol(), header.ttl(), u32::from(header.total_len()))
        } else {
            let header = Ipv6(cursor.at(UNTAGGED)?);
            let total_len = ipv6::HEADER_LEN as u32 + u32::from(header.payload_len());
            (header.source(), header.destination(), header.next_header(), header.hop_limit(), total_len)
        };
        // Whoever calls has seen that the packet has the whole header.
        let Transport::Ports { ports, tcp_flags } =
            parse::read_transport(cursor, UNTAGGED + A::HEADER_LEN, usize::MAX, protocol)
        else {
            return None;
        };
        let (is_tcp, frame_len) = (protocol == PROTOCOL_TCP, cursor.first_len() as u32);
        Some(Self { source, destination, ports, total_len, frame_len, protocol, is_tcp, tcp_flags, ttl })
    }
}

impl Leaving for Head {
    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.ttl
    }

    #[inline(always)]
    fn total_len(&self) -> u32 {
        self.total_len
    }

    #[inline(always)]
    fn frame_len(&self) -> u32 {
        self.frame_len
    }
}
