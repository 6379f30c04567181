//! ICMP messages.

use std::net::IpAddr;

use super::frame::{BALANCER_MAC, CLIENT_MAC, seal_v4};
use crate::model::checksum;

/// A well-formed frame with an ICMP message to be.
#[derive(Clone, Debug)]
pub struct Message {
    pub tags: Vec<[u8; 4]>,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub kind: u8,
    pub code: u8,
    /// The four bytes behind the checksum.
    pub rest: [u8; 4],
    pub body: Vec<u8>,
}

impl Message {
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, (kind, code): (u8, u8), body: Vec<u8>) -> Self {
        Self { tags: Vec::new(), source, destination, ttl: 57, kind, code, rest: [0; 4], body }
    }

    /// An echo request, or its reply.
    #[must_use]
    pub fn echo(source: IpAddr, destination: IpAddr, identifier: u16, is_reply: bool) -> Self {
        let kind = match (source.is_ipv4(), is_reply) {
            (true, false) => 8,
            (true, true) => 0,
            (false, false) => 128,
            (false, true) => 129,
        };
        let [high, low] = identifier.to_be_bytes();
        let rest = [high, low, 0, 7];
        Self { rest, ..Self::new(source, destination, (kind, 0), b"ballast, ballast".to_vec()) }
    }

    #[must_use]
    pub fn l3(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let ethertype = if self.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        let tags = self.tags.as_flattened();
        [&BALANCER_MAC[..], &CLIENT_MAC, tags, &ethertype, &self.ip()].concat()
    }

    /// From the IP header on.
    #[must_use]
    pub fn ip(&self) -> Vec<u8> {
        let icmp = self.icmp();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut ip = vec![0x45, 0xc0];
                ip.extend((20 + icmp.len() as u16).to_be_bytes());
                ip.extend([0x12, 0x34, 0, 0, self.ttl, 1, 0, 0]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                seal_v4(&mut ip);
                [ip, icmp].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut ip = vec![0x60, 0, 0, 0];
                ip.extend((icmp.len() as u16).to_be_bytes());
                ip.extend([58, self.ttl]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                [ip, icmp].concat()
            }
            _ => panic!("addresses of two families: {} and {}", self.source, self.destination),
        }
    }

    /// From its type on.
    #[must_use]
    pub fn icmp(&self) -> Vec<u8> {
        let mut icmp = vec![self.kind, self.code, 0, 0];
        icmp.extend(self.rest);
        icmp.extend(&self.body);
        let sum = match (self.source, self.destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut covered = [source.octets(), destination.octets()].concat();
                covered.extend((icmp.len() as u32).to_be_bytes());
                covered.extend([0, 0, 0, 58]);
                covered.extend(&icmp);
                checksum(&covered)
            }
            _ => checksum(&icmp),
        };
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        icmp
    }
}
