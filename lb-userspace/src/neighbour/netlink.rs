use std::{collections::BTreeSet, net::IpAddr};

use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};
use rtnetlink::{Handle, MulticastGroup, sys::AsyncSocket};

use super::{
    Error,
    host_route::host_route,
    table::{Link, Neighbour, NeighbourKey, Route, Table},
};

/// Questions to the kernel of the network namespace it was made in.
#[derive(Clone)]
pub(super) struct Netlink {
    handle: Handle,
}

pub(super) type Notifications = BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

/// What a notification means for a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// The kernel's answers for routes may be others now.
    pub(super) routes: bool,
    /// Notifications were lost: everything may be another now.
    pub(super) resync: bool,
}

/// Where packets of this host go.
pub(super) enum Destined {
    Nowhere,
    /// To this host.
    Here,
    Away(Route),
}

impl Netlink {
    /// A connection for questions only.
    pub(super) fn new() -> Result<Self, Error> {
        let (connection, handle, _notifications) = rtnetlink::new_connection().map_err(Error::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// One that was closed.
    #[cfg(test)]
    pub(super) fn lost() -> Self {
        let (_connection, handle, _notifications) = rtnetlink::new_connection().expect("a socket");
        Self { handle }
    }

    /// A connection that is told of changes from now on; the stream ends when the connection is lost. Questions
    /// should go another way, so that an overrun loses none of their answers.
    pub(super) fn listen() -> Result<Notifications, Error> {
        let (mut connection, _handle, notifications) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(Error::Socket)?;
        let socket = connection.socket_mut().socket_mut();
        socket.set_rx_buf_sz(RECEIVE_BUFFER).map_err(Error::Socket)?;
        tokio::spawn(connection);
        Ok(notifications.map(|(message, _sender)| message).boxed())
    }

    /// Reads links, addresses, neighbours and the routes to `backends` anew.
    pub(super) async fn read(&self, backends: &BTreeSet<IpAddr>) -> Result<Table, Error> {
        let mut table = Table::default();
        let failed = |source| Error::Request { operation: "listing addresses", source };
        for message in self.links().await? {
            table.set_link(&message, true);
        }
        let mut addresses = std::pin::pin!(self.handle.address().get().execute());
        while let Some(message) = addresses.try_next().await.map_err(failed)? {
            table.set_address(&message, true);
        }
        self.read_neighbours(&mut table).await?;
        self.read_routes(&mut table, backends).await?;
        Ok(table)
    }

    /// Every interface, as the kernel describes it.
    pub(super) async fn links(&self) -> Result<Vec<LinkMessage>, Error> {
        let failed = |source| Error::Request { operation: "listing interfaces", source };
        self.handle.link().get().execute().try_collect().await.map_err(failed)
    }

    /// Adds the kernel's neighbours to the table.
    pub(super) async fn read_neighbours(&self, table: &mut Table) -> Result<(), Error> {
        let failed = |source| Error::Request { operation: "listing neighbours", source };
        let mut neighbours = std::pin::pin!(self.handle.neighbours().get().execute());
        while let Some(message) = neighbours.try_next().await.map_err(failed)? {
            table.set_neighbour(&message, true);
        }
        Ok(())
    }

    /// Asks for the routes to `backends` and makes them the table's only ones.
    pub(super) async fn read_routes(
        &self,
        table: &mut Table,
        backends: &BTreeSet<IpAddr>,
    ) -> Result<(), Error> {
        // Owned by each future: with references the whole would not be known as Send.
        let answers = futures_util::stream::iter(backends.clone())
            .map(|backend| {
                let netlink = self.clone();
                async move { netlink.route(backend).await.map(|route| (backend, route)) }
            })
            .buffer_unordered(QUESTIONS_AT_A_TIME);
        table.routes = answers.try_collect().await?;
        Ok(())
    }

    /// The kernel's own choice of a route, rules and metrics considered.
    async fn route(&self, destination: IpAddr) -> Result<Option<Route>, Error> {
        Ok(self.look_up(host_route(destination).build()).await?.as_ref().and_then(route_of))
    }

    /// Its choice for packets with a mark, from an address of this host if one is given.
    pub(super) async fn destined(
        &self,
        destination: IpAddr,
        source: Option<IpAddr>,
        mark: u32,
    ) -> Result<Destined, Error> {
        let mut question = host_route(destination).build();
        question.attributes.push(RouteAttribute::Mark(mark));
        if let Some(source) = source {
            question.header.source_prefix_length = question.header.destination_prefix_length;
            question.attributes.push(RouteAttribute::Source(source.into()));
        }
        let answer = self.look_up(question).await?;
        let is_local = answer.as_ref().is_some_and(|message| message.header.kind == RouteType::Local);
        Ok(match answer.as_ref().and_then(route_of) {
            _ if is_local => Destined::Here,
            Some(route) => Destined::Away(route),
            None => Destined::Nowhere,
        })
    }

    async fn look_up(&self, question: RouteMessage) -> Result<Option<RouteMessage>, Error> {
        let mut answer = std::pin::pin!(self.handle.route().get(question).execute());
        match answer.try_next().await {
            Ok(message) => Ok(message),
            Err(error) if is_no_route(&error) => Ok(None),
            Err(source) => Err(Error::Request { operation: "looking up a route", source }),
        }
    }

    /// Makes the kernel resolve an entry, or confirm one that is stale, as if it had something to send (NTF_USE).
    pub(super) async fn solicit(&self, (interface, address): NeighbourKey) -> Result<(), Error> {
        let request = self.handle.neighbours().add(interface, address);
        let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use).replace();
        let asked = request.execute().await;
        asked.map_err(|source| Error::Request { operation: "asking for a neighbour", source })
    }
}

impl Table {
    /// Takes one notification.
    pub(super) fn apply(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) -> Effect {
        let none = Effect::default();
        // Routes go silently with an interface or an address, and come back with them.
        let routes = Effect { routes: true, ..none };
        let inner = match &message.payload {
            NetlinkPayload::InnerMessage(inner) => inner,
            NetlinkPayload::Overrun(_) => return Effect { resync: true, ..none },
            _ => return none,
        };
        match inner {
            RouteNetlinkMessage::NewNeighbour(message) => self.set_neighbour(message, true),
            RouteNetlinkMessage::DelNeighbour(message) => self.set_neighbour(message, false),
            RouteNetlinkMessage::NewLink(message) => {
                return if self.set_link(message, true) { routes } else { none };
            }
            RouteNetlinkMessage::DelLink(message) => {
                return if self.set_link(message, false) { routes } else { none };
            }
            RouteNetlinkMessage::NewAddress(message) => {
                self.set_address(message, true);
                return routes;
            }
            RouteNetlinkMessage::DelAddress(message) => {
                self.set_address(message, false);
                return routes;
            }
            RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
                let (prefix, length) = destination_of(message);
                return Effect { routes: prefix.is_none_or(|prefix| self.concerns(prefix, length)), ..none };
            }
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => return routes,
            _ => {}
        }
        none
    }

