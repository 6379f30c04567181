use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use nix::net::if_::if_nametoindex;
use tokio::time::Instant;

use super::{
    Error,
    netlink::{Destined, Netlink},
    table::{NeighbourKey, Table},
};

/// What the kernel knows of interfaces, addresses and the ways to some addresses, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    pub interfaces: BTreeMap<u32, Interface>,
    /// Addresses fit to be a source, by interface, in the kernel's order.
    pub addresses: BTreeMap<u32, Vec<IpAddr>>,
    pub ways: BTreeMap<IpAddr, Way>,
    /// Whether the kernel let itself be asked to resolve what it had not; that takes CAP_NET_ADMIN.
    pub resolved: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// `veth`, `bridge`, `bond`, `vlan` and so on; `None` of a network card.
    pub kind: Option<String>,
    /// `None`: no Ethernet.
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    /// As the administrator wants it.
    pub up: bool,
    pub carrier: bool,
    /// The bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// What it is on top of (VLAN, macvlan).
    pub lower: Option<u32>,
}

/// Where the host's packets to an address go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// There is no route.
    Nowhere,
    /// The address is this host's.
    Here,
    Away {
        interface: u32,
        /// `None`: the address is on the interface's own network.
        gateway: Option<IpAddr>,
        /// The address that the host's packets come from.
        source: Option<IpAddr>,
        /// In bytes; the smaller of route and interface.
        mtu: u32,
        /// Of the gateway, or the address itself; `None` where nobody answers.
        mac: Option<[u8; 6]>,
    },
}

impl Survey {
    /// Looks, and has the kernel resolve the next hops to `addresses`, for half a second at most.
    ///
    /// # Errors
    ///
    /// The kernel can't be asked.
    pub async fn take(addresses: &BTreeSet<IpAddr>) -> Result<Self, Error> {
        let netlink = Netlink::new()?;
        let links = netlink.links().await?;
        let interfaces: BTreeMap<_, _> =
            links.iter().map(|message| (message.header.index, interface(message))).collect();
        let mut table = netlink.read(&BTreeSet::new()).await?;
        let mut ways = BTreeMap::new();
        for &address in addresses {
            let destined = netlink.destined(address, None, 0).await?;
            ways.insert(address, way(destined, address, &interfaces, &table));
        }
        let resolved = resolve(&netlink, &mut table, &mut ways).await?;
        Ok(Self { interfaces, addresses: table.addresses.into_iter().collect(), ways, resolved })
    }

    /// The interface of this name; alternative names count.
    pub fn named(&self, name: &str) -> Option<(u32, &Interface)> {
        let index = if_nametoindex(name).ok()?;
        self.interfaces.get(&index).map(|interface| (index, interface))
    }

    /// Its name, or its number where it has gone.
    pub fn name(&self, index: u32) -> String {
        self.interfaces.get(&index).map_or_else(|| index.to_string(), |interface| interface.name.clone())
    }

    /// An address of the family of `like` on the interface.
    pub fn address(&self, index: u32, like: IpAddr) -> Option<IpAddr> {
        let all = self.addresses.get(&index)?;
        all.iter().copied().find(|address| address.is_ipv4() == like.is_ipv4())
    }
}

/// Asks for what is unresolved and waits for the answers. Whether all could be asked for.
async fn resolve(
    netlink: &Netlink,
    table: &mut Table,
    ways: &mut BTreeMap<IpAddr, Way>,
) -> Result<bool, Error> {
    let deadline = Instant::now() + PATIENCE;
    let (mut asked, mut refused) = (BTreeSet::new(), false);
    loop {
        netlink.read_neighbours(table).await?;
        let mut missing = BTreeSet::new();
        for (&address, way) in ways.iter_mut() {
            let Way::Away { interface, gateway, mac, .. } = way else { continue };
            let key: NeighbourKey = (*interface, gateway.unwrap_or(address));
            *mac = table.neighbours.get(&key).and_then(|neighbour| neighbour.mac);
            if mac.is_none() && table.links.get(interface).is_some_and(|link| link.address.is_some()) {
                missing.insert(key);
            }
        }
        if missing.is_empty() || Instant::now() >= deadline {
            return Ok(missing.is_empty() || !refused);
        }
        for key in missing {
            if asked.insert(key)
                && let Err(error) = netlink.solicit(key).await
            {
                log::debug!("{}: {error}", key.1);
                refused |= is_refusal(&error);
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Whether the kernel does not let this process ask; whatever else is wrong is so for everybody.
fn is_refusal(error: &Error) -> bool {
    let Error::Request { source: rtnetlink::Error::NetlinkError(message), .. } = error else { return false };
    [libc::EPERM, libc::EACCES].contains(&-message.raw_code())
}

fn way(destined: Destined, address: IpAddr, interfaces: &BTreeMap<u32, Interface>, table: &Table) -> Way {
    let route = match destined {
        Destined::Nowhere => return Way::Nowhere,
        Destined::Here => return Way::Here,
        Destined::Away(route) => route,
    };
    let most = interfaces.get(&route.interface).map_or(u32::MAX, |interface| interface.mtu);
    Way::Away {
        interface: route.interface,
        gateway: route.gateway,
        source: route.source.or_else(|| table.source_address(route.interface, address)),
        mtu: route.mtu.unwrap_or(most).min(most),
        mac: None,
    }
}

fn interface(message: &LinkMessage) -> Interface {
    let flags = message.header.flags;
    let mut interface = Interface {
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        ..Interface::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(address) if message.header.link_layer_type == LinkLayerType::Ether => {
                interface.mac = <[u8; 6]>::try_from(address.as_slice()).ok();
            }
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::Controller(master) => interface.master = Some(*master),
            LinkAttribute::Link(lower) => interface.lower = Some(*lower),
            LinkAttribute::LinkInfo(info) => {
                interface.kind = info.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    interface
}

/// An answer takes a round trip on the local network.
const PATIENCE: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_loopback_is_found_and_its_addresses_are_here() {
        let own: IpAddr = "127.0.0.1".parse().expect("an address");
        let survey = Survey::take(&[own].into()).await.expect("the kernel tells");
        let (index, loopback) = survey.named("lo").expect("every namespace has one");
        assert_eq!((loopback.mac, survey.name(index).as_str()), (None, "lo"));
        assert_eq!(survey.ways.get(&own), Some(&Way::Here));
    }
}
