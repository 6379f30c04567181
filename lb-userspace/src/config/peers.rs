//! `[peers]`: load balancers that flows are replicated with.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    daemon::set,
    key::{Integer, Key, List, Text},
    reference::Section,
    report::{At, Report, Wrong},
    table::{Item, Table, shortened},
    values,
};

/// `[peers]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeersConfig {
    /// One of a family at most, and one of each family that a peer has.
    pub listen: Vec<SocketAddr>,
    /// Each once, and none of `listen`.
    pub addresses: Vec<SocketAddr>,
    /// With the key that messages are signed with; `None`: it is made from the hash key.
    pub key_file: Option<PathBuf>,
    /// Mbit/s that go to each peer at most.
    pub bandwidth: u32,
}

pub(super) fn read(document: &mut Table<'_>, report: &mut Report<'_>) -> Option<PeersConfig> {
    let mut table = document.table("peers", "[peers]", report)?;
    let (listen, addresses) = (table.require(&LISTEN, report), table.require(&ADDRESSES, report));
    let listen = listen.map(|item| read_addresses(&item, report)).unwrap_or_default();
    let addresses = addresses.map(|item| read_addresses(&item, report)).unwrap_or_default();
    for (at, one) in listen.iter().enumerate() {
        if listen.iter().take(at).any(|known| known.value.is_ipv4() == one.value.is_ipv4()) {
            let message = format!("`listen` has two addresses of a family, the second {}", one.value);
            report
                .error(one.place, Wrong::new(message, "one IPv4 address, one IPv6 address, or one of each"));
        }
    }
    for peer in &addresses {
        if listen.iter().any(|own| own.value == peer.value) {
            let message = format!("`addresses` names {}, which this load balancer listens on", peer.value);
            report.error(peer.place, Wrong::new(message, "the others' addresses, not this one's"));
        } else if !listen.is_empty() && !listen.iter().any(|own| own.value.is_ipv4() == peer.value.is_ipv4())
        {
            let family = if peer.value.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!("`addresses` names {}, and `listen` has no {family} address", peer.value);
            report
                .error(peer.place, Wrong::new(message, format!("an {family} address is needed in `listen`")));
        }
    }
    let key_file = table.read(&KEY_FILE, report).flatten().map(|path| path.value);
    let mut bandwidth = DEFAULT_BANDWIDTH;
    set(&mut bandwidth, table.read(&BANDWIDTH, report));
    table.finish(report);
    let plain = |all: Vec<At<SocketAddr>>| all.into_iter().map(|one| one.value).collect();
    Some(PeersConfig { listen: plain(listen), addresses: plain(addresses), key_file, bandwidth })
}

fn read_addresses(item: &Item<'_>, report: &mut Report<'_>) -> Vec<At<SocketAddr>> {
    let mut addresses: Vec<At<SocketAddr>> = Vec::new();
    let elements = item.array("such as [\"192.0.2.2:9650\"]", report);
    if item.is_array() && elements.is_empty() {
        let message = format!("`{}` is empty", item.key);
        report.error(item.place, Wrong::new(message, "at least one address is needed here"));
    }
    for element in elements {
        let key = item.key;
        let Some(address) = element.parse(report, address) else { continue };
        if addresses.iter().any(|known| known.value == address.value) {
            let message = format!("`{key}` names {} twice", address.value);
            report.error(address.place, Wrong::new(message, "each address once"));
        } else if addresses.len() == MAX_PEERS {
            let message = format!("`{key}` has more than {MAX_PEERS} addresses");
            report.error(address.place, Wrong::new(message, "there is room for no more"));
            break;
        } else {
            addresses.push(address);
        }
    }
    addresses
}

fn address(key: &str, text: &str) -> Result<SocketAddr, Wrong> {
    let usable = |address: &SocketAddr| {
        let ip = address.ip();
        // `::ffff:192.0.2.2` is reached by IPv4, and is to be written so.
        address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && ip == ip.to_canonical()
    };
    // Scopes differ from host to host.
    let parsed = text.parse().ok().filter(|_| !text.contains('%'));
    parsed.filter(usable).ok_or_else(|| {
        let message = format!("`{key}` can't hold \"{}\"", shortened(text));
        Wrong::new(
            message,
            "a host's address and a port, such as \"192.0.2.2:9650\" or \"[2001:db8::2]:9650\"",
        )
    })
}

const MAX_PEERS: usize = 16;
/// A million flows in two seconds.
const DEFAULT_BANDWIDTH: u32 = 50;
/// What a step of the task that owns the maps takes in and hands out every tenth of a second.
const MAX_BANDWIDTH: u32 = 80;

pub(super) const PEERS: Section = Section {
    heading: "## `[peers]`",
    says: "The other members of a fleet, with whom [flows are replicated](flow-replication.md); without this section there are \
           none. What a start takes from here stays until the next start; `reload` warns if the file has changed it.",
    keys: &[&LISTEN, &ADDRESSES, &KEY_FILE, &BANDWIDTH],
};

const LISTEN: Key<List> = Key {
    name: "listen",
    takes: List("an address with a port, or one of each family"),
    default: "required",
    means: "this load balancer's, for its peers, such as `[\"192.0.2.1:9650\"]`. UDP; only peers should reach it",
};
const ADDRESSES: Key<List> = Key {
    name: "addresses",
    takes: List("1 to 16 addresses with ports"),
    default: "required",
    means: "the peers, each as it listens. IPv4 peers need an IPv4 address in `listen`, IPv6 peers one of theirs",
};
const KEY_FILE: Key<Text<PathBuf>> = Key {
    name: "key_file",
    takes: Text("absolute path", values::path),
    default: "made from the hash key",
    means: "a file of the form of `[flow_hash] key_file`, the same on every member: what messages are signed with",
};
const BANDWIDTH: Key<Integer> = Key {
    name: "bandwidth",
    takes: Integer(1, MAX_BANDWIDTH),
    default: "50",
    means: "Mbit/s to each peer at most: 50 tell a million flows in about two seconds, and leave a 10 Gbit/s link alone",
};
