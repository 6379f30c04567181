use std::{collections::HashSet, fmt, net::IpAddr};

use lb_common::abi::NAT_POOL_ADDRESSES;

use super::Vip;

/// What packets that NAT sends to backends come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatPool {
    /// At most [`Self::MAX_ADDRESSES`] of each family. Of a family that has none: the address with which the host would
    /// reach the backend.
    pub addresses: Vec<IpAddr>,
    pub first_port: u16,
    pub last_port: u16,
}

impl NatPool {
    pub const MAX_ADDRESSES: usize = NAT_POOL_ADDRESSES;
    /// Below are the ports of well-known services, which some backends trust.
    pub const LOWEST_PORT: u16 = 1024;

    /// Whether replies to a port of this pool would be taken for packets of a service there.
    pub fn clashes_with(&self, vip: Vip) -> bool {
        self.addresses.contains(&vip.address) && self.takes_port_of(vip)
    }

    /// The same where the pool has no address of the family and packets go out with one of `egress`.
    pub fn clashes_on_egress(&self, vip: Vip, egress: &HashSet<IpAddr>) -> bool {
        !self.has_family(vip.address) && egress.contains(&vip.address) && self.takes_port_of(vip)
    }

    fn takes_port_of(&self, vip: Vip) -> bool {
        vip.port.is_none_or(|port| (self.first_port..=self.last_port).contains(&port))
    }

    /// Whether it has addresses of the family of `address`.
    pub fn has_family(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|known| known.is_ipv4() == address.is_ipv4())
    }
}

impl Default for NatPool {
    /// Above the ports that Linux gives to sockets by itself.
    fn default() -> Self {
        Self { addresses: Vec::new(), first_port: 61_000, last_port: 65_535 }
    }
}

impl fmt::Display for NatPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        let addresses =
            if addresses.is_empty() { "the egress address".to_owned() } else { addresses.join(", ") };
        write!(f, "{addresses}, ports {}-{}", self.first_port, self.last_port)
    }
}
