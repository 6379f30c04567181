//! The RST that a segment to a service gets which rejects what comes: docs/packet-path.md, "Rejected packets".

use lb_common::abi::DropReason;

use super::effects::{Effects, Event};
use super::errors::can_be_told;
use super::headers::Headers;
use super::rewrite::seal;
use super::sums::checksum;
use super::work::{Verdict, Work, octets};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// What becomes of a segment that nobody takes.
pub(super) fn answer(work: &Work<'_>, headers: &Headers, effects: &mut Effects) -> Verdict {
    let segment = &work.frame.head()[headers.l4..];
    let flags = segment[13];
    if headers.fragment.is_some() || flags & RST != 0 || !can_be_told(headers.source) {
        return Verdict::Drop(DropReason::Rejected);
    }
    effects.events.push(Event::ResetSent);
    let number =
        |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
    let mut tcp = [&segment[2..4], &segment[..2]].concat();
    if flags & ACK != 0 {
        tcp.extend(number(8).to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend([0x50, RST]);
    } else {
        let there = headers.l3 + headers.ip_len - headers.l4;
        let data = there.saturating_sub(usize::from(segment[12] / 16) * 4) as u32;
        let places = [SYN, FIN].into_iter().filter(|flag| flags & flag != 0).count() as u32;
        tcp.extend([0; 4]);
        tcp.extend(number(4).wrapping_add(data).wrapping_add(places).to_be_bytes());
        tcp.extend([0x50, RST | ACK]);
    }
    // No window, the checksum's place, nothing urgent.
    tcp.extend([0; 6]);
    let (from, to) = (headers.destination, headers.source);
    let pseudo = [octets(from), octets(to), vec![0, 6, 0, 20]].concat();
    let sum = checksum(&[pseudo, tcp.clone()].concat());
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut ip = if from.is_ipv4() {
        vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]
    } else {
        vec![0x60, 0, 0, 0, 0, 20, 6, 64]
    };
    ip.extend(octets(from));
    ip.extend(octets(to));
    if from.is_ipv4() {
        seal(&mut ip);
    }
    let frame = work.frame.bytes;
    Verdict::Transmit([&frame[6..12], &frame[..6], &frame[12..headers.l3], &ip, &tcp].concat())
}
