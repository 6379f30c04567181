//! What a section says.

use std::{net::IpAddr, time::Duration};

use super::{
    Notes,
    check::Check,
    lacking,
    sections::{Line, Section},
    server::{self, Server, Settings},
};
use crate::domain::Algorithm;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Frontend,
    Backend,
    Listen,
}

#[derive(Clone, Debug)]
pub(super) struct Proxy {
    pub(super) kind: Kind,
    pub(super) line: Line,
    pub(super) name: String,
    pub(super) disabled: bool,
    pub(super) binds: Vec<Bind>,
    pub(super) algorithm: Algorithm,
    pub(super) check: Check,
    /// Of a check.
    pub(super) timeout: Option<Duration>,
    pub(super) default_backend: Option<String>,
    pub(super) servers: Vec<Server>,
    pub(super) all_backups: bool,
}

/// An address that clients connect to.
#[derive(Clone, Debug)]
pub(super) struct Bind {
    pub(super) line: Line,
    pub(super) at: At,
    pub(super) port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Address(IpAddr),
    /// Every address of these families.
    Every {
        v4: bool,
        v6: bool,
    },
}

impl Proxy {
    pub(super) fn read(section: &Section, notes: &mut Notes) -> Self {
        let head = &section.head;
        let kind = match head.word(0) {
            "frontend" => Kind::Frontend,
            "backend" => Kind::Backend,
            _ => Kind::Listen,
        };
        let mut proxy = Self {
            kind,
            line: head.clone(),
            name: head.word(1).to_owned(),
            disabled: false,
            binds: Vec::new(),
            // HAProxy's own default.
            algorithm: Algorithm::RoundRobin,
            check: Check::default(),
            timeout: None,
            default_backend: None,
            servers: Vec::new(),
            all_backups: false,
        };
        let mut settings = Settings::default();
        let mut connect = None;
        for line in &section.lines {
            match line.word(0) {
                "bind" => proxy.bind(line, notes),
                "balance" => proxy.balance(line, notes),
                "default-server" => settings.read(line, 1, notes),
                "server" => proxy.servers.extend(server::read(line, &settings, notes)),
                "default_backend" => proxy.default_backend = Some(line.word(1).to_owned()),
                "use_backend" if line.words.len() == 2 => {
                    proxy.default_backend = Some(line.word(1).to_owned());
                }
                "mode" if line.word(1) == "http" => {
                    notes
                        .add(line, "connections are balanced, whatever is spoken on them, not HTTP requests");
                }
                "mode" if line.word(1) == "tcp" => {}
                "hash-type" if line.word(1) == "consistent" => {}
                "timeout" if line.word(1) == "check" => proxy.timeout = server::time(line.word(2)),
                "timeout" if line.word(1) == "connect" => {
                    connect = server::time(line.word(2));
                    notes.add(line, lacking::line("timeout"));
                }
                "option" if line.word(1) == "allbackups" => proxy.all_backups = true,
                "option" if proxy.check.option(line, notes) => {}
                "option" => notes.add(line, lacking::line(line.word(1))),
                "http-check" => proxy.check.http_check(line, notes),
                "tcp-check" => {
                    notes.add(line, "a check of `type = \"tcp\"` asks for no more than a connection")
                }
                "disabled" => proxy.disabled = true,
                "enabled" | "description" | "id" | "guid" => {}
                // What a `defaults` section had switched on.
                "no" => {}
                word => notes.add(line, lacking::line(word)),
            }
        }
        proxy.timeout = proxy.timeout.or(connect);
        proxy
    }

    fn balance(&mut self, line: &Line, notes: &mut Notes) {
        let word = line.word(1);
        let name = word.split('(').next().unwrap_or(word);
        self.algorithm = match name {
            "roundrobin" | "static-rr" => Algorithm::RoundRobin,
            // Both take the better of some that are chosen at random.
            "leastconn" | "random" => Algorithm::LeastConnections,
            "source" => Algorithm::SourceHash,
            _ => {
                let why = "nothing within a connection decides where it goes: the client's address does (`source-hash`)";
                notes.add(line, why);
                Algorithm::SourceHash
            }
        };
    }

