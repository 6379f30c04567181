//! Services of every forwarding mode, with backends of both families, and services that don't take everybody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::fixture::{BACKENDS, Exit, Family, Host, SLOTS, backend_mac};
use super::tracked::ROTATION;
use super::world::World;
use crate::model::{
    Backend, Forwarding, Pool, Prefix, Protocol, Selection, Service, Slot, SlotHash, Tracking,
};

/// One service a family and a protocol, on [`Host::Vip`] unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Gue,
    GueByFlow,
    GueTracked,
    GueElsewhere,
    /// Over a link that takes 1000 bytes.
    GueSmall,
    /// Backends of the other family.
    IpipMixed,
    GueMixed,
    IpipMixedSmall,
    GueMixedSmall,
    L2DsrSmall,
    Dnat,
    /// With the same backends as `Dnat`.
    DnatTwin,
    DnatElsewhere,
    DnatSmall,
    Nat,
    NatTwin,
    NatElsewhere,
    NatSmall,
    NatRoundRobin,
    NatLeastConnections,
    /// Every port of [`Host::NatEveryPort`].
    NatEveryPort,
    /// Without a backend that anybody knows the way to.
    NatUnresolved,
    NatNoBackend,
    /// Takes only some clients.
    Guarded,
    /// Opens few flows a second.
    Limited,
    NatGuarded,
    NatLimited,
}

impl Mode {
    pub const ALL: [Self; 27] = [
        Self::Gue,
        Self::GueByFlow,
        Self::GueTracked,
        Self::GueElsewhere,
        Self::GueSmall,
        Self::IpipMixed,
        Self::GueMixed,
        Self::IpipMixedSmall,
        Self::GueMixedSmall,
        Self::L2DsrSmall,
        Self::Dnat,
        Self::DnatTwin,
        Self::DnatElsewhere,
        Self::DnatSmall,
        Self::Nat,
        Self::NatTwin,
        Self::NatElsewhere,
        Self::NatSmall,
        Self::NatRoundRobin,
        Self::NatLeastConnections,
        Self::NatEveryPort,
        Self::NatUnresolved,
        Self::NatNoBackend,
        Self::Guarded,
        Self::Limited,
        Self::NatGuarded,
        Self::NatLimited,
    ];

    /// Those of which a client's packets get new addresses.
    #[must_use]
    pub const fn translates(self) -> bool {
        self.forwarding().translates()
    }

    #[must_use]
    pub const fn port(self) -> u16 {
        FIRST_PORT + self as u16
    }

    #[must_use]
    pub const fn host(self) -> Host {
        match self {
            Self::NatEveryPort => Host::NatEveryPort,
            _ => Host::Vip,
        }
    }

    #[must_use]
    pub const fn forwarding(self) -> Forwarding {
        match self {
            Self::Gue | Self::GueByFlow | Self::GueTracked | Self::GueElsewhere => Forwarding::Gue,
            Self::GueSmall | Self::GueMixed | Self::GueMixedSmall => Forwarding::Gue,
            Self::IpipMixed | Self::IpipMixedSmall => Forwarding::Ipip,
            Self::L2DsrSmall | Self::Guarded | Self::Limited => Forwarding::L2Dsr,
            Self::Dnat | Self::DnatTwin | Self::DnatElsewhere | Self::DnatSmall => Forwarding::Dnat,
            _ => Forwarding::Nat,
        }
    }

    #[must_use]
    pub const fn hash(self) -> SlotHash {
        match self {
            Self::GueByFlow | Self::IpipMixed | Self::Nat | Self::Dnat => SlotHash::Flow,
            Self::NatRoundRobin | Self::NatLeastConnections => SlotHash::Flow,
            _ => SlotHash::Source,
        }
    }

    /// The family of the backends of clients of this one.
    #[must_use]
    pub const fn backend_family(self, family: Family) -> Family {
        match self {
            Self::IpipMixed | Self::GueMixed | Self::IpipMixedSmall | Self::GueMixedSmall => family.other(),
            _ => family,
        }
    }

    #[must_use]
    pub const fn exit(self) -> Exit {
        match self {
            Self::GueElsewhere | Self::DnatElsewhere | Self::NatElsewhere => Exit::Elsewhere,
            Self::GueSmall | Self::IpipMixedSmall | Self::GueMixedSmall => Exit::Small,
            Self::L2DsrSmall | Self::DnatSmall | Self::NatSmall => Exit::Small,
            _ => Exit::Same,
        }
    }

    const fn selection(self) -> Selection {
        match self {
            Self::NatRoundRobin => Selection::RoundRobin,
            Self::NatLeastConnections => Selection::LeastConnections,
            _ => Selection::Hash,
        }
    }

