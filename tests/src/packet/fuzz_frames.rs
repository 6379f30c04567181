//! Frames of a fuzz run: well-formed ones, most of them damaged.

use fastrand::Rng;

use super::fixture::{self, Family, Host, Way};
use super::frame::{ACK, FIN, Packet, RST, SYN};
use super::tracked::Tracked;
use crate::model::Protocol;

/// A frame with its story.
pub(super) fn frame(rng: &mut Rng) -> (Vec<String>, Vec<u8>) {
    let packet = seed_packet(rng);
    let mut story = vec![format!(
        "{:?} {}:{} to {}:{}, {} tags, {} option bytes",
        packet.protocol,
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
        packet.tags.len(),
        packet.options.len()
    )];
    let mut frame = packet.build();
    // Most often nothing or one thing is wrong, seldom many things.
    let damages = match rng.u8(..) {
        0..=143 => 0,
        144..=207 => 1,
        208..=239 => 2,
        _ => rng.usize(3..8),
    };
    for _ in 0..damages {
        story.push(damage(rng, &packet, &mut frame));
    }
    (story, frame)
}

fn seed_packet(rng: &mut Rng) -> Packet {
    let family = if rng.bool() { Family::V4 } else { Family::V6 };
    let protocol = if rng.bool() { Protocol::Tcp } else { Protocol::Udp };
    let host = match rng.u8(..10) {
        0 => Host::NotVip,
        1 => Host::EveryPort,
        2 => Host::TcpOnly,
        _ => Host::Vip,
    };
    let port = match rng.u8(..16) {
        0 => rng.u16(..),
        1 => 443,
        // The four that forward.
        2..=8 => Way::ALL[rng.usize(..4)].port(),
        _ => Way::ALL[rng.usize(..Way::ALL.len())].port(),
    };
    // Half of them flows that are tracked one way or another, of a few clients, so that they are met again.
    let (host, port, source_port) = match rng.bool() {
        true => (Host::Vip, Tracked::all()[rng.usize(..Tracked::COUNT)].port(), rng.u16(..3)),
        false => (host, port, rng.u16(..8)),
    };
    let client = fixture::client(family, rng.u16(..8));
    let mut packet =
        Packet::new(protocol, (client, source_port), (host.address(family), port)).with_tags(rng.usize(..3));
    packet.traffic_class = rng.u8(..);
    packet.identification = rng.u16(..);
    packet.dont_fragment = rng.bool();
    packet.ttl = if rng.u8(..16) == 0 { rng.u8(..3) } else { rng.u8(..) };
    packet.tcp_flags = match rng.u8(..8) {
        0..=1 => SYN,
        2..=3 => ACK,
        4 => FIN | ACK,
        5 => RST,
        _ => rng.u8(..),
    };
    if family == Family::V4 && rng.u8(..4) == 0 {
        packet.options = vec![1; rng.usize(..=10) * 4];
    }
    let payload_len = match rng.u8(..32) {
        0 => rng.usize(..1600),
        1 | 2 => around_the_mtu(rng, &packet),
        _ => rng.usize(..64),
    };
    packet.payload = vec![0x5a; payload_len];
    packet.padding = if rng.u8(..4) == 0 { rng.usize(..30) } else { 0 };
    packet
}

/// A payload with which the packet just fits or just doesn't fit a link once it has its outer header.
fn around_the_mtu(rng: &mut Rng, packet: &Packet) -> usize {
    let mtu = if rng.bool() { fixture::MTU } else { fixture::SMALL_MTU } as usize;
    let outer = if packet.source.is_ipv4() { 20 } else { 40 };
    let headers = packet.l4() - packet.l3() + packet.protocol.header_len();
    mtu + rng.usize(..3) - 1 - outer - headers
}

/// Does one thing to the frame and says what. Whatever was done before, this must not go out of its bounds.
fn damage(rng: &mut Rng, packet: &Packet, frame: &mut Vec<u8>) -> String {
    let (l3, l4) = (packet.l3(), packet.l4());
    let v4 = packet.source.is_ipv4();
    let frame_len = frame.len();
    let mut set = |at: usize, bytes: &[u8]| {
        for (to, from) in frame.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    match rng.u8(..16) {
        0 => {
            // The kernel takes nothing shorter.
            let len = rng.usize(14..=frame.len().max(14));
            frame.truncate(len);
            format!("cut to {len} bytes")
        }
        1 => {
            let more = rng.usize(1..64);
            frame.extend(std::iter::repeat_with(|| rng.u8(..)).take(more));
            format!("{more} bytes appended")
        }
        2 => {
            let near = frame_len.saturating_sub(l3) as u16;
            let len =
                if rng.bool() { rng.u16(..) } else { near.wrapping_add(rng.u16(..80)).wrapping_sub(60) };
            set(l3 + if v4 { 2 } else { 4 }, &len.to_be_bytes());
            format!("IP length {len}")
        }
        3 => {
            let byte = rng.u8(..);
            set(l3, &[byte]);
            format!("first byte of the IP header {byte:#x}")
        }
        4 => {
            let ihl = 0x40 | rng.u8(..16);
            set(l3, &[if v4 { ihl } else { 0x60 | (ihl & 0xf) }]);
            format!("header length or class {ihl:#x}")
        }
        5 => {
            let flags = match rng.u8(..4) {
                0 => 0x2000,
                1 => rng.u16(..) & 0x1fff,
                2 => 0x8000,
                _ => rng.u16(..),
            };
            set(l3 + 6, &flags.to_be_bytes());
            format!("flags and offset (next header and hop limit of IPv6) {flags:#x}")
        }
        6 => {
            let numbers = [0, 1, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 139, 140, 253];
            let next = numbers[rng.usize(..numbers.len())];
            set(l3 + if v4 { 9 } else { 6 }, &[next]);
            format!("protocol {next}")
        }
        7 => {
            let ttl = rng.u8(..3);
            set(l3 + if v4 { 8 } else { 7 }, &[ttl]);
            format!("TTL {ttl}")
        }
        8 => {
            let types = [0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806, 0x9100, 0x0500, 0x8863];
            let ethertype: u16 = types[rng.usize(..types.len())];
            let at = 12 + 4 * rng.usize(..3);
            set(at, &ethertype.to_be_bytes());
            format!("type {ethertype:#x} at {at}")
        }
        9 => {
            let tag = if rng.bool() { [0x81, 0, 0, 5] } else { [0x88, 0xa8, 0, 6] };
            let at = 12.min(frame.len());
            frame.splice(at..at, tag);
            "one more tag".into()
        }
        10 => {
            let [high, low] = rng.u16(..).to_be_bytes();
            set(l3 + 10, &[high, low]);
            format!("bytes 10 and 11 of the IP header {high:#x} {low:#x}")
        }
        11 if !v4 => {
            let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 10];
            set(l3 + 24, &mapped);
            "destination the IPv4-mapped VIP".into()
        }
        11 | 12 => {
            let bytes = rng.u32(..).to_be_bytes();
            set(l4, &bytes);
            format!("ports {bytes:x?}")
        }
        13 => {
            let (at, byte) = (rng.usize(l3..l4 + 20), rng.u8(..));
            set(at, &[byte]);
            format!("byte {at} {byte:#x}")
        }
        14 => {
            let (at, bit) = (rng.usize(..frame.len()), rng.u8(..8));
            frame[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        _ => {
            let from = rng.usize(..frame.len());
            for byte in frame.iter_mut().skip(from) {
                *byte = rng.u8(..);
            }
            format!("noise from byte {from}")
        }
    }
}
