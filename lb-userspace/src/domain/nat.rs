use std::{fmt, net::IpAddr};

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
        let ports = self.first_port..=self.last_port;
        self.addresses.contains(&vip.address) && vip.port.is_none_or(|port| ports.contains(&port))
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
