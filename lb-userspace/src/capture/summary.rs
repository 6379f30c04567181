use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

/// What a line about a packet says of its headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// `198.51.100.7:40000`, `[2001:db8::7]:40000`; without a port where there is none to read.
    pub from: Option<String>,
    pub to: Option<String>,
    /// `tcp`, `udp`, `icmp`, the number of another IP protocol, or else the EtherType, as `0x0806`.
    pub protocol: Option<String>,
    /// As `SA`; of TCP.
    pub tcp_flags: Option<String>,
}

impl Summary {
    /// Of a frame, which may be cut short.
    pub fn of(frame: &[u8]) -> Self {
        let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else { return Self::default() };
        let (source, destination, protocol) = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                let ends = (header.source_addr().into(), header.destination_addr().into());
                (ends.0, ends.1, ip.payload().ip_number)
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                let ends = (header.source_addr().into(), header.destination_addr().into());
                (ends.0, ends.1, ip.payload().ip_number)
            }
            _ => {
                let ether_type = packet.ether_payload().map(|payload| payload.ether_type.0);
                return Self { protocol: ether_type.map(|kind| format!("{kind:#06x}")), ..Self::default() };
            }
        };
        let (ports, tcp_flags) = match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                (Some((tcp.source_port(), tcp.destination_port())), Some(flags(tcp)))
            }
            Some(TransportSlice::Udp(udp)) => (Some((udp.source_port(), udp.destination_port())), None),
            _ => (None, None),
        };
        Self {
            from: Some(end(source, ports.map(|ports| ports.0))),
            to: Some(end(destination, ports.map(|ports| ports.1))),
            protocol: Some(match protocol.0 {
                1 | 58 => "icmp".to_owned(),
                6 => "tcp".to_owned(),
                17 => "udp".to_owned(),
                other => other.to_string(),
            }),
            tcp_flags,
        }
    }
}

fn end(address: std::net::IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

/// As tcpdump has them.
fn flags(tcp: &etherparse::TcpSlice<'_>) -> String {
    let flags = [
        (tcp.syn(), 'S'),
        (tcp.fin(), 'F'),
        (tcp.rst(), 'R'),
        (tcp.psh(), 'P'),
        (tcp.ack(), '.'),
        (tcp.urg(), 'U'),
    ];
    flags.into_iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect()
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn addresses_ports_and_flags_are_read_as_far_as_they_are_there() {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([198, 51, 100, 7], [203, 0, 113, 10], 64);
        let mut frame = Vec::new();
        builder.tcp(40_000, 80, 1, 1_000).syn().write(&mut frame, &[0; 40]).expect("a frame");
        let summary = Summary::of(&frame);
        assert_eq!(summary.from.as_deref(), Some("198.51.100.7:40000"));
        assert_eq!(summary.to.as_deref(), Some("203.0.113.10:80"));
        assert_eq!((summary.protocol.as_deref(), summary.tcp_flags.as_deref()), (Some("tcp"), Some("S")));
        // Cut off in the payload, in TCP's header, in IP's, and in Ethernet's.
        assert_eq!(Summary::of(&frame[..64]), summary);
        let without_ports = Summary::of(&frame[..40]);
        assert_eq!(without_ports.from.as_deref(), Some("198.51.100.7"));
        assert_eq!(without_ports.protocol.as_deref(), Some("tcp"));
        assert_eq!(Summary::of(&frame[..20]).from, None);
        assert_eq!(Summary::of(&frame[..10]), Summary::default());
    }

    #[test]
    fn udp_over_ipv6_and_what_is_not_ip_have_their_names() {
        let (from, to) = ([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], [0xfd; 16]);
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(from, to, 64).udp(5, 53);
        builder.write(&mut frame, &[]).expect("a frame");
        let summary = Summary::of(&frame);
        assert_eq!(summary.from.as_deref(), Some("[2001:db8::7]:5"));
        assert_eq!((summary.protocol.as_deref(), summary.tcp_flags), (Some("udp"), None));
        let arp = [[2; 12].as_slice(), &[8, 6], &[0; 46]].concat();
        assert_eq!(Summary::of(&arp).protocol.as_deref(), Some("0x0806"));
    }
}
