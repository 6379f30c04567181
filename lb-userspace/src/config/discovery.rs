//! `[discovery]`, and what of a `[[service]]` says where else its backends are looked up.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::{
    daemon::set,
    key::{Integer, Key, List, Special, Text, Time},
    reference::Section,
    report::{At, Report, Wrong},
    service::keys,
    table::{Item, Table, shortened},
    values,
};
use crate::domain::{Discovery, DnsBackends, DnsName, Vip};

/// `[discovery]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// In the order in which they are asked. Empty: those of `/etc/resolv.conf`, whatever it says at the time.
    pub resolvers: Vec<SocketAddr>,
    /// For one answer of one resolver.
    pub timeout: Duration,
    /// An answer is asked for again when its time to live is over, but no sooner than this.
    pub min_ttl: Duration,
    /// And no later than this.
    pub max_ttl: Duration,
    /// Answers in a row without an address after which it is no backend any more.
    pub forget_after: u32,
    /// Backends of one name or one file.
    pub max_backends: u32,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            timeout: Duration::from_secs(2),
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(300),
            forget_after: 3,
            max_backends: 256,
        }
    }
}

pub(super) fn read(document: &mut Table<'_>, report: &mut Report<'_>) -> DiscoveryConfig {
    let mut config = DiscoveryConfig::default();
    let Some(mut table) = document.table("discovery", "[discovery]", report) else { return config };
    if let Some(item) = table.get(&RESOLVERS) {
        config.resolvers = read_resolvers(&item, report);
    }
    let place = table.place();
    set(&mut config.timeout, table.read(&TIMEOUT, report));
    set(&mut config.min_ttl, table.read(&MIN_TTL, report));
    set(&mut config.max_ttl, table.read(&MAX_TTL, report));
    if config.min_ttl > config.max_ttl {
        let place = table.get(&MIN_TTL).or_else(|| table.get(&MAX_TTL)).map_or(place, |item| item.place);
        let message = "`min_ttl` is longer than `max_ttl`";
        report.error(
            place,
            Wrong::new(message, "the shortest time between two questions is at most the longest"),
        );
    }
    set(&mut config.forget_after, table.read(&FORGET_AFTER, report));
    set(&mut config.max_backends, table.read(&MAX_BACKENDS, report));
    table.finish(report);
    config
}

fn read_resolvers(item: &Item<'_>, report: &mut Report<'_>) -> Vec<SocketAddr> {
    let mut resolvers: Vec<SocketAddr> = Vec::new();
    for element in item.array("such as [\"192.0.2.53\"]", report) {
        let Some(resolver) = element.parse(report, resolver) else { continue };
        if resolvers.contains(&resolver.value) {
            let message = format!("`resolvers` names {} twice", resolver.value);
            report.error(resolver.place, Wrong::new(message, "each resolver once"));
        } else if resolvers.len() == MAX_RESOLVERS {
            let message = format!("`resolvers` has more than {MAX_RESOLVERS} addresses");
            report.error(resolver.place, Wrong::new(message, "there is room for no more"));
            break;
        } else {
            resolvers.push(resolver.value);
        }
    }
    resolvers
}

/// An address, with a port where it is not 53.
fn resolver(key: &str, text: &str) -> Result<SocketAddr, Wrong> {
    let address = text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 53));
    let address = address.or_else(|| text.parse().ok());
    let usable = |address: &SocketAddr| {
        address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
    };
    address.filter(usable).ok_or_else(|| {
        let message = format!("`{key}` can't hold \"{}\"", shortened(text));
        Wrong::new(message, "the address of a DNS server, such as \"192.0.2.53\" or \"[2001:db8::53]:5353\"")
    })
}

/// What a service says of it, with positions. `None`: it was wrong, which is reported.
pub(super) struct Draft {
    file: Option<Option<At<PathBuf>>>,
    pub(super) names: Vec<NameDraft>,
}

/// A `[[service.dns]]`.
pub(super) struct NameDraft {
    pub(super) name: Option<At<DnsName>>,
    weight: Option<At<u32>>,
    backup: Option<bool>,
}

pub(super) fn read_of_service(table: &mut Table<'_>, vip: Option<At<Vip>>, report: &mut Report<'_>) -> Draft {
    let file = table.read(&BACKENDS_FILE, report);
    let port = vip.and_then(|vip| vip.value.port).unwrap_or_default();
    let names = table.tables("dns", "[[service.dns]]", report);
    let names: Vec<_> = names.into_iter().map(|table| read_name(table, port, report)).collect();
    let mut known: Vec<&At<DnsName>> = Vec::new();
    for name in names.iter().filter_map(|draft| draft.name.as_ref()) {
        match known.iter().find(|one| one.value == name.value) {
            None => known.push(name),
            Some(first) => {
                let message = format!("this service has backends by the name \"{}\" already", name.value);
                let first = report.locate(first.place);
                let wrong = Wrong::new(message, "another name is needed here");
                report.error(name.place, wrong.help(format!("the first stands at {first}")));
            }
        }
    }
    Draft { file, names }
}

