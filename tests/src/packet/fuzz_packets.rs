//! Well-formed packets of a fuzz run.

use fastrand::Rng;

use super::fixture::{self, Family, Host, Way};
use super::frame::{ACK, FIN, Packet, RST, SYN};
use super::fuzz_errors;
use super::modes::Mode;
use super::pieces::{self, Extension};
use super::tracked::{Algorithm, Tracked};
use crate::model::Protocol;

/// A packet to some service, or to none.
pub(super) fn seed(rng: &mut Rng) -> Packet {
    let family = if rng.bool() { Family::V4 } else { Family::V6 };
    let protocol = if rng.bool() { Protocol::Tcp } else { Protocol::Udp };
    let way = if rng.bool() { rng.usize(..4) } else { rng.usize(..Way::ALL.len() + 2) };
    let way = Way::ALL.get(way).copied().unwrap_or(Way::Rejects).port();
    // Most of them flows of a few clients, so that they are met again.
    let (host, port, source_port) = match rng.u8(..16) {
        0..=4 => {
            let mut tracked = Tracked::all();
            if rng.u8(..3) == 0 {
                // It has more ways than the others.
                tracked.retain(|tracked| tracked.algorithm == Algorithm::RoundRobin);
            }
            (Host::Vip, tracked[rng.usize(..tracked.len())].port(), rng.u16(..3))
        }
        5..=10 => {
            let mode = match rng.u8(..8) {
                0 => [Mode::Limited, Mode::NatLimited][rng.usize(..2)],
                1 | 2 => [Mode::Dnat, Mode::DnatTwin, Mode::Nat, Mode::NatTwin][rng.usize(..4)],
                _ => Mode::ALL[rng.usize(..Mode::ALL.len())],
            };
            (mode.host(), mode.port(), rng.u16(..4))
        }
        11 => (Host::NotVip, way, rng.u16(..8)),
        12 => (Host::EveryPort, [443, rng.u16(..)][rng.usize(..2)], rng.u16(..8)),
        13 => (Host::TcpOnly, way, rng.u16(..8)),
        14 => (Host::Vip, rng.u16(..), rng.u16(..8)),
        _ => (Host::Vip, way, rng.u16(..8)),
    };
    let client = fixture::client(family, rng.u16(..8));
    let mut packet = Packet::new(protocol, (client, source_port), (host.address(family), port));
    if rng.u8(..48) == 0 {
        fuzz_errors::stray_reply(rng, family, &mut packet);
    }
    if rng.u8(..64) == 0 {
        let family = if packet.source.is_ipv4() { Family::V4 } else { Family::V6 };
        packet.source = fuzz_errors::nobody(rng, family);
    }
    fill(rng, &mut packet);
    packet
}

/// Everything but addresses and ports.
pub(super) fn fill(rng: &mut Rng, packet: &mut Packet) {
    packet.tags = tags(rng);
    packet.traffic_class = rng.u8(..);
    packet.identification = rng.u16(..);
    packet.dont_fragment = rng.bool();
    packet.ttl = if rng.u8(..16) == 0 { rng.u8(..3) } else { rng.u8(..) };
    packet.tcp_flags = match rng.u8(..8) {
        0..=2 => SYN,
        3..=4 => ACK,
        5 => FIN | ACK,
        6 => RST,
        _ => rng.u8(..),
    };
    if packet.source.is_ipv4() && rng.u8(..4) == 0 {
        packet.options = vec![1; rng.usize(..=10) * 4];
    }
    let payload_len = match rng.u8(..32) {
        0 => rng.usize(..1600),
        1 | 2 => around_the_mtu(rng, packet),
        _ => rng.usize(..64),
    };
    packet.payload = std::iter::repeat_with(|| rng.u8(..)).take(payload_len).collect();
    packet.padding = if rng.u8(..4) == 0 { rng.usize(..30) } else { 0 };
}

pub(super) fn tags(rng: &mut Rng) -> Vec<[u8; 4]> {
    let any =
        Packet::new(Protocol::Udp, (fixture::client(Family::V4, 0), 0), (fixture::client(Family::V4, 0), 0));
    any.with_tags(rng.usize(..3)).tags
}

/// A payload with which the packet just fits or just doesn't fit a link once it has its outer header.
fn around_the_mtu(rng: &mut Rng, packet: &Packet) -> usize {
    let mtu = if rng.bool() { fixture::MTU } else { fixture::SMALL_MTU } as usize;
    let outer = [0, 20, 28, 40, 48][rng.usize(..5)];
    let headers = packet.l4() - packet.l3() + packet.protocol.header_len();
    mtu + rng.usize(..3) - 1 - outer - headers
}

/// A chain of IPv6 extension headers, mostly a friendly one.
pub(super) fn extensions(rng: &mut Rng) -> Vec<Extension> {
    let count = match rng.u8(..8) {
        0 => rng.usize(7..11),
        1 => rng.usize(3..7),
        _ => rng.usize(1..3),
    };
    std::iter::repeat_with(|| extension(rng)).take(count).collect()
}

fn extension(rng: &mut Rng) -> Extension {
    match rng.u8(..16) {
        0..=3 => Extension::options(pieces::HOP_BY_HOP, 1 + rng.u8(..2)),
        4..=8 => Extension::options(pieces::DESTINATION, 1 + rng.u8(..3)),
        9 => {
            Extension::options(pieces::DESTINATION, [20, 31, 32, 61, 62, 63, 64, 65][rng.usize(..8)].min(62))
        }
        10 => Extension::routing(0),
        11 => Extension::routing(rng.u8(..3)),
        12 => Extension::authentication(),
        // An atomic fragment, or one that isn't.
        13 => Extension::fragment(rng.u32(..4), 0, rng.u8(..4) == 0),
        14 => Extension::fragment(rng.u32(..4), rng.u16(..2), rng.bool()),
        _ => Extension::options(pieces::LIKE_OPTIONS[rng.usize(..3)], 1),
    }
}
