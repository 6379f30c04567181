//! The only conversions between the domain and the map ABI.

use std::{
    hash::Hasher as _,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use lb_common::abi::{
    self, ADMIN_ACTIVE, ADMIN_DISABLED, ADMIN_DRAINING, EgressValue, FORWARDING_DNAT, FORWARDING_GUE,
    FORWARDING_IPIP, FORWARDING_L2_DSR, FORWARDING_NAT, HASH_FLOW, HASH_SOURCE, HEALTH_HEALTHY,
    HEALTH_INELIGIBLE, HEALTH_UNHEALTHY, HEALTH_UNKNOWN, NAT_POOL_ADDRESSES, PROTOCOL_ANY, PROTOCOL_TCP,
    PROTOCOL_UDP, SELECT_HASH, SELECT_LEAST_CONNECTIONS, SELECT_ROUND_ROBIN, ServiceKey, TRACK_ALWAYS,
    TRACK_AUTO, TRACK_NEVER,
};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::{
    control::{Hop, OwnMacs},
    domain::{Admin, Algorithm, Forwarding, Health, Name, NatPool, Prefix, Protocol, Service, Tracking, Vip},
    peers::wire::ServiceId,
};

/// Identity of an object across restarts, kept in its record because numbers are not: a hash of what identifies it.
pub type StableId = [u8; 16];

pub fn service_id(name: &Name) -> StableId {
    digest(&[b"service", name.as_str().as_bytes()])
}

/// A backend under another address is another backend.
pub fn backend_id(service: &Name, backend: &Name, address: SocketAddr) -> StableId {
    let port = address.port().to_be_bytes();
    digest(&[
        b"backend",
        service.as_str().as_bytes(),
        backend.as_str().as_bytes(),
        &mapped(address.ip()),
        &port,
    ])
}

/// Identity of a backend whatever its address.
pub fn backend_name_id(service: &Name, backend: &Name) -> u64 {
    first_word(digest(&[b"name", service.as_str().as_bytes(), backend.as_str().as_bytes()]))
}

/// A backend of a service as load balancers name it to each other, whatever it is called and which index it has. Never 0.
pub fn peer_id(address: [u8; 16], port: [u8; 2]) -> u64 {
    first_word(digest(&[b"peer", &address, &port])) | 1
}

/// Hash over a lookup table by `fingerprint`, which tells tables of names apart, with what those names stand for, in their order.
pub fn peer_table(fingerprint: u64, backends: impl Iterator<Item = u64>) -> u64 {
    let words: Vec<u8> =
        std::iter::once(fingerprint).chain(backends).flat_map(|word| word.to_be_bytes()).collect();
    first_word(digest(&[b"peer table", &words]))
}

/// Hash over the lookup tables of services, given in the order of their identities.
pub fn peer_tables(tables: &[(ServiceId, u64)]) -> u64 {
    let parts: Vec<Vec<u8>> = tables
        .iter()
        .map(|(id, fingerprint)| {
            let mut part = id.address.to_vec();
            part.extend(id.port.to_be_bytes());
            part.push(id.protocol);
            part.extend(fingerprint.to_be_bytes());
            part
        })
        .collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    first_word(digest(&parts))
}

fn first_word(id: StableId) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(id.split_at(8).0);
    u64::from_le_bytes(first)
}

/// An address as the maps keep it: IPv6, or IPv4 as `::ffff:a.b.c.d`.
pub fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A prefix as the maps keep addresses, and how many of its bits count.
pub fn mapped_prefix(prefix: Prefix) -> ([u8; 16], u8) {
    // `::ffff:0:0/96` comes before those of an IPv4 address.
    let before = if prefix.is_ipv4() { 96 } else { 0 };
    (mapped(prefix.address()), before + prefix.length())
}

/// The opposite of [`mapped`].
pub fn unmapped(address: [u8; 16]) -> IpAddr {
    let address = Ipv6Addr::from(address);
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

pub fn service_key(vip: Vip, protocol: Protocol) -> ServiceKey {
    ServiceKey::service(mapped(vip.address), vip.port.unwrap_or(0), protocol_number(protocol))
}

/// The markers that tell the data plane of a packet with unreadable ports that its address is a VIP.
pub fn markers(service: &Service) -> [ServiceKey; 2] {
    let address = mapped(service.vip.address);
    [
        ServiceKey::marker(address, protocol_number(service.protocol)),
        ServiceKey::marker(address, PROTOCOL_ANY),
    ]
}

pub const fn forwarding(forwarding: Forwarding) -> u8 {
    match forwarding {
        Forwarding::L2Dsr => FORWARDING_L2_DSR,
        Forwarding::Ipip => FORWARDING_IPIP,
        Forwarding::Gue => FORWARDING_GUE,
        Forwarding::Dnat => FORWARDING_DNAT,
        Forwarding::Nat => FORWARDING_NAT,
    }
}

pub const fn hash_key(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::SourceHash => HASH_SOURCE,
        // The others need a slot only for flows that find no place in the flow table.
        Algorithm::FlowHash | Algorithm::RoundRobin | Algorithm::LeastConnections => HASH_FLOW,
    }
}