    /// Returns whether anything changed.
    fn set_link(&mut self, message: &LinkMessage, exists: bool) -> bool {
        // Bridges also tell of their ports, with a family of their own; those are not about the interface itself.
        if message.header.interface_family != AddressFamily::Unspec {
            return false;
        }
        let index = message.header.index;
        if !exists {
            self.addresses.remove(&index);
            self.neighbours.retain(|(interface, _), _| *interface != index);
            self.former.retain(|(interface, _), _| *interface != index);
            return self.links.remove(&index).is_some();
        }
        let up = message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
        let mut link = Link { up, ..Link::default() };
        let (mut sendable, mut divides, mut elsewhere) = (true, false, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Address(address) if message.header.link_layer_type == LinkLayerType::Ether => {
                    link.address = mac(address);
                }
                LinkAttribute::Controller(master) => link.master = Some(*master),
                LinkAttribute::Link(lower) => link.lower = Some(*lower),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::LinkInfo(info) => {
                    sendable = !info.iter().any(is_virtual);
                    divides = info.iter().any(divides_frames);
                }
                _ => {}
            }
        }
        link.mac = link.address.filter(|_| sendable);
        link.lower = link.lower.filter(|_| divides && !elsewhere);
        let before = self.links.insert(index, link.clone());
        if up && before.as_ref().is_some_and(|before| !before.up) {
            self.is_back(index);
        }
        before != Some(link)
    }

    fn set_address(&mut self, message: &AddressMessage, exists: bool) {
        let find =
            |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
        let local = find(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        // On a point-to-point interface IFA_ADDRESS is the peer's.
        let address = local.or_else(|| {
            find(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
        });
        let Some(address) = address else { return };
        let unfit =
            AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed | AddressHeaderFlags::Deprecated;
        let fit = exists
            && message.header.scope == AddressScope::Universe
            && !message.header.flags.intersects(unfit);
        let addresses = self.addresses.entry(message.header.index).or_default();
        match (fit, addresses.iter().position(|&known| known == address)) {
            (true, None) => addresses.push(address),
            (false, Some(position)) => drop(addresses.remove(position)),
            _ => {}
        }
    }

    fn set_neighbour(&mut self, message: &NeighbourMessage, exists: bool) {
        // Bridges' forwarding entries come by the same messages, without an address.
        let destination = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        });
        let Some(destination) = destination else { return };
        if message.header.flags.contains(NeighbourFlags::Proxy) {
            return;
        }
        let key = (message.header.ifindex, destination);
        if !exists {
            return self.know(key, None);
        }
        let state = message.header.state;
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(address) => mac(address),
            _ => None,
        });
        let mac = address.filter(|_| is_usable(state));
        let (stale, failed) = (state == NeighbourState::Stale, state == NeighbourState::Failed);
        self.know(key, Some(Neighbour { mac, stale, failed }));
    }
}

