use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use crate::control::{Hop, NextHopUpdate};

/// A copy of the kernel's links, addresses and neighbours, and of its answers for the backends' routes.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) links: HashMap<u32, Link>,
    /// Addresses fit to be a source, by interface, in the kernel's order.
    pub(super) addresses: HashMap<u32, Vec<IpAddr>>,
    pub(super) neighbours: HashMap<(u32, IpAddr), Neighbour>,
    /// MAC addresses of entries that the kernel has dropped, as it drops all of a link that is lost. That says nothing of
    /// who had them: they hold until the kernel has asked again.
    pub(super) former: HashMap<NeighbourKey, Former>,
    /// Answers of the kernel for each backend asked about; `None`: no route that leaves this host.
    pub(super) routes: BTreeMap<IpAddr, Option<Route>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// `None`: not Ethernet.
    pub(super) address: Option<[u8; 6]>,
    /// The same where XDP can send on it.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu: u32,
    /// Up, and so is what it is plugged into.
    pub(super) up: bool,
    /// The bridge or bond that it is a port of.
    pub(super) master: Option<u32>,
    /// The interface of this host whose frames it takes some of (VLAN, macvlan, ipvlan).
    pub(super) lower: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) interface: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) mtu: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// `None` while the kernel doesn't vouch for one (incomplete, failed).
    pub(super) mac: Option<[u8; 6]>,
    /// Not confirmed for a while; the kernel only asks again when it sends something itself.
    pub(super) stale: bool,
    /// The kernel has asked, and nobody answered.
    pub(super) failed: bool,
}

/// A MAC address from before its entry was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Former {
    pub(super) mac: [u8; 6],
    /// When the link came back the kernel was asking already: that it has asked in vain says nothing then.
    pub(super) asked_in_the_dark: bool,
    /// It was there when everything was read anew, and its link, too.
    pub(super) old: bool,
}

impl Former {
    const fn of(mac: [u8; 6]) -> Self {
        Self { mac, asked_in_the_dark: false, old: false }
    }
}

/// An entry of the kernel's neighbour table: interface and address.
pub(super) type NeighbourKey = (u32, IpAddr);

impl Table {
    /// The way to `backend` as far as it is known.
    pub(super) fn next_hop(&self, backend: IpAddr) -> NextHopUpdate {
        let route = self.route(backend);
        let gateway = route.and_then(|route| route.gateway);
        NextHopUpdate { backend, gateway, hop: route.and_then(|route| self.hop(backend, route)) }
    }

    fn hop(&self, backend: IpAddr, route: &Route) -> Option<Hop> {
        let link = self.links.get(&route.interface).filter(|link| link.up)?;
        let key = (route.interface, route.gateway.unwrap_or(backend));
        let entry = self.neighbours.get(&key);
        let mac =
            entry.and_then(|entry| entry.mac).or_else(|| self.former.get(&key).map(|former| former.mac))?;
        let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        let source = route.source.or_else(|| self.source_address(route.interface, backend))?;
        Some(Hop { mac, ifindex: route.interface, source_mac: link.mac?, mtu, source })
    }

    /// The neighbour entry `backend`'s packets need, on an interface that could carry them.
    pub(super) fn neighbour_key(&self, backend: IpAddr) -> Option<NeighbourKey> {
        let route = self.route(backend)?;
        self.links.get(&route.interface).filter(|link| link.up && link.mac.is_some())?;
        Some((route.interface, route.gateway.unwrap_or(backend)))
    }

    /// What is known of an entry from now on; `None`: the kernel has dropped it.
    pub(super) fn know(&mut self, key: NeighbourKey, entry: Option<Neighbour>) {
        let Some(entry) = entry else {
            let mac = self.neighbours.remove(&key).and_then(|entry| entry.mac);
            self.former.extend(mac.map(|mac| (key, Former::of(mac))));
            return;
        };
        // Without a link it is asked in vain.
        let in_vain = entry.failed && self.is_up(key.0);
        if entry.mac.is_some() || in_vain && !self.was_asked_in_the_dark(&key) {
            self.former.remove(&key);
        }
        self.neighbours.insert(key, entry);
    }

    fn was_asked_in_the_dark(&mut self, key: &NeighbourKey) -> bool {
        self.former.get_mut(key).is_some_and(|former| std::mem::take(&mut former.asked_in_the_dark))
    }

    /// The link of this interface has come back.
    pub(super) fn is_back(&mut self, interface: u32) {
        for (key, former) in self.former.iter_mut().filter(|(key, _)| key.0 == interface) {
            former.asked_in_the_dark = self.neighbours.get(key).is_some_and(|entry| !entry.failed);
        }
    }

    fn is_up(&self, interface: u32) -> bool {
        self.links.get(&interface).is_some_and(|link| link.up)
    }