    const fn is_guarded(self) -> bool {
        matches!(self, Self::Guarded | Self::NatGuarded)
    }

    const fn is_limited(self) -> bool {
        matches!(self, Self::Limited | Self::NatLimited)
    }

    /// The mode whose backends it has.
    const fn owner(self) -> Self {
        match self {
            Self::DnatTwin => Self::Dnat,
            Self::NatTwin => Self::Nat,
            other => other,
        }
    }

    /// Port of its backends; 0 keeps the client's.
    #[must_use]
    pub const fn backend_port(self) -> u16 {
        match self {
            Self::NatEveryPort => 0,
            mode if mode.translates() => 9000 + mode.owner() as u16,
            mode => mode.port(),
        }
    }

    /// Address of one of its three backends.
    #[must_use]
    pub fn backend_address(self, family: Family, protocol: Protocol, number: u32) -> IpAddr {
        let (mode, number) = (self.owner() as u8, number as u8 + 4 * protocol.number());
        match self.backend_family(family) {
            Family::V4 => Ipv4Addr::new(10, 2, mode, number).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, mode.into(), number.into()).into(),
        }
    }

    /// The service's place in the world's list.
    #[must_use]
    pub fn place(self, world: &World, family: Family, protocol: Protocol) -> usize {
        let address = self.host().address(family);
        let port = (self != Self::NatEveryPort).then(|| self.port());
        let found = world.state.services.iter().position(|service| {
            (service.address, service.port, service.protocol) == (address, port, protocol)
        });
        found.expect("the fixture has one of each")
    }

    pub(super) fn add(self, world: &mut World, family: Family, protocol: Protocol) -> Result<()> {
        let number = world.state.services.len() as u32;
        let first = 1 + number * BACKENDS;
        for own in 0..BACKENDS {
            let index = first + own;
            let exit = self.exit().number(self.backend_family(family));
            world.set_backend(
                index,
                Backend {
                    address: self.backend_address(family, protocol, own),
                    port: self.backend_port(),
                    service: number,
                    accepts_new_flows: true,
                    accepts_existing_flows: true,
                    weight: 1,
                    next_hop: (self != Self::NatUnresolved).then(|| (backend_mac(index), exit)),
                },
            )?;
        }
        let slot = |slot| if self == Self::NatNoBackend { 0 } else { first + slot % BACKENDS };
        world.add_service(Service {
            number,
            address: self.host().address(family),
            port: (self != Self::NatEveryPort).then(|| self.port()),
            protocol,
            forwarding: self.forwarding(),
            hash: self.hash(),
            base: number * SLOTS as u32,
            slots: (0..SLOTS as u32).map(slot).map(Slot::steady).collect(),
            tracking: match self {
                Self::GueTracked => Tracking::Always,
                mode if mode.translates() => Tracking::Never,
                _ => Tracking::Auto,
            },
            selection: self.selection(),
            rotation: if self == Self::NatRoundRobin { ROTATION } else { 0 },
            idle_timeout: if self == Self::NatTwin { 3 } else { IDLE },
            source_list: if self.is_guarded() { LIST } else { 0 },
            new_flow_limit: if self.is_limited() { LIMIT } else { 0 },
            rejects: false,
        })
    }
}

const FIRST_PORT: u16 = 8600;

/// Seconds after which flows of most services are over.
pub const IDLE: u32 = 100;
/// Flows that limited services open in a second.
pub const LIMIT: u32 = 5;
/// The list of guarded services; `LIST + 1` belongs to nobody.
pub const LIST: u32 = 7;

/// The load balancer's own addresses, two of each family, and its ports.
#[must_use]
pub fn pool() -> Pool {
    let v4 = |last| IpAddr::from(Ipv4Addr::new(192, 0, 2, last));
    let v6 = |last| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, last));
    Pool { first_port: 40_000, last_port: 40_063, addresses: vec![v4(101), v4(102), v6(101), v6(102)] }
}

/// Who may send to guarded services: clients 0 to 3 but not 2, and nobody else.
pub(super) fn prefixes() -> Vec<Prefix> {
    let of = |list, address: IpAddr, bits, allows| Prefix {
        list,
        address: crate::model::mapped(address),
        bits: if address.is_ipv4() { 96 + bits } else { bits },
        allows,
    };
    let mut prefixes = vec![of(LIST, Ipv6Addr::UNSPECIFIED.into(), 0, false)];
    for family in Family::BOTH {
        let client = |number| super::fixture::client(family, number);
        let whole = if family == Family::V4 { 32 } else { 128 };
        prefixes.push(of(LIST, client(0), whole - 2, true));
        prefixes.push(of(LIST, client(2), whole, false));
        // Nobody's list allows everybody; that must not matter.
        prefixes.push(of(LIST + 1, client(2), whole, true));
    }
    prefixes
}
