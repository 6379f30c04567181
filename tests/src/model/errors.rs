//! ICMP errors that are made: docs/packet-path.md, "Errors that are made".

use std::net::IpAddr;

use lb_common::abi::DropReason;

use super::effects::{Effects, Event};
use super::headers::{Content, Headers};
use super::icmp;
use super::reject;
use super::rewrite::seal;
use super::service::Protocol;
use super::sums::checksum;
use super::work::{Refusal, Verdict, Work, octets};

/// What a sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    TimeExceeded,
    /// With the size that would have fitted.
    TooBig(u32),
    Unreachable,
    PortUnreachable,
}

/// A CPU makes so many in a second.
const MOST_A_SECOND: u64 = 1000;
/// Bytes of the packet that they quote.
const MOST_QUOTED_V4: usize = 548;
const MOST_QUOTED_V6: usize = 1232;
/// What every link takes (RFC 8200 section 5).
const LEAST_MTU_V6: u32 = 1280;

/// The error that a refused packet's sender gets; where it gets none, the packet is dropped.
pub(super) fn answer(work: &Work<'_>, headers: &Headers, refusal: Refusal, effects: &mut Effects) -> Verdict {
    let (reason, message, event) = match refusal {
        Refusal::Drop(reason) => return Verdict::Drop(reason),
        Refusal::Expired => (DropReason::TtlExpired, Message::TimeExceeded, Event::TimeExceededSent),
        Refusal::Rejected if headers.protocol == Some(Protocol::Tcp) => {
            return reject::answer(work, headers, effects);
        }
        Refusal::Rejected => (DropReason::Rejected, Message::PortUnreachable, Event::PortUnreachableSent),
        Refusal::TooBig(mtu) => (DropReason::PacketTooBig, Message::TooBig(mtu), Event::TooBigSent),
    };
    let is_told = headers.content != Content::LaterFragment
        && !is_icmp_error(work, headers)
        && can_be_told(headers.source);
    if !is_told || !may_make_one(work, effects) {
        return Verdict::Drop(reason);
    }
    effects.events.push(event);
    let end = (headers.l3 + headers.ip_len).min(work.frame.first);
    let quote = &work.frame.head()[headers.l3..end];
    Verdict::Transmit(make(work, headers, headers.destination, headers.source, message, quote))
}

fn is_icmp_error(work: &Work<'_>, headers: &Headers) -> bool {
    let kind = work.frame.head().get(headers.l4);
    headers.content == Content::Icmp && kind.is_some_and(|&kind| icmp::is_error(headers.v4.is_some(), kind))
}

pub(super) fn may_make_one(work: &Work<'_>, effects: &mut Effects) -> bool {
    let now = work.state.now;
    let (second, made) = work.state.errors_made.get(&work.state.cpu).copied().unwrap_or_default();
    let made = if second == now { made } else { 0 };
    if made >= MOST_A_SECOND {
        effects.events.push(Event::ErrorLimited);
        return false;
    }
    effects.errors_made = Some((now, made + 1));
    true
}

/// Whether an address is a single host's.
pub(super) fn can_be_told(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(address) => !address.is_unspecified() && !address.is_loopback() && !address.is_multicast(),
    }
}

/// A frame with an error, back to where the frame on hand came from.
pub(super) fn make(
    work: &Work<'_>,
    headers: &Headers,
    from: IpAddr,
    to: IpAddr,
    message: Message,
    quote: &[u8],
) -> Vec<u8> {
    let is_v4 = from.is_ipv4();
    let most = if is_v4 { MOST_QUOTED_V4 } else { MOST_QUOTED_V6 };
    let quote = &quote[..quote.len().min(most) / 4 * 4];
    let (kind, code, rest) = match (is_v4, message) {
        (true, Message::TimeExceeded) => (11, 0, 0),
        // The field has 16 bits.
        (true, Message::TooBig(mtu)) => (3, 4, mtu.min(0xffff)),
        (true, Message::Unreachable) => (3, 1, 0),
        (true, Message::PortUnreachable) => (3, 3, 0),
        (false, Message::TimeExceeded) => (3, 0, 0),
        (false, Message::TooBig(mtu)) => (2, 0, mtu.max(LEAST_MTU_V6)),
        (false, Message::Unreachable) => (1, 3, 0),
        (false, Message::PortUnreachable) => (1, 4, 0),
    };
    let mut icmp = vec![kind, code, 0, 0];
    icmp.extend(u32::to_be_bytes(rest));
    icmp.extend(quote);
    let sum = checksum(&if is_v4 {
        icmp.clone()
    } else {
        [pseudo_header(from, to, icmp.len()), icmp.clone()].concat()
    });
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());

    let frame = work.frame.bytes;
    let (ethertype, ip) = if is_v4 {
        let mut ip = vec![0x45, 0];
        ip.extend((20 + icmp.len() as u16).to_be_bytes());
        // Identification, no flags; TTL, protocol, and the checksum's place.
        ip.extend([0, 0, 0, 0, 64, 1, 0, 0]);
        ip.extend(octets(from));
        ip.extend(octets(to));
        seal(&mut ip);
        ([0x08, 0x00], ip)
    } else {
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend((icmp.len() as u16).to_be_bytes());
        ip.extend([58, 64]);
        ip.extend(octets(from));
        ip.extend(octets(to));
        ([0x86, 0xdd], ip)
    };
    [&frame[6..12], &frame[..6], &frame[12..headers.l3 - 2], &ethertype, &ip, &icmp].concat()
}

fn pseudo_header(from: IpAddr, to: IpAddr, len: usize) -> Vec<u8> {
    [octets(from), octets(to), (len as u32).to_be_bytes().to_vec(), vec![0, 0, 0, 58]].concat()
}
