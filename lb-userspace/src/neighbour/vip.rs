use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Error,
    netlink::{Destined, Netlink},
    table::{NeighbourKey, Table},
};

/// Where this host itself would send to a VIP, which is what its health checks over the real path do.
pub struct VipRoutes {
    /// The latest connection.
    netlink: Mutex<Netlink>,
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
        Netlink::new().map(Self::by)
    }

    fn by(netlink: Netlink) -> Self {
        Self { netlink: Mutex::new(netlink), asked: tokio::sync::Mutex::default() }
    }

    /// The route that packets with this mark take, from `source` if there is one.
    pub async fn route(
        &self,
        destination: IpAddr,
        source: Option<IpAddr>,
        mark: u32,
    ) -> Result<HostRoute, Error> {
        let destined =
            self.ask(|netlink| async move { netlink.destined(destination, source, mark).await }).await?;
        Ok(match destined {
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
        let table = self.ask(|netlink| async move {
            let mut table = Table::default();
            netlink.read_neighbours(&mut table).await.map(|()| table)
        });
        let table = table.await?;
        let resolved = table.neighbours.get(&key).is_some_and(|neighbour| neighbour.mac.is_some());
        asked.insert(key, (Instant::now(), resolved));
        Ok(resolved)
    }

    /// Asks once more, by another connection, where the kernel closed the one there was.
    async fn ask<T, A: Future<Output = Result<T, Error>>>(
        &self,
        question: impl Fn(Netlink) -> A,
    ) -> Result<T, Error> {
        let netlink = self.latest().clone();
        match question(netlink).await {
            Err(Error::Request { source: rtnetlink::Error::RequestFailed, .. }) => {
                log::warn!("the netlink connection for routes to VIPs was lost, opening another");
                let netlink = Netlink::new()?;
                self.latest().clone_from(&netlink);
                question(netlink).await
            }
            answer => answer,
        }
    }

    fn latest(&self) -> MutexGuard<'_, Netlink> {
        self.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_connection_is_opened_again() {
        let routes = VipRoutes::by(Netlink::lost());
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(routes.route(loopback, None, 0).await.expect("an answer"), HostRoute::Local);
        let routes = VipRoutes::by(Netlink::lost());
        assert!(!routes.is_resolved(u32::MAX, loopback).await.expect("an answer"));
    }
}
