//! One set of services in which every way a packet can go has its own port, so that a case only names where it sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use ballast::dataplane::CaptureProgram;

use super::frame::{BALANCER_MAC, Packet};
use super::modes::{self, Mode};
use super::tracked::Tracked;
use super::world::{LIMITS, World};
use crate::model::{Backend, Egress, Forwarding, Protocol, Selection, Service, Slot, SlotHash, Tracking};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// An address, and its like of the other family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    Client,
    /// The VIP with a service a [`Way`].
    Vip,
    /// A VIP with one service for every port, and one of its own for port 443.
    EveryPort,
    /// A VIP with TCP services only.
    TcpOnly,
    /// An address of the host without services.
    NotVip,
    /// A VIP with one `nat` service for every port.
    NatEveryPort,
}

impl Host {
    #[must_use]
    pub fn address(self, family: Family) -> IpAddr {
        let number = match self {
            Self::Client => return client(family, 7),
            Self::Vip => 10,
            Self::EveryPort => 11,
            Self::TcpOnly => 12,
            Self::NotVip => 13,
            Self::NatEveryPort => 14,
        };
        match family {
            Family::V4 => Ipv4Addr::new(203, 0, 113, number).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xf00d, 0, 0, 0, 0, number.into()).into(),
        }
    }
}

/// One of many clients.
#[must_use]
pub fn client(family: Family, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(198, 18, high, low).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, number).into(),
    }
}

/// What awaits a packet of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    L2Dsr,
    Ipip,
    L2DsrByFlow,
    IpipByFlow,
    NoBackend,
    Disabled,
    Unresolved,
    L2DsrElsewhere,
    IpipElsewhere,
    /// The interface is gone from the device map.
    Hole,
    /// Slots name an index beyond the backends map.
    IndexBeyondMap,
    UnknownForwarding,
    /// The next hop names an egress number beyond its map.
    EgressBeyondMap,
    /// The service's region ends outside the lookup map.
    RegionBeyondMap,
    /// `ipip` over a link that takes 1000 bytes.
    SmallMtu,
    /// No backend, and whoever comes is told.
    Rejects,
}

impl Way {
    /// Those whose numbers are written down in files; [`Self::Rejects`] comes after everything else.
    pub const ALL: [Self; 15] = [
        Self::L2Dsr,
        Self::Ipip,
        Self::L2DsrByFlow,
        Self::IpipByFlow,
        Self::NoBackend,
        Self::Disabled,
        Self::Unresolved,
        Self::L2DsrElsewhere,
        Self::IpipElsewhere,
        Self::Hole,
        Self::IndexBeyondMap,
        Self::UnknownForwarding,
        Self::EgressBeyondMap,
        Self::RegionBeyondMap,
        Self::SmallMtu,
    ];

    /// The service's port.
    #[must_use]
    pub const fn port(self) -> u16 {
        8000 + self as u16
    }

    const fn forwarding(self) -> Forwarding {
        match self {
            Self::Ipip | Self::IpipByFlow | Self::IpipElsewhere | Self::SmallMtu => Forwarding::Ipip,
            Self::UnknownForwarding => Forwarding::Unknown(99),
            _ => Forwarding::L2Dsr,
        }
    }

    #[must_use]
    pub const fn hash(self) -> SlotHash {
        match self {
            Self::L2DsrByFlow | Self::IpipByFlow => SlotHash::Flow,
            _ => SlotHash::Source,
        }
    }

    const fn exit(self) -> Exit {
        match self {
            Self::L2DsrElsewhere | Self::IpipElsewhere => Exit::Elsewhere,
            Self::Hole => Exit::Hole,
            Self::SmallMtu => Exit::Small,
            Self::EgressBeyondMap => Exit::BeyondMap,
            _ => Exit::Same,
        }
    }
}

/// Ways out of the host, a number a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Same,
    Elsewhere,
    Hole,
    Small,
    BeyondMap,
}

impl Exit {
    #[must_use]
    pub const fn number(self, family: Family) -> u16 {
        match self {
            Self::BeyondMap => 5000,
            _ => 1 + 2 * self as u16 + family as u16,
        }
    }
}

/// Of another interface of the host, such as VRRP's.
pub const OTHER_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];

/// MTU of the ordinary links and of the small one.
pub const MTU: u32 = 1500;
pub const SMALL_MTU: u32 = 1000;

/// Backends of a service.
pub const BACKENDS: u32 = 3;
/// Slots of a service.
pub const SLOTS: usize = 1024;

/// The world all cases share.
pub fn world() -> Result<World> {
    furnish(World::new()?)
}

/// The same with maps that are pinned.
pub fn pinned_world() -> Result<World> {
    furnish(World::pinned()?)
}

/// The same with the program that runs where there are peers.
pub fn world_replicating() -> Result<World> {
    furnish(World::replicating()?)
}

/// The same without side effects.
pub fn world_without_side_effects() -> Result<World> {
    furnish(World::without_side_effects()?)
}

