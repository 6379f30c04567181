//! What this host's own settings mean for the configuration.

use std::{collections::HashSet, net::IpAddr, ops::RangeInclusive};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

use crate::{domain::NatPool, sysctl};

/// Addresses of this host's interfaces; empty where the kernel doesn't say.
pub(crate) fn addresses() -> HashSet<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return HashSet::new() };
    interfaces.filter_map(|interface| ip(&interface.address?)).collect()
}

/// Ports that both NAT and the host's own sockets take, in words.
pub(crate) fn shared_ports(nat: &NatPool) -> Option<String> {
    let own = addresses();
    let theirs = |v4: bool| {
        let mut of_family = nat.addresses.iter().filter(|address| address.is_ipv4() == v4).peekable();
        // Without any of the family it is the egress address, which is the host's.
        of_family.peek().is_none() || of_family.any(|address| own.contains(address))
    };
    if !theirs(true) && !theirs(false) {
        return None;
    }
    let local = local_range(&sysctl::text("net/ipv4/ip_local_port_range")?)?;
    let reserved = reserved_ranges(&sysctl::text("net/ipv4/ip_local_reserved_ports").unwrap_or_default());
    overlap(nat, &local, &reserved).then(|| {
        format!(
            "nat.ports {}-{} overlaps net.ipv4.ip_local_port_range {}-{}: a socket of this host, such as a health check, may \
             take a port that a flow has; choose other ports, or add them to net.ipv4.ip_local_reserved_ports",
            nat.first_port,
            nat.last_port,
            local.start(),
            local.end()
        )
    })
}

fn overlap(nat: &NatPool, local: &RangeInclusive<u16>, reserved: &[RangeInclusive<u16>]) -> bool {
    let mut shared = (nat.first_port..=nat.last_port).filter(|port| local.contains(port));
    shared.any(|port| !reserved.iter().any(|range| range.contains(&port)))
}

/// `32768 60999`, with a tab in between.
fn local_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

/// `8080,61000-65535`; empty where there are none.
fn reserved_ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = || address.as_sockaddr_in().map(|address| address.ip().into());
    v4().or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_shared_unless_they_lie_elsewhere_or_are_reserved() {
        let nat = NatPool { first_port: 50_000, last_port: 50_100, ..NatPool::default() };
        let local = local_range("32768\t60999\n").expect("two ports");
        assert_eq!(local, 32_768..=60_999);
        assert!(!overlap(&NatPool::default(), &local, &[]));
        assert!(overlap(&nat, &local, &reserved_ranges("\n")));
        assert!(overlap(&nat, &local, &reserved_ranges("8080,50000-50099\n")));
        assert!(!overlap(&nat, &local, &reserved_ranges("8080,50000-50099,50100\n")));
    }
}
