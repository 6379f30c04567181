//! ICMP of a fuzz run: echo, and errors about packets that went by before.

use std::net::IpAddr;

use fastrand::Rng;

use super::fixture::{self, Family, Host};
use super::frame::{Packet, l3_of};
use super::message::Message;
use super::modes::{self, Mode};
use super::world::World;

/// About a packet that a client sent: the error that its reply, which never was here, would cause.
pub(super) fn about_the_reply(rng: &mut Rng, packet: &Packet) -> Message {
    let mut reply = packet.clone();
    std::mem::swap(&mut reply.source, &mut reply.destination);
    std::mem::swap(&mut reply.source_port, &mut reply.destination_port);
    about(rng, &reply.ip())
}

/// About a frame that left.
pub(super) fn about_frame(rng: &mut Rng, frame: &[u8]) -> Option<Message> {
    let l3 = l3_of(frame)?;
    Some(about(rng, &frame[l3..]))
}

/// About an IP packet, of which a part is quoted: from its destination or a router, to its source.
fn about(rng: &mut Rng, packet: &[u8]) -> Message {
    let (source, destination, header_len) = match packet[0] >> 4 {
        4 => (v4(&packet[12..16]), v4(&packet[16..20]), usize::from(packet[0] & 0xf) * 4),
        _ => (v6(&packet[8..24]), v6(&packet[24..40]), 40),
    };
    let from = if rng.bool() { destination } else { router(source) };
    let most = if source.is_ipv4() { 548 } else { 1232 };
    let len = match rng.u8(..8) {
        0..=2 => header_len + 8,
        3 => header_len + rng.usize(..64),
        // Through a tunnel.
        4 => header_len + 28 + rng.usize(..24),
        5 => rng.usize(..packet.len() + 1),
        _ => most,
    };
    let mut quoted = packet[..len.min(most).min(packet.len())].to_vec();
    if rng.u8(..4) == 0 && quoted.len() > 8 {
        let ttl = if source.is_ipv4() { 8 } else { 7 };
        quoted[ttl] = rng.u8(..);
    }
    let kinds: &[u8] = if source.is_ipv4() {
        &[3, 3, 3, 11, 11, 12, 4, 5, 0, 13]
    } else {
        &[1, 1, 2, 2, 3, 4, 0, 5, 137, 129]
    };
    let kind =
        kinds[if rng.u8(..8) == 0 { rng.usize(..kinds.len()) } else { rng.usize(..6.min(kinds.len() - 4)) }];
    let code = if kind == 3 && source.is_ipv4() && rng.bool() { 4 } else { rng.u8(..6) };
    // Seldom it goes to somebody who did not send what is quoted.
    let to = if rng.u8(..32) == 0 { router(source) } else { source };
    let mut message = Message::new(from, to, (kind, code), quoted);
    let mtu: u32 = match rng.u8(..4) {
        0 => rng.u32(..),
        1 => rng.u32(..70),
        _ => 1280 + rng.u32(..300),
    };
    message.rest = mtu.to_be_bytes();
    message
}

fn router(of: IpAddr) -> IpAddr {
    fixture::client(if of.is_ipv4() { Family::V4 } else { Family::V6 }, 0xfffe)
}

/// A request or a reply, to a VIP or somebody else, from somebody or nobody.
pub(super) fn echo(rng: &mut Rng) -> Message {
    let family = if rng.bool() { Family::V4 } else { Family::V6 };
    let hosts = [Host::Vip, Host::Vip, Host::TcpOnly, Host::EveryPort, Host::NotVip];
    let to = hosts[rng.usize(..hosts.len())].address(family);
    let from = match rng.u8(..8) {
        0 => nobody(rng, family),
        _ => fixture::client(family, rng.u16(..8)),
    };
    let mut echo = Message::echo(from, to, rng.u16(..), rng.u8(..8) == 0);
    if rng.u8(..16) == 0 {
        echo.code = rng.u8(..);
    }
    if rng.u8(..8) == 0 {
        echo.kind = rng.u8(..);
    }
    let len = rng.usize(..80);
    echo.body = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
    echo
}

/// An address that is no single host's, or just beside one that isn't.
pub(super) fn nobody(rng: &mut Rng, family: Family) -> IpAddr {
    match family {
        Family::V4 => {
            let firsts = [0, 1, 126, 127, 128, 223, 224, 239, 240, 255];
            let first = firsts[rng.usize(..firsts.len())];
            IpAddr::from([first, rng.u8(..), rng.u8(..), rng.u8(..)])
        }
        Family::V6 => {
            let firsts: [u16; 5] = [0, 0, 0xff02, 0xfeff, 0xffff];
            let first = firsts[rng.usize(..firsts.len())];
            IpAddr::from([first, 0, 0, 0, 0, 0, 0, rng.u16(..3)])
        }
    }
}

/// A reply of a flow through NAT, or a packet of its client.
pub(super) fn of_nat(rng: &mut Rng, world: &World, from_backend: bool) -> Option<Packet> {
    let replies = &world.state.nat.replies;
    if replies.is_empty() {
        return None;
    }
    let (key, reply) = replies.iter().nth(rng.usize(..replies.len()))?;
    let (source, destination) = if from_backend {
        ((key.backend, key.backend_port), (key.our_address, key.our_port))
    } else {
        ((reply.client, reply.client_port), (reply.vip, reply.vip_port))
    };
    Some(Packet::new(key.protocol, source, destination))
}

/// An own port of the load balancer that may have no flow.
pub(super) fn stray_reply(rng: &mut Rng, family: Family, packet: &mut Packet) {
    let mode = Mode::ALL[rng.usize(..Mode::ALL.len())];
    packet.source = mode.backend_address(family, packet.protocol, rng.u32(..3));
    packet.source_port = mode.backend_port();
    let ours = modes::pool().addresses;
    let ours: Vec<_> =
        ours.into_iter().filter(|address| address.is_ipv4() == packet.source.is_ipv4()).collect();
    packet.destination = ours[rng.usize(..ours.len())];
    packet.destination_port = 40_000 + rng.u16(..64);
}

fn v4(bytes: &[u8]) -> IpAddr {
    <[u8; 4]>::try_from(bytes).expect("four bytes").into()
}

fn v6(bytes: &[u8]) -> IpAddr {
    <[u8; 16]>::try_from(bytes).expect("sixteen bytes").into()
}