    /// Takes over what the kernel does not tell: MAC addresses that were known before this was read.
    pub(super) fn succeed(&mut self, before: Self) {
        let known = before.neighbours.into_iter().filter_map(|(key, entry)| Some((key, entry.mac?)));
        let known = known.map(|(key, mac)| (key, Former::of(mac)));
        let mut former: HashMap<_, _> = before.former.into_iter().chain(known).collect();
        let needed: BTreeSet<_> = self.needed().collect();
        former.retain(|key, former| {
            let is_up = self.is_up(key.0);
            let entry = self.neighbours.get(key);
            let is_settled = entry.is_some_and(|entry| entry.mac.is_some() || entry.failed && is_up);
            // Who is behind a link that is down may be needed when it is back. With a link the kernel has asked by now,
            // if it can at all.
            let has_time = !std::mem::replace(&mut former.old, is_up);
            !is_settled
                && if is_up { needed.contains(key) && has_time } else { self.links.contains_key(&key.0) }
        });
        self.former = former;
    }

    /// Entries that are needed and not resolved, each once.
    pub(super) fn unresolved(&self) -> BTreeSet<NeighbourKey> {
        self.needed().filter(|key| self.neighbours.get(key).is_none_or(|entry| entry.mac.is_none())).collect()
    }

    /// Entries that are needed and not confirmed, each once.
    pub(super) fn stale(&self) -> BTreeSet<NeighbourKey> {
        self.needed().filter(|key| self.neighbours.get(key).is_some_and(|entry| entry.stale)).collect()
    }

    /// Whether a change of the routes to this prefix may concern a backend.
    pub(super) fn concerns(&self, prefix: IpAddr, length: u8) -> bool {
        self.routes.keys().any(|&backend| contains(prefix, length, backend))
    }

    fn needed(&self) -> impl Iterator<Item = NeighbourKey> {
        self.routes.keys().filter_map(|&backend| self.neighbour_key(backend))
    }

    fn route(&self, backend: IpAddr) -> Option<&Route> {
        self.routes.get(&backend)?.as_ref()
    }

    /// Where the host's packets to `backend` come from, unless the route says so.
    pub(super) fn source_address(&self, interface: u32, backend: IpAddr) -> Option<IpAddr> {
        let addresses = self.addresses.get(&interface)?;
        addresses.iter().copied().find(|address| address.is_ipv4() == backend.is_ipv4())
    }
}

/// What the control task was told last, to tell it only what changed.
#[derive(Debug, Default)]
pub(super) struct Told {
    updates: BTreeMap<IpAddr, NextHopUpdate>,
}

impl Told {
    /// What differs for the backends that `table` has routes for. Those it has none for are forgotten.
    pub(super) fn changes(&mut self, table: &Table) -> Vec<NextHopUpdate> {
        self.updates.retain(|backend, _| table.routes.contains_key(backend));
        let all = table.routes.keys().map(|&backend| table.next_hop(backend));
        all.filter(|update| self.updates.get(&update.backend) != Some(update)).collect()
    }

    pub(super) fn accept(&mut self, updates: Vec<NextHopUpdate>) {
        self.updates.extend(updates.into_iter().map(|update| (update.backend, update)));
    }
}

