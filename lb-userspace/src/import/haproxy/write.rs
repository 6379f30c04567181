//! Proxies as services.

use std::{
    collections::BTreeSet,
    fmt::Write,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use toml::Value;

use super::{
    Choices, Error, Notes,
    check::{Check, Http},
    proxy::{At, Bind, Kind, Proxy},
    sections::Line,
    server::{Pace, Server},
};
use crate::domain::{Algorithm, Forwarding};

/// The whole file.
pub(super) fn write(proxies: &[Proxy], choices: &Choices, notes: &mut Notes) -> Result<String, Error> {
    let mut services = String::new();
    let (mut names, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for front in proxies.iter().filter(|proxy| proxy.kind != Kind::Backend) {
        if front.disabled {
            notes.add(&front.line, "it is disabled, and left out");
            continue;
        }
        let back = match back_of(front, proxies) {
            Some(back) if !back.servers.is_empty() => back,
            _ => {
                notes.add(&front.line, "it has no servers that it sends everything to, and is left out");
                continue;
            }
        };
        if back.servers.iter().filter(|server| server.settings.backup).count() > 1 && !back.all_backups {
            notes.add(
                &back.line,
                "all backups are used together, as with `option allbackups`, not one after the other",
            );
        }
        for (number, (bind, vip)) in (0..).zip(vips(front, choices)?) {
            let wanted =
                if number == 0 { front.name.clone() } else { format!("{}-{}", front.name, bind.port) };
            let name = name(&wanted, &mut names);
            if name != front.name && number == 0 {
                notes.add(&front.line, format!("it is called \"{name}\" here"));
            }
            let vip = SocketAddr::new(vip, bind.port);
            if !taken.insert(vip) {
                notes.add(&bind.line, format!("another service has {vip}, so this one is left out"));
                continue;
            }
            service(&mut services, &name, vip, front, back, choices, notes);
        }
    }
    if services.is_empty() {
        return Err(Error::Nothing);
    }
    let interfaces = Value::from(choices.interfaces.clone());
    Ok(format!(
        "[daemon]\n# where clients' packets arrive; HAProxy does not say\ninterfaces = {interfaces}\n{services}"
    ))
}

/// Where a proxy's connections go.
fn back_of<'a>(front: &'a Proxy, proxies: &'a [Proxy]) -> Option<&'a Proxy> {
    let is_meant = |proxy: &&Proxy| {
        proxy.kind != Kind::Frontend && front.default_backend.as_deref() == Some(&proxy.name)
    };
    if front.kind == Kind::Listen && !front.servers.is_empty() {
        return Some(front);
    }
    proxies.iter().find(is_meant)
}

fn vips<'a>(front: &'a Proxy, choices: &Choices) -> Result<Vec<(&'a Bind, IpAddr)>, Error> {
    let mut all = Vec::new();
    for bind in &front.binds {
        match bind.at {
            At::Address(address) => all.push((bind, address)),
            At::Every { v4, v6 } => {
                let fits = |vip: &&IpAddr| if vip.is_ipv4() { v4 } else { v6 };
                let before = all.len();
                all.extend(choices.vips.iter().filter(fits).map(|vip| (bind, *vip)));
                if all.len() == before {
                    return Err(Error::NoVip { line: bind.line.number, text: bind.line.text.clone() });
                }
            }
        }
    }
    Ok(all)
}

fn service(
    text: &mut String,
    name: &str,
    vip: SocketAddr,
    front: &Proxy,
    back: &Proxy,
    choices: &Choices,
    notes: &mut Notes,
) {
    let (mut backends, mut names, mut places) = (String::new(), BTreeSet::new(), BTreeSet::new());
    let tunnels = matches!(choices.forwarding, Forwarding::Ipip | Forwarding::Gue);
    let mut checked: Option<(&Server, Pace)> = None;
    for server in &back.servers {
        if server.address.is_ipv4() != vip.is_ipv4() && !tunnels {
            notes.add(
                &server.line,
                format!("its address is not of the family of {vip}, for which it is left out"),
            );
            continue;
        }
        let address = place(server, vip, choices, notes);
        if !places.insert(address) {
            notes.add(&server.line, format!("another server of it is at {address}, so this one is left out"));
            continue;
        }
        backend(&mut backends, server, address, &mut names, notes);
        match (&checked, &server.settings.check) {
            (None, Some(pace)) => checked = Some((server, pace.clone())),
            (Some((first, pace)), Some(other)) if pace != other => notes.add(
                &server.line,
                format!("a service has one kind of check: that of {} is used for all", first.name),
            ),
            (Some((first, _)), None) => {
                notes.add(&server.line, format!("it is checked, too, as {} is", first.name));
            }
            _ => {}
        }
    }
    let _ = write!(
        text,
        "\n# {} of line {}\n[[service]]\nname       = {}\naddress    = {}\nprotocol   = \"tcp\"\nforwarding = {}\nalgorithm  = {}\n",
        front.line.word(0),
        front.line.number,
        quoted(name),
        quoted(&vip.to_string()),
        quoted(choices.forwarding.as_str()),
        quoted(back.algorithm.as_str()),
    );
    if back.servers.iter().any(|server| server.settings.cuts) {
        text.push_str("unhealthy_grace = \"0s\"\n");
    }
    if let Some(slow) = back.servers.iter().filter_map(|server| server.settings.slow_start).max() {
        let seconds = slow.as_secs().clamp(1, 3_600);
        let _ = writeln!(text, "slow_start = \"{seconds}s\"");
        if back.algorithm == Algorithm::LeastConnections {
            notes.add(&back.line, "slow start is by weight, whatever the algorithm");
        }
    }
    text.push_str("\n[service.health]\n");
    match &checked {
        Some((server, pace)) => check(text, &back.check, pace, back.timeout, &server.line, notes),
        None => text.push_str("type = \"none\"\n"),
    }
    text.push_str(&backends);
}

/// Where packets for a server of the service at `vip` go.
fn place(server: &Server, vip: SocketAddr, choices: &Choices, notes: &mut Notes) -> SocketAddr {
    let translates = matches!(choices.forwarding, Forwarding::Nat | Forwarding::Dnat);
    let port = server.port.filter(|port| *port != 0).unwrap_or(vip.port());
    if port != vip.port() && !translates {
        notes.add(
            &server.line,
            format!(
                "with {} packets keep their port: it has to serve {}",
                choices.forwarding.as_str(),
                vip.port()
            ),
        );
        return SocketAddr::new(server.address, vip.port());
    }
    SocketAddr::new(server.address, port)
}

fn backend(
    text: &mut String,
    server: &Server,
    address: SocketAddr,
    names: &mut BTreeSet<String>,
    notes: &mut Notes,
) {
    let name = name(&server.name, names);
    if name != server.name {
        notes.add(&server.line, format!("it is called \"{name}\" here"));
    }
    let settings = &server.settings;
    let weight = if settings.disabled { 0 } else { settings.weight };
    let _ = write!(
        text,
        "\n[[service.backend]]\nname    = {}\naddress = {}\nweight  = {weight}\n",
        quoted(&name),
        quoted(&address.to_string())
    );
    if settings.backup {
        text.push_str("backup  = true\n");
    }
}

fn check(
    text: &mut String,
    check: &Check,
    pace: &Pace,
    timeout: Option<Duration>,
    line: &Line,
    notes: &mut Notes,
) {
    let kind = match check {
        Check::Tcp if pace.tls => "tls",
        Check::Tcp => "tcp",
        Check::Tls => "tls",
        Check::Http(_) if pace.tls => "https",
        Check::Http(_) => "http",
        Check::Mysql { .. } => "mysql",
        Check::Postgres { .. } => "postgres",
        Check::Redis => "redis",
    };
    let mut add = |key: &str, value: Value| {
        let _ = writeln!(text, "{key} = {value}");
    };
    add("type", kind.into());
    match check {
        Check::Http(http) => http_keys(http, &mut add),
        Check::Mysql { user } | Check::Postgres { user } => add("user", user.as_str().into()),
        Check::Tcp | Check::Tls | Check::Redis => {}
    }
    let speaks_tls = matches!(kind, "tls" | "https");
    if pace.tls && matches!(kind, "mysql" | "postgres" | "redis") {
        add("tls", true.into());
    }
    if speaks_tls || pace.tls {
        // `option ssl-hello-chk` looks at no certificate.
        if !pace.verify || *check == Check::Tls {
            add("verify", false.into());
        } else if let Some(file) = &pace.ca_file {
            add("ca_file", file.as_str().into());
        }
        if let Some(name) = &pace.server_name {
            add("server_name", name.as_str().into());
        }
    }
    if let Some(address) = pace.address {
        add("address", address.to_string().into());
    }
    if let Some(port) = pace.port.filter(|port| *port != 0) {
        add("port", i64::from(port).into());
    }
    let mut bounded = |what: &str, time: Duration, least: Duration, most: Duration| {
        let bounded = time.clamp(least, most);
        if bounded != time {
            notes.add(line, format!("{what} of a check is {} here", duration(bounded)));
        }
        bounded
    };
    let interval = bounded("the interval", pace.interval, SHORTEST, LONGEST);
    add("interval", duration(interval).into());
    for (key, time) in [("fast_interval", pace.fast), ("down_interval", pace.down)] {
        if let Some(time) = time {
            let most = if key == "fast_interval" { interval } else { LONGEST };
            add(key, duration(bounded(key, time, SHORTEST, most)).into());
        }
    }
    let timeout = timeout.unwrap_or(interval).clamp(SHORTEST_TIMEOUT, interval);
    add("timeout", duration(timeout).into());
    add("rise", i64::from(pace.rise.clamp(1, 100)).into());
    add("fall", i64::from(pace.fall.clamp(1, 100)).into());
}

fn http_keys(http: &Http, add: &mut impl FnMut(&str, Value)) {
    add("path", http.path.as_str().into());
    if http.method != "GET" {
        add("method", http.method.as_str().into());
    }
    if let Some(host) = &http.host {
        add("host", host.as_str().into());
    }
    if !http.headers.is_empty() {
        add("headers", http.headers.clone().into());
    }
    if let Some(status) = &http.expect_status {
        add("expect_status", status.as_str().into());
    }
    if let Some(body) = &http.expect_body {
        add("expect_body", body.as_str().into());
    }
}

/// A name like this that is none of `taken` yet, and is one of them then.
fn name(wanted: &str, taken: &mut BTreeSet<String>) -> String {
    let letters = wanted.chars().map(|letter| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9' | '.' | '-') => letter,
        _ => '-',
    });
    let cleaned: String =
        letters.skip_while(|letter| matches!(letter, '.' | '-')).take(LONGEST_NAME).collect();
    let cleaned = if cleaned.is_empty() { "unnamed".to_owned() } else { cleaned };
    let numbered = (2..).map(|number| format!("{cleaned}-{number}"));
    let name = std::iter::once(cleaned.clone()).chain(numbered).find(|name| !taken.contains(name));
    let name = name.unwrap_or(cleaned);
    taken.insert(name.clone());
    name
}

fn quoted(text: &str) -> Value {
    Value::from(text)
}

fn duration(time: Duration) -> String {
    if time.subsec_millis() == 0 { format!("{}s", time.as_secs()) } else { format!("{}ms", time.as_millis()) }
}

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3_600);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(10);
/// With room for a number behind it.
const LONGEST_NAME: usize = 56;