    fn bind(&mut self, line: &Line, notes: &mut Notes) {
        let words: Vec<_> = line.words.iter().skip(2).map(String::as_str).collect();
        let has = |word| words.contains(&word);
        for part in line.word(1).split(',') {
            match bound(part, has("v4v6"), has("v6only")) {
                Some((at, ports)) => {
                    let bind = |port| Bind { line: line.clone(), at, port };
                    self.binds.extend(ports.map(bind));
                }
                None => {
                    let what = format!(
                        "`{part}` is no address and port that a service could have, or more than {MOST_PORTS} ports"
                    );
                    notes.add(line, what);
                }
            }
        }
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            match word {
                "v4v6" | "v6only" | "transparent" | "tfo" | "defer-accept" => {}
                "name" | "id" | "thread" | "process" | "mss" | "backlog" | "nice" | "interface" => {
                    words.next();
                }
                "ssl" | "accept-proxy" => notes.add(line, lacking::word(word)),
                // Words of `ssl` mostly, told with it.
                _ if has("ssl") => {}
                word => notes.add(line, format!("`{word}`: {}", lacking::word(word))),
            }
        }
    }
}

/// `*:80`, `:80`, `192.0.2.1:80-82`, `[2001:db8::1]:443`, `:::80`, `ipv4@192.0.2.1:80`.
fn bound(text: &str, v4_too: bool, v6_only: bool) -> Option<(At, std::ops::RangeInclusive<u16>)> {
    let (family, rest) = match text.split_once('@') {
        Some((family @ ("ipv4" | "ipv6"), rest)) => (family, rest),
        Some(_) => return None,
        None => ("", text),
    };
    let (address, ports) = rest.rsplit_once(':')?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    if first == 0 || last < first || last - first >= MOST_PORTS {
        return None;
    }
    let at = match address.trim_start_matches('[').trim_end_matches(']') {
        "" | "*" => At::Every { v4: family != "ipv6", v6: family == "ipv6" },
        "0.0.0.0" => At::Every { v4: true, v6: false },
        "::" => At::Every { v4: v4_too && !v6_only, v6: true },
        address => At::Address(address.parse().ok()?),
    };
    Some((at, first..=last))
}

/// Of one range.
const MOST_PORTS: u16 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_addresses_are_read() {
        let every = |v4, v6| At::Every { v4, v6 };
        let address = |text: &str| At::Address(text.parse().expect("an address"));
        for (text, expected) in [
            ("*:80", Some((every(true, false), 80..=80))),
            (":80", Some((every(true, false), 80..=80))),
            ("0.0.0.0:80", Some((every(true, false), 80..=80))),
            (":::80", Some((every(false, true), 80..=80))),
            ("[::]:80", Some((every(false, true), 80..=80))),
            ("ipv6@:80", Some((every(false, true), 80..=80))),
            ("192.0.2.1:80-82", Some((address("192.0.2.1"), 80..=82))),
            ("ipv4@192.0.2.1:80", Some((address("192.0.2.1"), 80..=80))),
            ("[2001:db8::1]:443", Some((address("2001:db8::1"), 443..=443))),
            ("2001:db8::1:443", Some((address("2001:db8::1"), 443..=443))),
            ("/run/haproxy.sock", None),
            ("unix@/run/haproxy.sock", None),
            ("www.example:80", None),
            ("192.0.2.1:1-65535", None),
            ("192.0.2.1:0", None),
            ("192.0.2.1", None),
        ] {
            assert_eq!(bound(text, false, false), expected, "{text}");
        }
        assert_eq!(bound(":::80", true, false), Some((every(true, true), 80..=80)));
    }
}
