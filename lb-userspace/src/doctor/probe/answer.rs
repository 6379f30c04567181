//! What comes back. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::{
    abi::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP},
    wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

use super::frame::ETHERTYPE_ARP;

/// A frame that may be an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Echo {
        from: IpAddr,
        to: IpAddr,
        id: u16,
        sequence: u16,
    },
    /// `accepts`: a SYN-ACK; else an RST.
    Segment {
        from: SocketAddr,
        to: SocketAddr,
        acknowledged: u32,
        accepts: bool,
    },
    /// An ICMP error about a packet to `about` with this token.
    Error {
        about: IpAddr,
        token: u16,
        why: Refusal,
    },
    /// This host says that it holds an address.
    Holder {
        address: IpAddr,
        mac: [u8; 6],
    },
}

/// Why a packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nobody there takes this protocol: no tunnel.
    Protocol,
    /// Nobody there listens on this port: no GUE.
    Port,
    TooBig,
    Other,
}

/// `None`: nothing of the kind.
pub(super) fn read(frame: &[u8]) -> Option<Told> {
    let kind = u16::from_be_bytes(array(frame, 12)?);
    let packet = frame.get(14..)?;
    match kind {
        ETHERTYPE_ARP => arp(packet),
        ETHERTYPE_IPV4 => {
            let (header, from, to) = ipv4(packet)?;
            let payload = packet.get(header..)?;
            match *packet.get(9)? {
                PROTOCOL_ICMP => icmp(payload, from.into(), to.into()),
                PROTOCOL_TCP => tcp(payload, from.into(), to.into()),
                _ => None,
            }
        }
        ETHERTYPE_IPV6 => {
            let (from, to) = ipv6(packet)?;
            let payload = packet.get(40..)?;
            match *packet.get(6)? {
                PROTOCOL_ICMPV6 => icmpv6(payload, from.into(), to.into(), array(frame, 6)?),
                PROTOCOL_TCP => tcp(payload, from.into(), to.into()),
                _ => None,
            }
        }
        _ => None,
    }
}

fn arp(packet: &[u8]) -> Option<Told> {
    let is_reply = array::<8>(packet, 0)? == [0, 1, 8, 0, 6, 4, 0, 2];
    let address = Ipv4Addr::from(array::<4>(packet, 14)?);
    is_reply.then_some(Told::Holder { address: address.into(), mac: array(packet, 8)? })
}

fn icmp(message: &[u8], from: IpAddr, to: IpAddr) -> Option<Told> {
    let why = match (message.first()?, message.get(1)?) {
        (0, _) => return echo(message, from, to),
        (3, 2) => Refusal::Protocol,
        (3, 3) => Refusal::Port,
        (3, 4) => Refusal::TooBig,
        (3 | 11, _) => Refusal::Other,
        _ => return None,
    };
    let quoted = message.get(8..)?;
    let (_, _, about) = ipv4(quoted)?;
    Some(Told::Error { about: about.into(), token: u16::from_be_bytes(array(quoted, 4)?), why })
}

fn icmpv6(message: &[u8], from: IpAddr, to: IpAddr, sender: [u8; 6]) -> Option<Told> {
    let why = match (message.first()?, message.get(1)?) {
        (129, _) => return echo(message, from, to),
        (136, _) => {
            let address = Ipv6Addr::from(array::<16>(message, 8)?);
            // The option "target link-layer address", or whoever sent it.
            let option = message.get(24..26).filter(|head| *head == [2, 1]);
            let mac = option.and_then(|_| array(message, 26)).unwrap_or(sender);
            return Some(Told::Holder { address: address.into(), mac });
        }
        (4, 1) => Refusal::Protocol,
        (1, 4) => Refusal::Port,
        (2, _) => Refusal::TooBig,
        (1 | 3 | 4, _) => Refusal::Other,
        _ => return None,
    };
    let quoted = message.get(8..)?;
    let (_, about) = ipv6(quoted)?;
    Some(Told::Error { about: about.into(), token: u16::from_be_bytes(array(quoted, 2)?), why })
}

fn echo(message: &[u8], from: IpAddr, to: IpAddr) -> Option<Told> {
    let (id, sequence) = (u16::from_be_bytes(array(message, 4)?), u16::from_be_bytes(array(message, 6)?));
    Some(Told::Echo { from, to, id, sequence })
}

fn tcp(segment: &[u8], from: IpAddr, to: IpAddr) -> Option<Told> {
    let port = |at| Some(u16::from_be_bytes(array(segment, at)?));
    // ACK, and SYN or RST.
    let accepts = match segment.get(13)? & 0x16 {
        0x12 => true,
        0x14 => false,
        _ => return None,
    };
    Some(Told::Segment {
        from: SocketAddr::new(from, port(0)?),
        to: SocketAddr::new(to, port(2)?),
        acknowledged: u32::from_be_bytes(array(segment, 8)?),
        accepts,
    })
}