fn contains(prefix: IpAddr, length: u8, address: IpAddr) -> bool {
    let (prefix, address, bits) = match (prefix, address) {
        (IpAddr::V4(prefix), IpAddr::V4(address)) => (prefix.to_bits().into(), address.to_bits().into(), 32),
        (IpAddr::V6(prefix), IpAddr::V6(address)) => (prefix.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    let host_bits = bits - u32::from(length).min(bits);
    // A shift by all 128 bits leaves nothing, which is what /0 means.
    let network = |value: u128| value.checked_shr(host_bits).unwrap_or(0);
    network(prefix) == network(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERFACE: u32 = 7;
    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A table in which each of `(backend, gateway, source)` is fully resolved.
    fn table() -> Table {
        let mut table = Table::default();
        table.links.insert(INTERFACE, Link { mac: Some(OURS), mtu: 1500, up: true, ..Link::default() });
        table.addresses.insert(INTERFACE, vec![ip("10.0.0.1"), ip("10.0.0.2"), ip("2001:db8::1")]);
        for (backend, gateway) in BACKENDS {
            let gateway = gateway.map(ip);
            let route = Route { interface: INTERFACE, gateway, source: None, mtu: None };
            table.routes.insert(ip(backend), Some(route));
            let neighbour = Neighbour { mac: Some(THEIRS), ..Neighbour::default() };
            table.neighbours.insert((INTERFACE, gateway.unwrap_or(ip(backend))), neighbour);
        }
        table
    }

    const BACKENDS: [(&str, Option<&str>); 5] = [
        ("10.0.0.9", None),
        ("172.16.0.9", Some("10.0.0.254")),
        ("2001:db8::9", None),
        ("2001:db8:1::9", Some("fe80::1")),
        // RFC 5549: an IPv4 route through an IPv6 gateway.
        ("192.168.0.9", Some("fe80::1")),
    ];

    fn hop(source: &str) -> Hop {
        Hop { mac: THEIRS, ifindex: INTERFACE, source_mac: OURS, mtu: 1500, source: ip(source) }
    }

    #[test]
    fn a_hop_joins_route_neighbour_link_and_address() {
        for (backend, gateway) in BACKENDS {
            let backend = ip(backend);
            let source = if backend.is_ipv4() { "10.0.0.1" } else { "2001:db8::1" };
            let expected = NextHopUpdate { backend, gateway: gateway.map(ip), hop: Some(hop(source)) };
            assert_eq!(table().next_hop(backend), expected);
        }
    }

    #[test]
    fn the_routes_own_source_and_smaller_mtu_win() {
        let mut table = table();
        let route = |mtu| Route { interface: INTERFACE, gateway: None, source: Some(ip("10.9.9.9")), mtu };
        for (route_mtu, mtu) in [(Some(1400), 1400), (Some(9000), 1500), (None, 1500)] {
            table.routes.insert(ip("10.0.0.9"), Some(route(route_mtu)));
            let expected = Hop { mtu, ..hop("10.9.9.9") };
            assert_eq!(table.next_hop(ip("10.0.0.9")).hop, Some(expected));
        }
    }

    #[test]
    fn anything_missing_leaves_a_backend_unresolved() {
        let link = Link { mac: Some(OURS), mtu: 1500, up: true, ..Link::default() };
        type Remove = fn(&mut Table, Link);
        let cases: [(&str, Remove); 7] = [
            ("no route", |table, _| {
                table.routes.insert(ip("10.0.0.9"), None);
            }),
            ("no link", |table, _| table.links.clear()),
            ("link down", |table, link| {
                table.links.insert(INTERFACE, Link { up: false, ..link });
            }),
            ("no Ethernet", |table, link| {
                table.links.insert(INTERFACE, Link { mac: None, ..link });
            }),
            ("no neighbour", |table, _| table.neighbours.clear()),
            ("neighbour failed", |table, _| {
                let failed = Neighbour { failed: true, ..Neighbour::default() };
                table.neighbours.insert((INTERFACE, ip("10.0.0.9")), failed);
            }),
            ("no address of the family", |table, _| {
                table.addresses.insert(INTERFACE, vec![ip("2001:db8::1")]);
            }),
        ];
        for (what, remove) in cases {
            let mut table = table();
            remove(&mut table, link.clone());
            assert_eq!(table.next_hop(ip("10.0.0.9")).hop, None, "{what}");
        }
    }

    #[test]
    fn what_the_kernel_has_dropped_holds_until_it_has_asked_again() {
        let backend = ip("10.0.0.9");
        let key = (INTERFACE, backend);
        let mac = |table: &Table| table.next_hop(backend).hop.map(|hop| hop.mac);
        let asking = Some(Neighbour::default());
        let answered = |mac| Some(Neighbour { mac: Some(mac), ..Neighbour::default() });
        let failed = Some(Neighbour { failed: true, ..Neighbour::default() });
        let mut table = table();
        for (entry, expected) in [
            (None, Some(THEIRS)),
            (asking, Some(THEIRS)),
            (answered(OURS), Some(OURS)),
            (asking, None),
            (answered(THEIRS), Some(THEIRS)),
            (None, Some(THEIRS)),
            (asking, Some(THEIRS)),
            (failed, None),
            (asking, None),
            (None, None),
        ] {
            table.know(key, entry);
            assert_eq!(mac(&table), expected, "{entry:?}");
            let is_asked_for = entry != answered(OURS) && entry != answered(THEIRS);
            assert_eq!(table.unresolved().contains(&key), is_asked_for, "{entry:?}");
        }
    }

    #[test]
    fn who_is_asked_while_there_is_no_link_is_not_asked_in_vain() {
        let (backend, key) = (ip("10.0.0.9"), (INTERFACE, ip("10.0.0.9")));
        let mac = |table: &Table| table.next_hop(backend).hop.map(|hop| hop.mac);
        let asking = Some(Neighbour::default());
        let failed = Some(Neighbour { failed: true, ..Neighbour::default() });
        // What the kernel says while the link is down, and how often it has to say that it asked in vain when it is back.
        for (dark, times) in
            [(vec![], 1), (vec![asking], 2), (vec![asking, failed], 1), (vec![failed, asking], 2)]
        {
            let mut table = table();
            let set = |table: &mut Table, up| table.links.get_mut(&INTERFACE).unwrap().up = up;
            set(&mut table, false);
            table.know(key, None);
            dark.iter().for_each(|entry| table.know(key, *entry));
            // Everything is read anew meanwhile.
            let mut read = table.clone();
            read.former.clear();
            read.succeed(table);
            set(&mut read, true);
            read.is_back(INTERFACE);
            for time in 0..times {
                assert_eq!(mac(&read), Some(THEIRS), "{dark:?}, {time}");
                read.know(key, asking);
                assert_eq!(mac(&read), Some(THEIRS), "{dark:?}, {time}");
                read.know(key, failed);
            }
            assert_eq!(mac(&read), None, "{dark:?}");
        }
    }

    #[test]
    fn what_was_known_outlives_reading_everything_anew() {
        let (backend, key) = (ip("10.0.0.9"), (INTERFACE, ip("10.0.0.9")));
        let mac = |table: &Table| table.next_hop(backend).hop.map(|hop| hop.mac);
        // The notification of it was lost.
        let mut read = table();
        read.neighbours.remove(&key);
        read.succeed(table());
        assert_eq!(mac(&read), Some(THEIRS));
        let failed = Neighbour { failed: true, ..Neighbour::default() };
        for (entry, expected) in [(Neighbour::default(), Some(THEIRS)), (failed, None)] {
            let (mut before, mut again) = (table(), table());
            before.know(key, None);
            again.neighbours.insert(key, entry);
            again.succeed(before);
            assert_eq!(mac(&again), expected, "{entry:?}");
        }
        // The kernel does not ask, or does not say so.
        let mut again = table();
        again.neighbours.remove(&key);
        again.succeed(read);
        assert_eq!(mac(&again), None);
        // Who is not needed is forgotten, unless that is for the link alone.
        let other = (INTERFACE, ip("10.0.0.77"));
        for up in [true, false] {
            let mut before = table();
            before.know(other, Some(Neighbour { mac: Some(THEIRS), ..Neighbour::default() }));
            before.know(other, None);
            let mut again = table();
            again.links.get_mut(&INTERFACE).unwrap().up = up;
            again.neighbours.remove(&key);
            again.succeed(before);
            assert_eq!((again.former.contains_key(&other), again.former.contains_key(&key)), (!up, true));
        }
    }

    #[test]
    fn a_gateway_is_named_even_while_it_is_unresolved() {
        let mut table = table();
        table.neighbours.clear();
        assert_eq!(table.next_hop(ip("172.16.0.9")).gateway, Some(ip("10.0.0.254")));
    }

    #[test]
    fn a_next_hop_shared_by_backends_is_asked_for_once() {
        let mut table = table();
        assert_eq!(table.unresolved(), BTreeSet::new());
        let gateway = (INTERFACE, ip("fe80::1"));
        table.neighbours.insert(gateway, Neighbour { mac: Some(THEIRS), stale: true, failed: false });
        assert_eq!(table.stale(), BTreeSet::from([gateway]));
        table.neighbours.remove(&gateway);
        assert_eq!(table.unresolved(), BTreeSet::from([gateway]));
        table.links.get_mut(&INTERFACE).unwrap().up = false;
        assert_eq!(table.unresolved(), BTreeSet::new());
    }

    #[test]
    fn only_changes_are_told_and_again_until_they_are_accepted() {
        let mut table = table();
        let mut told = Told::default();
        let all = told.changes(&table);
        assert_eq!(all.len(), BACKENDS.len());
        assert_eq!(told.changes(&table), all);
        told.accept(all);
        assert_eq!(told.changes(&table), []);

        table
            .neighbours
            .insert((INTERFACE, ip("10.0.0.9")), Neighbour { mac: Some(OURS), ..Neighbour::default() });
        let changed = told.changes(&table);
        assert_eq!(changed.iter().map(|update| update.backend).collect::<Vec<_>>(), [ip("10.0.0.9")]);
        told.accept(changed);

        // Removed and added again: told again.
        let route = table.routes.remove(&ip("10.0.0.9")).unwrap();
        assert_eq!(told.changes(&table), []);
        table.routes.insert(ip("10.0.0.9"), route);
        assert_eq!(told.changes(&table).len(), 1);
    }

    #[test]
    fn route_changes_elsewhere_are_no_concern() {
        let table = table();
        for (prefix, length, concerns) in [
            ("10.0.0.0", 24, true),
            ("0.0.0.0", 0, true),
            ("::", 0, true),
            ("10.0.1.0", 24, false),
            ("172.16.0.9", 32, true),
            ("172.16.0.8", 32, false),
            ("2001:db8:1::", 48, true),
            ("2001:db8:2::", 48, false),
            ("2001:db8::9", 128, true),
        ] {
            assert_eq!(table.concerns(ip(prefix), length), concerns, "{prefix}/{length}");
        }
    }
}