/// The same with room for more NAT flows.
pub fn world_with_nat_flows(nat_flows: u32) -> Result<World> {
    furnish(World::with_nat_flows(nat_flows)?)
}

/// The same with the program that runs during a capture, and what it copies; see [`World::capturing`].
pub fn world_capturing(linear: bool) -> Result<(World, CaptureProgram)> {
    let (world, capture) = World::capturing(linear)?;
    Ok((furnish(world)?, capture))
}

fn furnish(mut world: World) -> Result<World> {
    for family in Family::BOTH {
        for exit in [Exit::Same, Exit::Elsewhere, Exit::Hole, Exit::Small] {
            let number = exit.number(family);
            world.set_egress(number, egress(&world, exit, family))?;
        }
        for protocol in Protocol::BOTH {
            for way in Way::ALL {
                add(&mut world, way, Host::Vip.address(family), Some(way.port()), protocol)?;
            }
            let every_port = Host::EveryPort.address(family);
            add(&mut world, Way::L2Dsr, every_port, None, protocol)?;
            add(&mut world, Way::Ipip, every_port, Some(443), protocol)?;
        }
        add(&mut world, Way::L2Dsr, Host::TcpOnly.address(family), Some(Way::L2Dsr.port()), Protocol::Tcp)?;
    }
    // Last: numbers of those above are written down in files.
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for tracked in Tracked::all() {
                tracked.add(&mut world, family, protocol)?;
            }
        }
    }
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for mode in Mode::ALL {
                mode.add(&mut world, family, protocol)?;
            }
        }
    }
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let way = Way::Rejects;
            add(&mut world, way, Host::Vip.address(family), Some(way.port()), protocol)?;
        }
    }
    world.set_own_macs(Some([BALANCER_MAC, OTHER_MAC].into()))?;
    world.set_pool(modes::pool())?;
    for prefix in modes::prefixes() {
        world.add_prefix(prefix)?;
    }
    world.publish()?;
    Ok(world)
}

fn egress(world: &World, exit: Exit, family: Family) -> Egress {
    Egress {
        source_mac: [0x02, 0xe6, 0, 0, exit as u8, family as u8],
        interface: match exit {
            Exit::Elsewhere | Exit::Hole => world.other_interface(),
            _ => world.state.ingress,
        },
        mtu: if exit == Exit::Small { SMALL_MTU } else { MTU },
        source: match family {
            Family::V4 => Ipv4Addr::new(192, 0, 2, 1 + exit as u8).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 1 + exit as u16).into(),
        },
        has_device: exit != Exit::Hole,
    }
}

/// Adds a service with its number, its region and three backends of its own.
pub fn add(
    world: &mut World,
    way: Way,
    address: IpAddr,
    port: Option<u16>,
    protocol: Protocol,
) -> Result<()> {
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    let number = world.state.services.len() as u32;
    let first = add_backends(world, number, family, way)?;
    let slots = (0..SLOTS as u32).map(|slot| match way {
        Way::NoBackend | Way::Rejects => Slot::steady(0),
        Way::IndexBeyondMap => Slot::steady(LIMITS.backends + slot),
        _ => Slot::steady(first + slot % BACKENDS),
    });
    world.add_service(Service {
        number,
        address,
        port,
        protocol,
        forwarding: way.forwarding(),
        hash: way.hash(),
        base: match way {
            Way::RegionBeyondMap => LIMITS.lookup_slots,
            _ => number * SLOTS as u32,
        },
        slots: slots.collect(),
        tracking: Tracking::Auto,
        selection: Selection::Hash,
        rotation: 0,
        idle_timeout: 60,
        source_list: 0,
        new_flow_limit: 0,
        rejects: way == Way::Rejects,
    })
}

/// Gives a service backends of its own; returns the first index.
pub(super) fn add_backends(world: &mut World, service: u32, family: Family, way: Way) -> Result<u32> {
    // Index 0 is none.
    let first = 1 + service * BACKENDS;
    for index in first..first + BACKENDS {
        let backend = Backend {
            address: backend_address(family, index),
            port: 80,
            service,
            accepts_new_flows: way != Way::Disabled,
            accepts_existing_flows: way != Way::Disabled,
            weight: 1 + (index % 3) as u16,
            next_hop: (way != Way::Unresolved).then(|| (backend_mac(index), way.exit().number(family))),
        };
        world.set_backend(index, backend)?;
    }
    Ok(first)
}

fn backend_address(family: Family, index: u32) -> IpAddr {
    let [_, _, high, low] = index.to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(10, 1, high, low).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x1, 0, 0, 0, 0, 0, index as u16).into(),
    }
}

#[must_use]
pub fn backend_mac(index: u32) -> [u8; 6] {
    let [_, _, high, low] = index.to_be_bytes();
    [0x02, 0xbb, 0xac, 0xed, high, low]
}

/// A packet from the usual client.
#[must_use]
pub fn packet(family: Family, protocol: Protocol, to: Host, port: u16) -> Packet {
    Packet::new(protocol, (Host::Client.address(family), 40_123), (to.address(family), port))
}
