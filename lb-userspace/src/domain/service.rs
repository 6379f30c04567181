use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Admission, Backend, Discovery, HealthCheck, Name, Origin, Panic};

/// A VIP, port and protocol that clients talk to, and the backends behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: Name,
    pub vip: Vip,
    pub protocol: Protocol,
    pub forwarding: Forwarding,
    pub algorithm: Algorithm,
    pub table_size: TableSize,
    pub health: HealthCheck,
    pub panic: Panic,
    pub on_all_down: OnAllDown,
    pub tracking: Tracking,
    /// A tracked flow whose last packet is longer ago is forgotten. Whole seconds, 1 s to 1 h.
    pub flow_idle_timeout: Duration,
    /// How long existing TCP flows stay with a backend that became unhealthy, from when it left the table.
    pub unhealthy_grace: Duration,
    /// How long existing flows stay with a backend that drains.
    pub drain_timeout: Duration,
    /// How long a backend takes from a tenth of its new flows to all of them. Whole seconds; 0: it has all at once.
    pub slow_start: Duration,
    /// With fewer healthy backends the VIP is announced by others, if at all; 0: whatever becomes of the backends.
    pub withdraw_below: u32,
    pub admission: Admission,
    pub discovery: Discovery,
    pub backends: BTreeMap<Name, Backend>,
    pub origin: Origin,
}

/// Address and port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vip {
    pub address: IpAddr,
    /// `None`: every port.
    pub port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// How a packet gets to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forwarding {
    /// New MAC addresses, everything else untouched; the backend answers the client itself.
    L2Dsr,
    /// Whole packet inside another IP header, of the backend's family (RFC 2003, RFC 2473, RFC 4213).
    Ipip,
    /// The same with a UDP header in between, whose source port tells flows apart (draft-ietf-intarea-gue, variant 1).
    Gue,
    /// New destination address and port; the backend answers through the load balancer.
    Dnat,
    /// New source address and port as well, so that any backend does answer through it.
    Nat,
}

/// What decides which backend a flow gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// The client's address.
    SourceHash,
    /// The 5-tuple.
    FlowHash,
    /// Each new flow to the next backend, in proportion to the weights.
    RoundRobin,
    /// Each new flow to the one of two candidates that has fewer live flows for its weight.
    LeastConnections,
}

/// Which flows have entries in the flow table. `dnat` and `nat` keep all of theirs, in tables of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tracking {
    /// TCP under a hash algorithm: only while a change ages out. Everything else: always.
    #[default]
    Auto,
    Always,
    /// None: a flow moves with its slot. For one-shot protocols.
    Never,
}

/// What happens to packets of new flows when no active backend is healthy and some are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAllDown {
    /// All active backends with a verdict get traffic as if they were healthy.
    #[default]
    FailOpen,
    /// Packets are dropped and counted.
    Drop,
    /// Their senders are told: by an RST, or ICMP "port unreachable".
    Reject,
}

/// Slots of a service's lookup table: a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableSize {
    log2: u8,
}

impl TableSize {
    pub const MIN: u32 = lb_common::abi::limits::MIN_TABLE_SIZE;
    pub const MAX: u32 = lb_common::abi::limits::MAX_TABLE_SIZE;
    pub const DEFAULT: Self = Self { log2: 14 };

    /// `None` unless `slots` is a power of two from [`Self::MIN`] to [`Self::MAX`].
    pub const fn new(slots: u32) -> Option<Self> {
        if slots.is_power_of_two() && slots >= Self::MIN && slots <= Self::MAX {
            Some(Self { log2: slots.trailing_zeros() as u8 })
        } else {
            None
        }
    }

    pub const fn slots(self) -> u32 {
        1 << self.log2
    }

    /// With more backends than this their shares are uneven.
    pub const fn advisable_backends(self) -> usize {
        self.slots() as usize / 100
    }

    pub const fn log2(self) -> u8 {
        self.log2
    }
}

/// Why an address can't be that of a service's backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("the backend's address is {given}, the service's is {needed}")]
    Family { given: &'static str, needed: &'static str },
    #[error("the backend's port is {given}, the service's is {needed}")]
    Port { given: u16, needed: u16 },
    #[error("the backend has no port")]
    NoPort,
    #[error("there is no port to check this backend on")]
    Unchecked,
    #[error("{target} can't be checked from {from}: both have to be of one family")]
    CheckSource { target: IpAddr, from: IpAddr },
}

impl Misfit {
    /// `checked`: whether checks go to the backend's own port.
    pub fn of(vip: Vip, forwarding: Forwarding, backend: SocketAddr, checked: bool) -> Option<Self> {
        let family = |address: IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let (given, needed) = (family(backend.ip()), family(vip.address));
        if given != needed && !forwarding.tunnels() {
            return Some(Self::Family { given, needed });
        }
        match (backend.port(), vip.port) {
            (0, Some(_)) if forwarding.translates() => Some(Self::NoPort),
            (_, Some(_)) if forwarding.translates() => None,
            (given, Some(needed)) if given != needed => Some(Self::Port { given, needed }),
            // Packets keep their own port; this one is for checks alone.
            (0, None) if checked => Some(Self::Unchecked),
            _ => None,
        }
    }