/// Whether the kernel itself would send to the address an entry in this state has (NUD_VALID).
fn is_usable(state: NeighbourState) -> bool {
    match state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Noarp
        | NeighbourState::Permanent => true,
        NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None => false,
        // Several bits or a new one: nothing to rely on.
        _ => false,
    }
}

/// An Ethernet address; none where it is of another length or all zero, which must never be on the wire.
fn mac(address: &[u8]) -> Option<[u8; 6]> {
    <[u8; 6]>::try_from(address).ok().filter(|mac| *mac != [0; 6])
}

fn route_of(message: &RouteMessage) -> Option<Route> {
    // Local, unreachable, blackhole, prohibit: nothing leaves this host.
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut interface = None;
    let (mut gateway, mut source, mut mtu) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(Route { interface: interface?, gateway, source, mtu })
}

/// The prefix a route is for; `None` for a family that is not IP. A default route carries no address.
fn destination_of(message: &RouteMessage) -> (Option<IpAddr>, u8) {
    let carried = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    let any = match message.header.address_family {
        AddressFamily::Inet => Some(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
        AddressFamily::Inet6 => Some(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)),
        _ => None,
    };
    (carried.or(any), message.header.destination_prefix_length)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// The kernel's ways to say that there is no route: none at all, or one that says so.
fn is_no_route(error: &rtnetlink::Error) -> bool {
    let rtnetlink::Error::NetlinkError(message) = error else { return false };
    let no_route = [
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EACCES,
        libc::EINVAL,
        libc::ENETDOWN,
        libc::ENODEV,
        libc::ESRCH,
    ];
    no_route.contains(&-message.raw_code())
}

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Neigh,
    MulticastGroup::Link,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];
/// Room for a few thousand notifications; the kernel caps it at `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 1 << 20;
const QUESTIONS_AT_A_TIME: usize = 64;

/// Interfaces that XDP can't send on: the frame would be lost after our verdict, or leave without its tag.
fn is_virtual(info: &LinkInfo) -> bool {
    use InfoKind::{Bridge, IpVlan, MacVlan, Vlan};
    matches!(info, LinkInfo::Kind(Bridge | IpVlan | MacVlan | Vlan))
}

