use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Error,
    netlink::{Destined, Netlink},
    table::{NeighbourKey, Table},
};

/// Where this host itself would send to a VIP, which is what its health checks over the real path do.
pub struct VipRoutes {
    netlink: Netlink,
    /// Neighbours that were asked about, when, and whether they are there.
    asked: tokio::sync::Mutex<HashMap<NeighbourKey, (Instant, bool)>>,
}

/// This host's route to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostRoute {
    /// There is none.
    Missing,
    /// The address is on this host.
    Local,
    Leaves {
        interface: u32,
        next_hop: IpAddr,
    },
}

impl VipRoutes {
    /// Opens a netlink socket in the current network namespace.
    pub fn new() -> Result<Self, Error> {
        Netlink::new().map(|netlink| Self { netlink, asked: tokio::sync::Mutex::default() })
    }

    /// The route that packets with this mark take, from `source` if there is one.
    pub async fn route(
        &self,
        destination: IpAddr,
        source: Option<IpAddr>,
        mark: u32,
    ) -> Result<HostRoute, Error> {
        Ok(match self.netlink.destined(destination, source, mark).await? {
            Destined::Nowhere => HostRoute::Missing,
            Destined::Here => HostRoute::Local,
            Destined::Away(route) => HostRoute::Leaves {
                interface: route.interface,
                next_hop: route.gateway.unwrap_or(destination),
            },
        })
    }

    /// Whether the kernel knows a MAC address for a next hop. Asked at most once a second.
    pub async fn is_resolved(&self, interface: u32, next_hop: IpAddr) -> Result<bool, Error> {
        let key = (interface, next_hop);
        // One list at a time: the kernel refuses another on the same socket.
        let mut asked = self.asked.lock().await;
        asked.retain(|_, (at, _)| at.elapsed() < Duration::from_secs(1));
        if let Some((_, resolved)) = asked.get(&key) {
            return Ok(*resolved);
        }
        let mut table = Table::default();
        self.netlink.read_neighbours(&mut table).await?;
        let resolved = table.neighbours.get(&key).is_some_and(|neighbour| neighbour.mac.is_some());
        asked.insert(key, (Instant::now(), resolved));
        Ok(resolved)
    }
}
