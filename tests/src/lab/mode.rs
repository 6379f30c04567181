//! Every way to a backend that a lab test goes through: the forwarding modes, tunnels with either family outside.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::builder::Builder;
use super::config::Service;
use super::node::Node;
use super::{Lab, VIP_V4, VIP_V6};

/// A forwarding mode, and whether its outer header is of the other family than the client's packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    L2Dsr,
    Ipip,
    IpipMixed,
    Gue,
    GueMixed,
    Dnat,
    Nat,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::L2Dsr, Self::Ipip, Self::IpipMixed, Self::Gue, Self::GueMixed, Self::Dnat, Self::Nat];
    /// Those with an outer header.
    pub const TUNNELS: [Self; 4] = [Self::Ipip, Self::IpipMixed, Self::Gue, Self::GueMixed];
    /// Those that translate addresses.
    pub const NAT: [Self; 2] = [Self::Dnat, Self::Nat];

    /// As the configuration has it.
    #[must_use]
    pub fn forwarding(self) -> &'static str {
        match self {
            Self::L2Dsr => "l2-dsr",
            Self::Ipip | Self::IpipMixed => "ipip",
            Self::Gue | Self::GueMixed => "gue",
            Self::Dnat => "dnat",
            Self::Nat => "nat",
        }
    }

    /// Whether addresses and ports are rewritten and replies pass the load balancer.
    #[must_use]
    pub fn translates(self) -> bool {
        Self::NAT.contains(&self)
    }

    /// A lab whose backends are set up as this mode wants them, and no further.
    #[must_use]
    pub fn lab(self) -> Builder {
        match self {
            Self::L2Dsr => Lab::builder(),
            Self::Ipip | Self::IpipMixed | Self::Gue | Self::GueMixed => Lab::builder().decapsulating(),
            Self::Dnat => Lab::builder().replies_through_balancer().plain_backends(),
            Self::Nat => Lab::builder().plain_backends(),
        }
    }

    /// Bytes of the outer header around packets to `vip`.
    #[must_use]
    pub fn overhead(self, vip: IpAddr) -> u32 {
        let ip = if self.outer(vip).is_ipv4() { 20 } else { 40 };
        match self {
            Self::L2Dsr | Self::Dnat | Self::Nat => 0,
            Self::Ipip | Self::IpipMixed => ip,
            Self::Gue | Self::GueMixed => ip + 8,
        }
    }

    /// The port of a backend behind a service on `port`: another one where a mode can translate it.
    #[must_use]
    pub fn server_port(self, port: u16) -> u16 {
        if self.translates() { port + 8_000 } else { port }
    }

    /// Where a backend's server gets what was sent to `to`, and what it answers from.
    #[must_use]
    pub fn served_at(self, backend: &Node, to: SocketAddr) -> SocketAddr {
        let address = if self.translates() { backend.address(to.ip()) } else { to.ip() };
        SocketAddr::new(address, self.server_port(to.port()))
    }

    /// A service on `to` with these backends.
    #[must_use]
    pub fn service<'a>(
        self,
        name: &str,
        to: SocketAddr,
        protocol: &str,
        backends: impl IntoIterator<Item = &'a Node>,
    ) -> Service {
        self.service_at(name, to, protocol, self.server_port(to.port()), backends)
    }

    /// [`Mode::service`] with backends that serve on this port, where the mode can translate it.
    #[must_use]
    pub fn service_at<'a>(
        self,
        name: &str,
        to: SocketAddr,
        protocol: &str,
        served: u16,
        backends: impl IntoIterator<Item = &'a Node>,
    ) -> Service {
        let port = if self.translates() { served } else { to.port() };
        let like = SocketAddr::new(self.outer(to.ip()), port);
        Service::new(name, to, protocol, self.forwarding()).nodes(backends, like)
    }

    /// An address of the family of this mode's backends of `vip`.
    fn outer(self, vip: IpAddr) -> IpAddr {
        match self {
            Self::IpipMixed | Self::GueMixed if vip.is_ipv4() => VIP_V6,
            Self::IpipMixed | Self::GueMixed => VIP_V4,
            _ => vip,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.forwarding())?;
        f.write_str(if matches!(self, Self::IpipMixed | Self::GueMixed) {
            " of the other family"
        } else {
            ""
        })
    }
}