pub const fn selection(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::SourceHash | Algorithm::FlowHash => SELECT_HASH,
        Algorithm::RoundRobin => SELECT_ROUND_ROBIN,
        Algorithm::LeastConnections => SELECT_LEAST_CONNECTIONS,
    }
}

pub const fn tracking(service: &Service) -> u8 {
    match service.tracking() {
        // Its flows are in tables of their own, and none in the flow table.
        _ if service.forwarding.translates() => TRACK_NEVER,
        Tracking::Never => TRACK_NEVER,
        Tracking::Auto => TRACK_AUTO,
        Tracking::Always => TRACK_ALWAYS,
    }
}

/// A backend's name as its record holds it.
pub fn name_bytes(name: &Name) -> [u8; 64] {
    let mut bytes = [0; 64];
    // A name has at most 63 bytes.
    for (to, from) in bytes.iter_mut().zip(name.as_str().bytes()) {
        *to = from;
    }
    bytes
}

/// The opposite of [`name_bytes`]; `None` where that is no name.
pub fn name_from(bytes: &[u8; 64]) -> Option<Name> {
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(bytes.get(..length)?).ok()?.parse().ok()
}

pub const fn admin(admin: Admin) -> u8 {
    match admin {
        Admin::Active => ADMIN_ACTIVE,
        Admin::Draining => ADMIN_DRAINING,
        Admin::Disabled => ADMIN_DISABLED,
    }
}

pub const fn health(health: Health) -> u8 {
    match health {
        Health::Unknown => HEALTH_UNKNOWN,
        Health::Healthy => HEALTH_HEALTHY,
        Health::Unhealthy => HEALTH_UNHEALTHY,
        Health::Ineligible => HEALTH_INELIGIBLE,
    }
}

/// The opposite of [`health`]. What no controller of this ABI writes counts as unknown.
pub const fn health_from(code: u8) -> Health {
    match code {
        HEALTH_HEALTHY => Health::Healthy,
        HEALTH_UNHEALTHY => Health::Unhealthy,
        HEALTH_INELIGIBLE => Health::Ineligible,
        _ => Health::Unknown,
    }
}

pub fn own_macs(macs: &OwnMacs) -> Vec<u64> {
    macs.iter().flatten().map(|&mac| abi::mac_word(mac)).collect()
}

pub fn nat_pool(pool: &NatPool) -> abi::NatPool {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = pool.addresses.iter().partition(|address| address.is_ipv4());
    let fill = |entries: &mut [[u8; 16]; NAT_POOL_ADDRESSES], addresses: &[IpAddr]| {
        let filled = entries.iter_mut().zip(addresses);
        filled.map(|(entry, address)| *entry = mapped(*address)).count() as u32
    };
    let mut encoded =
        abi::NatPool { first_port: pool.first_port, last_port: pool.last_port, ..abi::NatPool::default() };
    encoded.v4_count = fill(&mut encoded.v4, &v4);
    encoded.v6_count = fill(&mut encoded.v6, &v6);
    encoded
}

pub fn egress(hop: &Hop) -> EgressValue {
    EgressValue {
        source_mac: hop.source_mac,
        ifindex: hop.ifindex,
        mtu: hop.mtu,
        source: mapped(hop.source),
        ..EgressValue::default()
    }
}

const fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => PROTOCOL_TCP,
        Protocol::Udp => PROTOCOL_UDP,
    }
}

/// 128 bits of SipHash-1-3 over length-prefixed parts. The key is fixed: ids must be the same after every restart, and
/// only the configuration's owner chooses what is hashed.
fn digest(parts: &[&[u8]]) -> StableId {
    let mut hasher = SipHasher13::new();
    for part in parts {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish128().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_maps() {
        for text in ["203.0.113.10", "2001:db8::10", "255.255.255.255"] {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(unmapped(mapped(address)), address);
        }
    }

    #[test]
    fn the_pool_has_the_addresses_of_each_family_in_their_order() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let all = ["192.0.2.2", "2001:db8::1", "192.0.2.1"].map(address);
        let pool = nat_pool(&NatPool { addresses: all.to_vec(), first_port: 2000, last_port: 3000 });
        assert_eq!((pool.first_port, pool.last_port, pool.v4_count, pool.v6_count), (2000, 3000, 2, 1));
        assert_eq!(pool.v4[..3], [mapped(all[0]), mapped(all[2]), [0; 16]]);
        assert_eq!(pool.v6[..2], [mapped(all[1]), [0; 16]]);
    }

    #[test]
    fn ids_tell_names_and_addresses_apart() {
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let address = "10.0.0.1:80".parse().expect("an address");
        let id = backend_id(&name("ab"), &name("c"), address);
        assert_ne!(id, backend_id(&name("a"), &name("bc"), address));
        assert_ne!(id, backend_id(&name("ab"), &name("c"), "10.0.0.1:81".parse().expect("an address")));
        assert_eq!(id, backend_id(&name("ab"), &name("c"), address));
    }
}
