//! The errors that are made, as a library writes them.

use std::net::IpAddr;

use anyhow::{Result, bail};
use etherparse::icmpv4::{DestUnreachableHeader, TimeExceededCode as TimeExceededV4};
use etherparse::icmpv6::TimeExceededCode as TimeExceededV6;
use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header};

use super::frame::{BALANCER_MAC, CLIENT_MAC, Packet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    TimeExceeded,
    /// With the size that would have fitted.
    TooBig(u32),
}

/// What the sender of `packet`, which came as `frame`, is told. The frame has no headers that the packet doesn't know of.
pub fn frame(packet: &Packet, frame: &[u8], answer: Answer) -> Result<Vec<u8>> {
    let end = frame.len() - packet.padding;
    let quote = |most: usize| &frame[packet.l3()..packet.l3() + (end - packet.l3()).min(most) / 4 * 4];
    let ip = match (packet.destination, packet.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let quote = quote(548);
            let kind = match answer {
                Answer::TimeExceeded => Icmpv4Type::TimeExceeded(TimeExceededV4::TtlExceededInTransit),
                Answer::TooBig(mtu) => {
                    let next_hop_mtu = u16::try_from(mtu)?;
                    Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                        next_hop_mtu,
                    })
                }
            };
            let len = u16::try_from(8 + quote.len())?;
            let mut ip = Ipv4Header::new(len, 64, IpNumber::ICMP, from.octets(), to.octets())?;
            ip.dont_fragment = false;
            ip.header_checksum = ip.calc_header_checksum();
            let icmp = Icmpv4Header::with_checksum(kind, quote);
            [&ip.to_bytes()[..], &icmp.to_bytes(), quote].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let quote = quote(1232);
            let kind = match answer {
                Answer::TimeExceeded => Icmpv6Type::TimeExceeded(TimeExceededV6::HopLimitExceeded),
                Answer::TooBig(mtu) => Icmpv6Type::PacketTooBig { mtu: mtu.max(1280) },
            };
            let ip = Ipv6Header {
                payload_length: u16::try_from(8 + quote.len())?,
                next_header: IpNumber::IPV6_ICMP,
                hop_limit: 64,
                source: from.octets(),
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            let icmp = Icmpv6Header::with_checksum(kind, from.octets(), to.octets(), quote)?;
            [&ip.to_bytes()[..], &icmp.to_bytes(), quote].concat()
        }
        (from, to) => bail!("an answer from {from} to {to}"),
    };
    Ok([packet.l2(CLIENT_MAC, BALANCER_MAC), ip].concat())
}
