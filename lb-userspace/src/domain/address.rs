use std::net::IpAddr;

/// Why no packet could be sent to this address from elsewhere.
pub fn unusable(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Some("an IPv4 address inside an IPv6 one never is on the wire; write the IPv4 address")
        }
        IpAddr::V4(v4) if v4.is_broadcast() => Some("that is the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("that is no host's address"),
        _ if address.is_unspecified() => Some("that is no host's address"),
        _ if address.is_loopback() => Some("a loopback address never leaves its host"),
        _ if address.is_multicast() => Some("that is a multicast address"),
        _ if link_local => Some("a link-local address means nothing beyond its link"),
        _ => None,
    }
}
