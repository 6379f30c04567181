//! `[nat]`: the load balancer's own addresses and ports.

use std::net::IpAddr;

use super::{
    daemon::set,
    key::{Key, List, Text},
    reference::Section,
    report::{At, Place, Report, Wrong},
    table::{Item, Table},
    values,
};
use crate::domain::NatPool;

/// `[nat]` with positions, for the checks against services.
pub(super) struct NatDraft {
    /// Of the section, or of the file where it has none.
    pub(super) place: Place,
    pub(super) addresses: Vec<At<IpAddr>>,
    ports: (u16, u16),
}

pub(super) fn read(document: &mut Table<'_>, report: &mut Report<'_>) -> NatDraft {
    let defaults = NatPool::default();
    let ports = (defaults.first_port, defaults.last_port);
    let mut draft = NatDraft { place: document.place(), addresses: Vec::new(), ports };
    let Some(mut table) = document.table("nat", "[nat]", report) else { return draft };
    draft.place = table.place();
    if let Some(item) = table.get(&ADDRESSES) {
        draft.addresses = read_addresses(&item, report);
    }
    set(&mut draft.ports, table.read(&PORTS, report));
    table.finish(report);
    draft
}

fn read_addresses(item: &Item<'_>, report: &mut Report<'_>) -> Vec<At<IpAddr>> {
    let mut addresses: Vec<At<IpAddr>> = Vec::new();
    for element in item.array("such as [\"192.0.2.1\"]", report) {
        let Some(address) = element.parse(report, values::address) else { continue };
        if addresses.iter().any(|known| known.value == address.value) {
            let message = format!("`addresses` names {} twice", address.value);
            report.error(address.place, Wrong::new(message, "each address once"));
            continue;
        }
        let of_family = addresses.iter().filter(|known| known.value.is_ipv4() == address.value.is_ipv4());
        if of_family.count() == NatPool::MAX_ADDRESSES {
            let family = if address.value.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!("`addresses` has more than {} {family} addresses", NatPool::MAX_ADDRESSES);
            report.error(address.place, Wrong::new(message, "there is room for no more"));
            return addresses;
        }
        addresses.push(address);
    }
    addresses
}

impl NatDraft {
    pub(super) fn pool(&self) -> NatPool {
        NatPool {
            addresses: self.addresses.iter().map(|address| address.value).collect(),
            first_port: self.ports.0,
            last_port: self.ports.1,
        }
    }
}

pub(super) const NAT: Section = Section {
    heading: "## `[nat]`",
    says: "Where packets of `nat` come from, as their backends see it. `reload` changes it; flows keep what they have.",
    keys: &[&ADDRESSES, &PORTS],
};

const ADDRESSES: Key<List> = Key {
    name: "addresses",
    takes: List("addresses, up to 8 of each family"),
    default: "`[]`",
    means: "addresses of this host, or routed to it. Without any of a family: the address with which the host would \
            reach the backend",
};
const PORTS: Key<Text<(u16, u16)>> = Key {
    name: "ports",
    takes: Text("first and last port, 1,024 to 65,535", values::port_range),
    default: "`\"61000-65535\"`",
    means: "as many flows to one backend's address and port at a time as there are ports, times addresses; how many \
            that should be: [ports of `nat`](forwarding-modes.md#ports-of-nat)",
};
