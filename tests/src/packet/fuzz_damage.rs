//! What is wrong with frames of a fuzz run.

use fastrand::Rng;

use super::fixture::OTHER_MAC;
use super::frame::BALANCER_MAC;

/// Does one thing to the frame and says what. Whatever was done before, this must not go out of its bounds.
pub(super) fn damage(rng: &mut Rng, (l3, l4): (usize, usize), frame: &mut Vec<u8>) -> String {
    let v4 = frame.get(l3).is_some_and(|byte| byte >> 4 == 4);
    let frame_len = frame.len();
    let mut set = |at: usize, bytes: &[u8]| {
        for (to, from) in frame.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    match rng.u8(..19) {
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
        15 => {
            set(l4 + 6, &[0, 0]);
            "no checksum, if it is UDP".into()
        }
        16 => {
            let mac = [0x02, 0xc1, 0x1e, 0x47, 0, rng.u8(..3)];
            set(6, &mac);
            "by another way".into()
        }
        17 => {
            let macs = [BALANCER_MAC, OTHER_MAC, [0; 6], [0xff; 6], [0x02, 0xba, 0x11, 0xa5, rng.u8(..), 0]];
            let mac = macs[rng.usize(..macs.len())];
            set(0, &mac);
            format!("to {mac:x?}")
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
