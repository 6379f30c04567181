//! Frames for which MAC addresses are this host's, when they arrive on the attached interfaces.

use std::collections::{BTreeSet, HashMap};

use super::table::{Link, Table};
use crate::control::OwnMacs;

impl Table {
    /// Addresses that the host takes frames for by the interfaces in `attached`: theirs; those of the bridge or bond that one
    /// is a port of, and of the ports where one is such a bridge or bond itself; those of VLAN, macvlan (such as VRRP's) and
    /// ipvlan interfaces on any of these. `None`, which is any, where one of `attached` has no Ethernet address, or none is known.
    pub(super) fn own_macs(&self, attached: &BTreeSet<u32>) -> OwnMacs {
        let has_none = |interface| self.links.get(interface).is_some_and(|link| link.address.is_none());
        if attached.iter().any(has_none) {
            return None;
        }
        let mut above: HashMap<u32, Vec<u32>> = HashMap::new();
        for (&index, link) in &self.links {
            above.entry(link.lower.unwrap_or_default()).or_default().push(index);
        }
        let is_port = |link: &Link| link.master.is_some_and(|of| attached.contains(&of));
        let ports = self.links.iter().filter(|(_, link)| is_port(link)).map(|(&port, _)| port);
        let mut found: BTreeSet<u32> = attached.iter().copied().chain(ports).collect();
        let mut todo: Vec<u32> = found.iter().copied().collect();
        while let Some(interface) = todo.pop() {
            let master = self.links.get(&interface).and_then(|link| link.master);
            let above = above.get(&interface).into_iter().flatten().copied();
            todo.extend(above.chain(master).filter(|&index| found.insert(index)));
        }
        let macs: BTreeSet<_> =
            found.iter().filter_map(|interface| self.links.get(interface)?.address).collect();
        Some(macs).filter(|macs| !macs.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interface `number` with the MAC address that ends in it.
    fn link(table: &mut Table, number: u8, link: Link) {
        table.links.insert(number.into(), Link { address: Some([2, 0, 0, 0, 0, number]), ..link });
    }

    fn own(table: &Table, attached: impl IntoIterator<Item = u32>) -> Vec<u8> {
        let macs = table.own_macs(&attached.into_iter().collect()).unwrap_or_default();
        macs.iter().map(|mac| mac[5]).collect()
    }

    #[test]
    fn the_interface_what_it_is_part_of_and_what_is_on_top() {
        let mut table = Table::default();
        let (plain, on, port_of) = (
            Link::default,
            |lower| Link { lower: Some(lower), ..Link::default() },
            |master| Link { master: Some(master), ..Link::default() },
        );
        link(&mut table, 1, plain());
        link(&mut table, 2, plain());
        // eth3 and eth4 are bond5; vlan6 is on it, a port of bridge 7, on which VRRP's macvlan 8 is.
        link(&mut table, 3, port_of(5));
        link(&mut table, 4, port_of(5));
        link(&mut table, 5, plain());
        link(&mut table, 6, Link { master: Some(7), ..on(5) });
        link(&mut table, 7, plain());
        link(&mut table, 8, on(7));
        // A guest's port of the bridge.
        link(&mut table, 9, port_of(7));
        assert_eq!(own(&table, [1]), [1]);
        assert_eq!(own(&table, [1, 2]), [1, 2]);
        // Frames for a port of a bond may come in by another.
        assert_eq!(own(&table, [5]), [3, 4, 5, 6, 7, 8]);
        assert_eq!(own(&table, [3]), [3, 5, 6, 7, 8]);
        // The bridge's own traffic; a guest's is the guest's.
        assert_eq!(own(&table, [6]), [6, 7, 8]);
        assert_eq!(own(&table, [8]), [8]);
        assert_eq!(own(&table, [7]), [6, 7, 8, 9]);
    }

    #[test]
    fn without_an_address_any_will_do() {
        let mut table = Table::default();
        assert_eq!(table.own_macs(&[1].into()), None);
        table.links.insert(1, Link::default());
        assert_eq!(table.own_macs(&[1].into()), None);
        link(&mut table, 2, Link::default());
        assert_eq!(table.own_macs(&[1, 2].into()), None);
        assert_eq!(own(&table, [2, 3]), [2]);
        assert_eq!(table.own_macs(&BTreeSet::new()), None);
    }
}
