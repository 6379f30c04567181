//! Frames, built field by field with right lengths and checksums. What is wrong about a frame is done to its bytes.

use std::net::IpAddr;

use crate::model::{Protocol, checksum};

/// A well-formed frame to be.
#[derive(Clone, Debug)]
pub struct Packet {
    pub tags: Vec<[u8; 4]>,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub traffic_class: u8,
    /// IPv4.
    pub identification: u16,
    /// IPv4.
    pub dont_fragment: bool,
    /// IPv4: a multiple of four bytes, at most forty.
    pub options: Vec<u8>,
    pub ttl: u8,
    pub protocol: Protocol,
    pub source_port: u16,
    pub destination_port: u16,
    pub tcp_flags: u8,
    pub payload: Vec<u8>,
    /// Ethernet padding behind the IP packet.
    pub padding: usize,
}

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// Where frames in these tests come from and go to.
pub const CLIENT_MAC: [u8; 6] = [0x02, 0xc1, 0x1e, 0x47, 0, 1];
pub const BALANCER_MAC: [u8; 6] = [0x02, 0xba, 0x11, 0xa5, 0x70, 0];

impl Packet {
    /// A packet of an open connection, or a datagram. Both addresses are of one family.
    #[must_use]
    pub fn new(protocol: Protocol, source: (IpAddr, u16), destination: (IpAddr, u16)) -> Self {
        Self {
            tags: Vec::new(),
            source: source.0,
            destination: destination.0,
            traffic_class: 0,
            identification: 0x1c46,
            dont_fragment: true,
            options: Vec::new(),
            ttl: 57,
            protocol,
            source_port: source.1,
            destination_port: destination.1,
            tcp_flags: ACK,
            payload: b"the quick brown fox".to_vec(),
            padding: 0,
        }
    }

    /// With 0, 1 (802.1Q) or 2 (802.1ad) tags.
    #[must_use]
    pub fn with_tags(mut self, count: usize) -> Self {
        self.tags = match count {
            0 => vec![],
            1 => vec![[0x81, 0x00, 0xa0, 0x64]],
            _ => vec![[0x88, 0xa8, 0x00, 0x07], [0x81, 0x00, 0x60, 0x64]],
        };
        self
    }

    /// Where the IP header begins.
    #[must_use]
    pub fn l3(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Where the transport header begins.
    #[must_use]
    pub fn l4(&self) -> usize {
        self.l3() + if self.source.is_ipv4() { 20 + self.options.len() } else { 40 }
    }

    /// Everything before the IP header, with these MAC addresses.
    #[must_use]
    pub fn l2(&self, destination: [u8; 6], source: [u8; 6]) -> Vec<u8> {
        let ethertype = if self.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        [&destination[..], &source, self.tags.as_flattened(), &ethertype].concat()
    }

    /// From the IP header on, padding included.
    #[must_use]
    pub fn ip(&self) -> Vec<u8> {
        let transport = self.transport();
        let mut ip = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header_len = 20 + self.options.len();
                let mut header = vec![0x40 | (header_len / 4) as u8, self.traffic_class];
                header.extend(((header_len + transport.len()) as u16).to_be_bytes());
                header.extend(self.identification.to_be_bytes());
                header.extend(if self.dont_fragment { [0x40, 0] } else { [0, 0] });
                header.extend([self.ttl, self.protocol.number(), 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(&self.options);
                seal_v4(&mut header);
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let first = 0x6000_0000 | u32::from(self.traffic_class) << 20 | 0x1_2345;
                let mut header = first.to_be_bytes().to_vec();
                header.extend((transport.len() as u16).to_be_bytes());
                header.extend([self.protocol.number(), self.ttl]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            _ => panic!("addresses of two families: {} and {}", self.source, self.destination),
        };
        ip.extend(transport);
        ip.extend(std::iter::repeat_n(0xee, self.padding));
        ip
    }

    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        [self.l2(BALANCER_MAC, CLIENT_MAC), self.ip()].concat()
    }

    fn transport(&self) -> Vec<u8> {
        let mut header = [self.source_port.to_be_bytes(), self.destination_port.to_be_bytes()].concat();
        let sum_at = match self.protocol {
            Protocol::Tcp => {
                // Sequence and acknowledgement numbers; data offset, flags, window, checksum, urgent pointer.
                header.extend([0, 0, 0x10, 0x01, 0, 0, 0x20, 0x02]);
                header.extend([0x50, self.tcp_flags, 0xfa, 0xf0, 0, 0, 0, 0]);
                16
            }
            Protocol::Udp => {
                header.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                header.extend([0, 0]);
                6
            }
        };
        header.extend(&self.payload);
        let mut pseudo = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => [source.octets(), destination.octets()].concat(),
            (source, destination) => [source, destination].iter().flat_map(octets).collect(),
        };
        pseudo.extend([0, self.protocol.number()]);
        pseudo.extend((header.len() as u16).to_be_bytes());
        let sum = match (self.protocol, checksum(&[&pseudo[..], &header].concat())) {
            // 0 says that there is none (RFC 768).
            (Protocol::Udp, 0) => 0xffff,
            (_, sum) => sum,
        };
        header[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
        header
    }
}

/// Where the IP header of a frame begins, behind at most two tags.
#[must_use]
pub(super) fn l3_of(frame: &[u8]) -> Option<usize> {
    let mut l3 = 14;
    for _ in 0..2 {
        if [[0x81, 0x00], [0x88, 0xa8]].iter().any(|tag| frame.get(l3 - 2..l3) == Some(&tag[..])) {
            l3 += 4;
        }
    }
    frame.get(l3).map(|_| l3)
}

/// Writes an IPv4 header's checksum.
pub fn seal_v4(header: &mut [u8]) {
    header[10..12].copy_from_slice(&[0, 0]);
    let header_len = (usize::from(header[0] & 0xf) * 4).min(header.len());
    let sum = checksum(&header[..header_len]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A frame as text, sixteen bytes a line.
#[must_use]
pub fn hex(frame: &[u8]) -> String {
    let line = |(number, bytes): (usize, &[u8])| {
        let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("    {:04x}  {}", number * 16, bytes.join(" "))
    };
    frame.chunks(16).enumerate().map(line).collect::<Vec<_>>().join("\n")
}