/// Length of the header, source and destination.
fn ipv4(packet: &[u8]) -> Option<(usize, Ipv4Addr, Ipv4Addr)> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    let valid = first >> 4 == 4 && header >= 20;
    valid.then_some((header, array::<4>(packet, 12)?.into(), array::<4>(packet, 16)?.into()))
}

fn ipv6(packet: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let valid = packet.first()? >> 4 == 6;
    valid.then_some((array::<16>(packet, 8)?.into(), array::<16>(packet, 24)?.into()))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::{
        super::frame::{Path, Segment},
        *,
    };
    use crate::domain::Forwarding;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// The frame of a question, for others to answer.
    fn question(inner: &str, outer: Option<(&str, Forwarding)>) -> Vec<u8> {
        let outer = outer.map(|(address, forwarding)| (ip(address), ip(address), forwarding));
        let path = Path { interface: 1, from: [2; 6], to: [4; 6], outer };
        path.frame(0x1234, ip(inner), ip(inner), Segment::Echo { id: 9, sequence: 0x1234, size: 64 })
    }

    #[test]
    fn an_echo_reply_says_which_question_it_answers() {
        for (address, kind, reply) in [("10.0.0.9", 34, 0), ("fd00::9", 54, 129)] {
            let mut frame = question(address, None);
            assert_eq!(read(&frame), None, "a question is no answer");
            frame[kind] = reply;
            let (from, to) = (ip(address), ip(address));
            assert_eq!(read(&frame), Some(Told::Echo { from, to, id: 9, sequence: 0x1234 }));
            for length in 0..frame.len().min(60) {
                // Must not panic, whatever is cut off.
                read(&frame[..length]);
            }
        }
    }

    #[test]
    fn an_error_says_which_outer_packet_it_is_about() {
        for (outer, forwarding, (kind, code), why) in [
            ("10.0.0.9", Forwarding::Ipip, (3, 2), Refusal::Protocol),
            ("10.0.0.9", Forwarding::Gue, (3, 3), Refusal::Port),
            ("10.0.0.9", Forwarding::Ipip, (3, 4), Refusal::TooBig),
            ("10.0.0.9", Forwarding::Ipip, (11, 0), Refusal::Other),
            ("fd00::9", Forwarding::Ipip, (4, 1), Refusal::Protocol),
            ("fd00::9", Forwarding::Gue, (1, 4), Refusal::Port),
            ("fd00::9", Forwarding::Ipip, (2, 0), Refusal::TooBig),
        ] {
            let quoted = question("203.0.113.10", Some((outer, forwarding)));
            let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
            message.extend(&quoted[14..]);
            // Any packet around it will do.
            let mut frame = question(outer, None);
            frame.truncate(if ip(outer).is_ipv4() { 34 } else { 54 });
            frame.extend(message);
            assert_eq!(read(&frame), Some(Told::Error { about: ip(outer), token: 0x1234, why }));
        }
    }

    #[test]
    fn a_segment_accepts_or_refuses() {
        let path = Path { interface: 1, from: [2; 6], to: [4; 6], outer: None };
        let syn = Segment::Syn { from: 80, to: 4000, sequence: 5 };
        let mut frame = path.frame(1, ip("10.0.0.9"), ip("10.0.0.1"), syn);
        assert_eq!(read(&frame), None);
        frame[42..46].copy_from_slice(&77u32.to_be_bytes());
        for (flags, accepts) in [(0x12, true), (0x14, false)] {
            frame[47] = flags;
            let told = Told::Segment {
                from: "10.0.0.9:80".parse().expect("an address"),
                to: "10.0.0.1:4000".parse().expect("an address"),
                acknowledged: 77,
                accepts,
            };
            assert_eq!(read(&frame), Some(told));
        }
    }

    #[test]
    fn who_holds_an_address_says_so() {
        let mut reply = super::super::frame::arp_probe([2; 6], Ipv4Addr::new(203, 0, 113, 10));
        assert_eq!(read(&reply), None, "a request is no answer");
        reply[21] = 2;
        reply[28..32].copy_from_slice(&[203, 0, 113, 10]);
        let told = Told::Holder { address: ip("203.0.113.10"), mac: [2; 6] };
        assert_eq!(read(&reply), Some(told));

        let mut advert = super::super::frame::neighbour_probe([2; 6], "fd00::9".parse().expect("an address"));
        assert_eq!(read(&advert), None, "a solicitation is no answer");
        advert[54] = 136;
        assert_eq!(read(&advert), Some(Told::Holder { address: ip("fd00::9"), mac: [2; 6] }));
        advert.extend([2, 1, 6, 6, 6, 6, 6, 6]);
        assert_eq!(read(&advert), Some(Told::Holder { address: ip("fd00::9"), mac: [6; 6] }));
    }
}
