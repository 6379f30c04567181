//! Services of every algorithm and every way to track flows.

use anyhow::Result;

use super::fixture::{self, BACKENDS, Family, Host, SLOTS, Way};
use super::world::World;
use crate::model::{Forwarding, Protocol, Selection, Service, Slot, SlotHash, Tracking};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    pub algorithm: Algorithm,
    pub tracking: Tracking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    SourceHash,
    FlowHash,
    RoundRobin,
    LeastConnections,
}

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::SourceHash, Algorithm::FlowHash, Algorithm::RoundRobin, Algorithm::LeastConnections];
const TRACKINGS: [Tracking; 3] = [Tracking::Auto, Tracking::Always, Tracking::Never];

/// Slots that round-robin goes through: not a power of two, and not all.
pub const ROTATION: u32 = 999;

const FIRST_PORT: u16 = 8500;

impl Tracked {
    pub const COUNT: usize = ALGORITHMS.len() * TRACKINGS.len();

    #[must_use]
    pub fn all() -> Vec<Self> {
        let of = |algorithm| TRACKINGS.map(|tracking| Self { algorithm, tracking });
        ALGORITHMS.into_iter().flat_map(of).collect()
    }

    /// The service's port on [`Host::Vip`].
    #[must_use]
    pub const fn port(self) -> u16 {
        FIRST_PORT + self.algorithm as u16 * TRACKINGS.len() as u16 + self.tracking as u16
    }

    /// The service's place in the world's list.
    #[must_use]
    pub fn place(self, world: &World, family: Family, protocol: Protocol) -> usize {
        let address = Host::Vip.address(family);
        let found = world.state.services.iter().position(|service| {
            (service.address, service.port, service.protocol) == (address, Some(self.port()), protocol)
        });
        found.expect("the fixture has one of each")
    }

    pub(super) fn add(self, world: &mut World, family: Family, protocol: Protocol) -> Result<()> {
        let number = world.state.services.len() as u32;
        let first = fixture::add_backends(world, number, family, Way::L2Dsr)?;
        world.add_service(Service {
            number,
            address: Host::Vip.address(family),
            port: Some(self.port()),
            protocol,
            forwarding: Forwarding::L2Dsr,
            hash: match self.algorithm {
                Algorithm::SourceHash => SlotHash::Source,
                _ => SlotHash::Flow,
            },
            base: number * SLOTS as u32,
            slots: (0..SLOTS as u32).map(|slot| Slot::steady(first + slot % BACKENDS)).collect(),
            tracking: self.tracking,
            selection: match self.algorithm {
                Algorithm::SourceHash | Algorithm::FlowHash => Selection::Hash,
                Algorithm::RoundRobin => Selection::RoundRobin,
                Algorithm::LeastConnections => Selection::LeastConnections,
            },
            rotation: if self.algorithm == Algorithm::RoundRobin { ROTATION } else { 0 },
            idle_timeout: 60,
            source_list: 0,
            new_flow_limit: 0,
            rejects: false,
        })
    }
}