/// Interfaces that the host itself takes some frames of another one by. Not macvtap: what is behind it is another machine.
fn divides_frames(info: &LinkInfo) -> bool {
    use InfoKind::{IpVlan, MacVlan, Vlan};
    matches!(info, LinkInfo::Kind(IpVlan | MacVlan | Vlan))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkHeader;

    use super::*;

    const BACKEND: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 0, 0, 9);
    const KEY: NeighbourKey = (3, IpAddr::V4(BACKEND));

    fn notification(inner: RouteNetlinkMessage) -> NetlinkMessage<RouteNetlinkMessage> {
        NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(inner))
    }

    fn neighbour(state: NeighbourState, address: Option<&[u8]>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = KEY.0;
        message.header.state = state;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(BACKEND)));
        message
            .attributes
            .extend(address.map(|address| NeighbourAttribute::LinkLayerAddress(address.to_vec())));
        message
    }

    fn link(family: AddressFamily, mtu: u32) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.interface_family = family;
        message.header.index = 3;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.attributes = vec![LinkAttribute::Address(vec![2; 6]), LinkAttribute::Mtu(mtu)];
        message
    }

    #[test]
    fn an_overrun_calls_for_reading_everything() {
        let overrun = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::Overrun(Vec::new()));
        assert_eq!(Table::default().apply(&overrun), Effect { resync: true, routes: false });
    }

    #[test]
    fn only_addresses_the_kernel_would_send_to_are_used() {
        let mac = [2u8, 0, 0, 0, 0, 9];
        for (state, address, expected) in [
            (NeighbourState::Reachable, &mac[..], Some(mac)),
            (NeighbourState::Stale, &mac, Some(mac)),
            (NeighbourState::Delay, &mac, Some(mac)),
            (NeighbourState::Probe, &mac, Some(mac)),
            (NeighbourState::Permanent, &mac, Some(mac)),
            (NeighbourState::Noarp, &mac, Some(mac)),
            (NeighbourState::Incomplete, &mac, None),
            (NeighbourState::Failed, &mac, None),
            (NeighbourState::None, &mac, None),
            (NeighbourState::Reachable, &[0; 6], None),
            (NeighbourState::Reachable, &[2; 4], None),
        ] {
            let mut table = Table::default();
            let (stale, failed) = (state == NeighbourState::Stale, state == NeighbourState::Failed);
            let effect = table
                .apply(&notification(RouteNetlinkMessage::NewNeighbour(neighbour(state, Some(address)))));
            assert_eq!(effect, Effect::default());
            assert_eq!(
                table.neighbours.get(&KEY),
                Some(&Neighbour { mac: expected, stale, failed }),
                "{state} {address:?}"
            );
            table.apply(&notification(RouteNetlinkMessage::DelNeighbour(neighbour(state, None))));
            assert_eq!(table.neighbours.get(&KEY), None);
        }
    }

    #[test]
    fn a_changed_link_makes_routes_doubtful_and_a_gone_one_takes_its_neighbours_along() {
        let mut table = Table::default();
        let changed = Effect { routes: true, resync: false };
        let new = |message| notification(RouteNetlinkMessage::NewLink(message));
        assert_eq!(table.apply(&new(link(AddressFamily::Unspec, 1500))), changed);
        assert_eq!(table.apply(&new(link(AddressFamily::Unspec, 1500))), Effect::default());
        assert_eq!(table.apply(&new(link(AddressFamily::Bridge, 1400))), Effect::default());
        assert_eq!(
            table.links.get(&3),
            Some(&Link { address: Some([2; 6]), mac: Some([2; 6]), mtu: 1500, up: true, ..Link::default() })
        );

        let known = neighbour(NeighbourState::Reachable, Some(&[2; 6]));
        table.apply(&notification(RouteNetlinkMessage::NewNeighbour(known)));
        let gone = notification(RouteNetlinkMessage::DelLink(link(AddressFamily::Unspec, 1500)));
        assert_eq!(table.apply(&gone), changed);
        assert_eq!((table.links.len(), table.neighbours.len(), table.former.len()), (0, 0, 0));
    }

    #[test]
    fn a_source_address_is_global_and_settled() {
        let address = |last: u16, scope, flags| {
            let mut message = AddressMessage::default();
            message.header.index = 3;
            message.header.scope = scope;
            message.header.flags = flags;
            let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
            message.attributes.push(AddressAttribute::Address(address.into()));
            message
        };
        let mut table = Table::default();
        let settled = AddressHeaderFlags::empty();
        for message in [
            address(1, AddressScope::Link, settled),
            address(2, AddressScope::Universe, AddressHeaderFlags::Tentative),
            address(3, AddressScope::Universe, AddressHeaderFlags::Deprecated),
            address(4, AddressScope::Universe, settled),
        ] {
            table.apply(&notification(RouteNetlinkMessage::NewAddress(message)));
        }
        assert_eq!(table.addresses[&3], ["2001:db8::4".parse::<IpAddr>().unwrap()]);
        let late = address(4, AddressScope::Universe, AddressHeaderFlags::Deprecated);
        table.apply(&notification(RouteNetlinkMessage::NewAddress(late)));
        assert_eq!(table.addresses[&3], [] as [IpAddr; 0]);
    }
}