    /// Why a backend at this address can't be checked as the service wants it.
    pub fn of_check(check: &HealthCheck, vip: IpAddr, backend: SocketAddr) -> Option<Self> {
        let (target, from) = (check.target(vip, backend).ip(), check.source?);
        (target.is_ipv4() != from.is_ipv4()).then_some(Self::CheckSource { target, from })
    }
}

/// See [`Service::place_of`].
pub fn place(vip: Vip, forwarding: Forwarding, backend: SocketAddr) -> SocketAddr {
    let told_apart = forwarding.translates() && vip.port.is_some();
    SocketAddr::new(backend.ip(), if told_apart { backend.port() } else { 0 })
}

impl fmt::Display for Vip {
    /// As the configuration writes it: `203.0.113.10:80`, `[2001:db8::10]:443`, `203.0.113.10:*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:")?,
            IpAddr::V6(address) => write!(f, "[{address}]:")?,
        }
        match self.port {
            Some(port) => write!(f, "{port}"),
            None => f.write_str("*"),
        }
    }
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Forwarding {
    pub const ALL: [Self; 5] = [Self::L2Dsr, Self::Ipip, Self::Gue, Self::Dnat, Self::Nat];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::L2Dsr => "l2-dsr",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Dnat => "dnat",
            Self::Nat => "nat",
        }
    }

    /// Whether packets travel inside others, which may be of another family.
    pub const fn tunnels(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }

    /// Whether addresses and ports are rewritten, so that each flow has state and its replies pass the load balancer.
    pub const fn translates(self) -> bool {
        matches!(self, Self::Dnat | Self::Nat)
    }
}

impl Algorithm {
    pub const ALL: [Self; 4] = [Self::SourceHash, Self::FlowHash, Self::RoundRobin, Self::LeastConnections];

    /// Whether the backend of a flow follows from its hash.
    pub const fn is_hash(self) -> bool {
        matches!(self, Self::SourceHash | Self::FlowHash)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SourceHash => "source-hash",
            Self::FlowHash => "flow-hash",
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
        }
    }
}

impl Tracking {
    pub const ALL: [Self; 3] = [Self::Auto, Self::Always, Self::Never];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

impl Service {
    /// Which flows of this service are remembered, whatever "auto" means for it.
    pub const fn tracking(&self) -> Tracking {
        match self.tracking {
            _ if self.forwarding.translates() => Tracking::Always,
            Tracking::Auto if matches!(self.protocol, Protocol::Udp) || !self.algorithm.is_hash() => {
                Tracking::Always
            }
            tracking => tracking,
        }
    }

    /// Whether anything can tell the first packet of a flow from the others.
    pub const fn counts_new_flows(&self) -> bool {
        matches!(self.protocol, Protocol::Tcp) || !matches!(self.tracking(), Tracking::Never)
    }

    /// `flow_idle_timeout` where nothing else is said.
    pub const fn default_flow_idle_timeout(
        protocol: Protocol,
        algorithm: Algorithm,
        forwarding: Forwarding,
    ) -> Duration {
        match (protocol, algorithm.is_hash() && !forwarding.translates()) {
            (Protocol::Udp, _) => Duration::from_secs(60),
            (Protocol::Tcp, true) => Duration::from_secs(900),
            (Protocol::Tcp, false) => Duration::from_secs(3600),
        }
    }

    /// Why packets of this service can't be forwarded to a backend at this address, or it can't be checked there.
    pub fn misfit(&self, backend: SocketAddr) -> Option<Misfit> {
        Misfit::of(self.vip, self.forwarding, backend, self.health.uses_own_port())
            .or_else(|| Misfit::of_check(&self.health, self.vip.address, backend))
    }

    /// What two backends of this service may not have in common. Where packets keep their port only the address tells
    /// backends apart.
    pub fn place_of(&self, backend: SocketAddr) -> SocketAddr {
        place(self.vip, self.forwarding, backend)
    }

    pub const DEFAULT_UNHEALTHY_GRACE: Duration = Duration::from_secs(30);
    pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(300);
}

impl OnAllDown {
    /// Where nothing else is said: nobody writes to a database of the wrong role because the right one is gone.
    pub fn default_of(check: &HealthCheck) -> Self {
        if check.has_role() { Self::Reject } else { Self::FailOpen }
    }

    pub const ALL: [Self; 3] = [Self::FailOpen, Self::Drop, Self::Reject];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailOpen => "fail-open",
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }
}