fn read_name(mut table: Table<'_>, port: u16, report: &mut Report<'_>) -> NameDraft {
    let name = table.require(&NAME, report);
    let draft = NameDraft {
        name: name.and_then(|item| item.parse(report, |key, text| dns_name(key, text, port))),
        weight: table.read_or(&keys::WEIGHT, 1, report),
        backup: table.read_or(&keys::BACKUP, false, report).map(|backup| backup.value),
    };
    table.finish(report);
    draft
}

/// A name, with a port where it is not the service's.
pub(super) fn dns_name(key: &str, text: &str, port: u16) -> Result<DnsName, Wrong> {
    let wrong = |why: &str| {
        let message = format!("`{key}` can't be \"{}\"{why}", shortened(text));
        Wrong::new(
            message,
            "a name in the DNS and a port, such as \"web.example.org:80\" or \"web.example.org\"",
        )
    };
    let (host, port) = match text.rsplit_once(':') {
        None => (text, port),
        Some((host, digits)) => {
            let port = digits.parse().ok().filter(|port| *port > 0 && !digits.starts_with('+'));
            (host, port.ok_or_else(|| wrong(": the port is a number from 1 to 65535"))?)
        }
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.parse::<IpAddr>().is_ok() || host.contains(':') {
        return Err(wrong(": that is an address; a [[service.backend]] has one"));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(allowed);
    if host.len() > 253 || !host.split('.').all(label) {
        return Err(wrong(": its labels have 1 to 63 letters, digits, \"-\" and \"_\""));
    }
    Ok(DnsName { host: Arc::from(host.to_ascii_lowercase()), port })
}

impl Draft {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.file, Some(None)) && self.names.is_empty()
    }

    /// `None` if anything in it was wrong.
    pub(super) fn into_domain(self) -> Option<Discovery> {
        let file = self.file?.map(|file| Arc::new(file.value));
        let name = |draft: NameDraft| {
            let weight = u16::try_from(draft.weight?.value).ok()?;
            Some(DnsBackends { name: draft.name?.value, weight, backup: draft.backup? })
        };
        Some(Discovery { file, names: self.names.into_iter().map(name).collect::<Option<_>>()? })
    }
}

pub(super) const DISCOVERY: Section = Section {
    heading: "## `[discovery]`",
    says: "How backends are [found](discovery.md). What a start takes from here stays until the next start; `reload` warns \
           if the file has changed it.",
    keys: &[&RESOLVERS, &TIMEOUT, &MIN_TTL, &MAX_TTL, &FORGET_AFTER, &MAX_BACKENDS],
};

const RESOLVERS: Key<List> = Key {
    name: "resolvers",
    takes: List("up to 8 addresses, with a port where it is not 53"),
    default: "those of `/etc/resolv.conf`",
    means: "DNS servers, such as `[\"192.0.2.53\", \"[2001:db8::53]:5353\"]`. `/etc/resolv.conf` is read anew for each \
            question",
};
const TIMEOUT: Key<Time> = Key {
    name: "timeout",
    takes: Time(Duration::from_millis(100), Duration::from_secs(30)),
    default: "`\"2s\"`",
    means: "for one answer of one resolver",
};
const MIN_TTL: Key<Time> = Key {
    name: "min_ttl",
    takes: Time(SECOND, HOUR),
    default: "`\"1s\"`",
    means: "shortest time between two questions for a name, whatever its time to live",
};
const MAX_TTL: Key<Time> = Key {
    name: "max_ttl",
    takes: Time(SECOND, DAY),
    default: "`\"5m\"`",
    means: "longest time between them; at least `min_ttl`",
};
const FORGET_AFTER: Key<Integer> = Key {
    name: "forget_after",
    takes: Integer(1, 100),
    default: "3",
    means: "answers in a row without an address after which it is no backend any more",
};
const MAX_BACKENDS: Key<Integer> = Key {
    name: "max_backends",
    takes: Integer(1, MOST_BACKENDS),
    default: "256",
    means: "backends of one name or file. An answer or a file with more is not taken",
};

/// Of a `[[service]]`.
pub(super) const BACKENDS_FILE: Key<Text<PathBuf>> = Key {
    name: "backends_file",
    takes: Text("absolute path", values::path),
    default: "none",
    means: "a [file of backends](discovery.md#the-file) that is watched",
};

pub(super) const DNS: Section = Section {
    heading: "## `[[service.dns]]`",
    says: "The addresses of a name in the DNS are backends; see [discovery.md](discovery.md#a-name).",
    keys: &[&NAME, &keys::WEIGHT, &keys::BACKUP],
};

const NAME: Key<Special> = Key {
    name: "name",
    takes: Special("a name in the DNS, with a port or without; once in a service"),
    default: "required",
    means: "`\"web.example.org\"`, or with a port of the backends `\"web.example.org:8080\"`, which has to be the \
            service's as that of any backend has",
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MAX_RESOLVERS: usize = 8;
/// As many as an answer over TCP can hold.
const MOST_BACKENDS: u32 = 4096;

#[cfg(test)]
mod tests;
