//! `[fleet]`: where the services of several load balancers are kept as one.

use std::{fmt, net::Ipv6Addr, path::PathBuf, time::Duration};

use super::{
    daemon::set,
    key::{Boolean, Key, List, Printable, Seconds, Text},
    reference::Section,
    report::{Place, Report, Wrong},
    table::{Item, Table, shortened},
    values,
};
use crate::domain::Name;

/// `[fleet]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetConfig {
    /// Members of the etcd cluster, 1 to 16, each once.
    pub endpoints: Vec<Endpoint>,
    /// What the fleet's keys begin with; no `/` at the end.
    pub prefix: String,
    /// What this load balancer is called; `None`: as its host is.
    pub member: Option<Name>,
    pub user: Option<String>,
    /// There if `user` is.
    pub password_file: Option<PathBuf>,
    /// Who vouches for the servers; `None`: whoever the host trusts.
    pub ca_file: Option<PathBuf>,
    /// Certificate that this load balancer shows, and its key; both or none.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// A member that etcd has not heard of for so long is none.
    pub ttl: Duration,
    /// Whether documents may name programs and files of this host.
    pub local_files: bool,
}

/// A member of the etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub tls: bool,
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    /// Host and port as they stand in a URL.
    pub fn authority(&self) -> String {
        match self.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{}", self.port),
            Err(_) => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// `None` where there is no such section.
pub(super) fn read(document: &mut Table<'_>, report: &mut Report<'_>) -> Option<FleetConfig> {
    let mut table = document.table("fleet", "[fleet]", report)?;
    let place = table.place();
    if !cfg!(feature = "fleet") {
        let wrong = Wrong::new("this ballast was built without `fleet`", "it can't be a member of one");
        report.error(place, wrong.help("build it with the cargo feature `fleet`, which is on by default"));
        return None;
    }
    let endpoints = table.require(&ENDPOINTS, report);
    let mut config = FleetConfig {
        endpoints: endpoints.map(|item| read_endpoints(&item, report)).unwrap_or_default(),
        prefix: DEFAULT_PREFIX.to_owned(),
        member: None,
        user: None,
        password_file: None,
        ca_file: None,
        cert_file: None,
        key_file: None,
        ttl: DEFAULT_TTL,
        local_files: false,
    };
    set(&mut config.prefix, table.read(&PREFIX, report));
    config.member = table.read(&MEMBER, report).flatten().map(|member| member.value);
    config.user = table.read(&USER, report).flatten().map(|user| user.value);
    config.password_file = table.read(&PASSWORD_FILE, report).flatten().map(|path| path.value);
    config.ca_file = table.read(&CA_FILE, report).flatten().map(|path| path.value);
    config.cert_file = table.read(&CERT_FILE, report).flatten().map(|path| path.value);
    config.key_file = table.read(&KEY_FILE, report).flatten().map(|path| path.value);
    set(&mut config.ttl, table.read(&TTL, report));
    set(&mut config.local_files, table.read(&LOCAL_FILES, report));
    check_pairs(&table, place, report);
    check_tls(&config, &mut table, report);
    table.finish(report);
    Some(config)
}

/// Each is of no use without the other.
fn check_pairs(table: &Table<'_>, place: Place, report: &mut Report<'_>) {
    for (one, other) in [("user", "password_file"), ("cert_file", "key_file")] {
        let (has, lacks) = match (table.has(one), table.has(other)) {
            (true, false) => (one, other),
            (false, true) => (other, one),
            _ => continue,
        };
        let message = format!("[fleet] has a `{has}` and no `{lacks}`");
        report.error(place, Wrong::new(message, format!("`{lacks}` is required with it")));
    }
}

/// A secret that nobody encrypts, and files that nobody reads.
fn check_tls(config: &FleetConfig, table: &mut Table<'_>, report: &mut Report<'_>) {
    let plain = config.endpoints.iter().find(|endpoint| !endpoint.tls);
    if let Some(plain) = plain
        && let Some(item) = table.get(&PASSWORD_FILE)
    {
        let message = format!("the password goes to {plain} as it is, for everybody on the way to read");
        report.warning(item.place, Wrong::new(message, "https:// would hide it"));
    }
    if config.endpoints.is_empty() || config.endpoints.iter().any(|endpoint| endpoint.tls) {
        return;
    }
    for key in [&CA_FILE, &CERT_FILE] {
        if let Some(item) = table.get(key) {
            let message = format!("`{}` is for TLS, and no endpoint is https://", key.name);
            report.error(item.place, Wrong::new(message, "nothing would read it"));
        }
    }
}

fn read_endpoints(item: &Item<'_>, report: &mut Report<'_>) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for element in item.array("such as [\"https://10.0.0.1:2379\"]", report) {
        let Some(endpoint) = element.parse(report, endpoint) else { continue };
        if endpoints.contains(&endpoint.value) {
            let message = format!("`endpoints` names {} twice", endpoint.value);
            report.error(endpoint.place, Wrong::new(message, "each member of etcd once"));
        }
        endpoints.push(endpoint.value);
    }
    let count = item.is_array().then(|| item.array("", report).len());
    if let Some(count) = count.filter(|count| !(1..=MAX_ENDPOINTS).contains(count)) {
        let message = format!("`endpoints` has {count} addresses");
        report.error(item.place, Wrong::new(message, format!("1 to {MAX_ENDPOINTS} are needed here")));
    }
    endpoints
}

/// `https://etcd-1.example.org:2379`.
fn endpoint(key: &str, text: &str) -> Result<Endpoint, Wrong> {
    const WANTED: &str = "such as \"https://10.0.0.1:2379\" or \"http://[2001:db8::1]:2379\"";
    // Whoever writes one there has written a password.
    if text.contains('@') {
        let message = format!("`{key}` can't hold a URL with a user");
        return Err(Wrong::new(message, "`user` and `password_file` are for that"));
    }
    let wrong = || Wrong::new(format!("`{key}` can't hold \"{}\"", shortened(text)), WANTED);
    let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
    let tls = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(wrong()),
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
            (host, rest.strip_prefix(':').or(rest.is_empty().then_some(DEFAULT_PORT)).ok_or_else(wrong)?)
        }
        None => authority.rsplit_once(':').unwrap_or((authority, DEFAULT_PORT)),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| *port > 0 && digits).ok_or_else(wrong)?;
    let is_host = (1..=253).contains(&host.len()) && host.bytes().all(allowed);
    if !is_host || (host.contains(':') && !authority.starts_with('[')) {
        return Err(wrong());
    }
    Ok(Endpoint { tls, host: host.to_owned(), port })
}

/// `/ballast`, with or without a `/` at the end.
fn prefix(key: &str, text: &str) -> Result<String, Wrong> {
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    let part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        !part.is_empty() && part.bytes().all(allowed)
    };
    match trimmed.strip_prefix('/') {
        Some(rest) if text.len() <= MAX_PREFIX && rest.split('/').all(part) => Ok(trimmed.to_owned()),
        _ => {
            let message = format!("`{key}` can't be \"{}\"", shortened(text));
            let label =
                "such as \"/ballast\": parts of letters, digits, \".\", \"-\" and \"_\", each after a \"/\"";
            Err(Wrong::new(message, label))
        }
    }
}

pub(super) const FLEET: Section = Section {
    heading: "## `[fleet]`",
    says: "Where there is one, services are in etcd and in no file, the same for every member of the [fleet](fleet.md); a \
           `[[service]]` beside it is an error. Everything else of the file is this host's own. What a start takes from here \
           stays until the next start.",
    keys: &[
        &ENDPOINTS,
        &PREFIX,
        &MEMBER,
        &USER,
        &PASSWORD_FILE,
        &CA_FILE,
        &CERT_FILE,
        &KEY_FILE,
        &TTL,
        &LOCAL_FILES,
    ],
};

const ENDPOINTS: Key<List> = Key {
    name: "endpoints",
    takes: List("1 to 16 URLs"),
    default: "required",
    means: "members of an etcd cluster (3.4 or later), such as `[\"https://10.0.0.1:2379\"]`; the port is 2379 unless named. \
            One is asked for as long as it answers, then the next",
};
const PREFIX: Key<Text<String>> = Key {
    name: "prefix",
    takes: Text("path of at most 255 bytes", prefix),
    default: "`\"/ballast\"`",
    means: "what the fleet's keys begin with: another one is another fleet",
};
const MEMBER: Key<Text<Name>> = Key {
    name: "member",
    takes: Text("`[a-z0-9][a-z0-9.-]{0,62}`", values::name),
    default: "the host's name",
    means: "what this load balancer is called; no two are called the same",
};
const USER: Key<Printable> = Key {
    name: "user",
    takes: Printable(1, 255),
    default: "none",
    means: "a user of etcd, who needs to read and write what begins with `prefix`; goes with `password_file`",
};
const PASSWORD_FILE: Key<Text<PathBuf>> = Key {
    name: "password_file",
    takes: Text("absolute path", values::path),
    default: "none",
    means: "a file whose first line is the password; the log warns where everybody may read it",
};
const CA_FILE: Key<Text<PathBuf>> = Key {
    name: "ca_file",
    takes: Text("absolute path", values::path),
    default: "what the host trusts",
    means: "the authorities, as PEM, that vouch for `https://` endpoints",
};
const CERT_FILE: Key<Text<PathBuf>> = Key {
    name: "cert_file",
    takes: Text("absolute path", values::path),
    default: "none",
    means: "the certificate that this load balancer shows, as PEM; read at each connection. Goes with `key_file`",
};
const KEY_FILE: Key<Text<PathBuf>> = Key {
    name: "key_file",
    takes: Text("absolute path", values::path),
    default: "none",
    means: "its key, as PEM",
};
const TTL: Key<Seconds> = Key {
    name: "ttl",
    takes: Seconds(MIN_TTL, MAX_TTL),
    default: "`\"10s\"`",
    means: "a member that etcd has not heard of for so long is gone from `ballast fleet status`",
};
const LOCAL_FILES: Key<Boolean> = Key {
    name: "local_files",
    takes: Boolean,
    default: "`false`",
    means: "whether services of the fleet may name programs and files of this host: checks of type `exec`, `password_file`, \
            `ca_file`, `backends_file`. Whoever may write to etcd has the daemon's rights then",
};

const DEFAULT_PREFIX: &str = "/ballast";
const DEFAULT_PORT: &str = "2379";
const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// What etcd gives at the least depends on its election timeout.
const MIN_TTL: Duration = Duration::from_secs(3);
const MAX_TTL: Duration = Duration::from_secs(300);
const MAX_ENDPOINTS: usize = 16;
const MAX_PREFIX: usize = 255;

#[cfg(all(test, feature = "fleet"))]
mod tests {
    use super::*;
    use crate::config::parse;

    fn fleet(lines: &str) -> Result<FleetConfig, String> {
        let text = format!("[daemon]\ninterfaces = [\"eth0\"]\n[fleet]\n{lines}\n");
        match parse(vec![("config.toml".into(), text)]) {
            Ok(config) => Ok(config.fleet.expect("it has one")),
            Err(diagnostics) => Err(diagnostics.to_string()),
        }
    }

    #[test]
    fn endpoints_are_urls_of_hosts() {
        let read = |text: &str| endpoint("endpoints", text).map(|endpoint| endpoint.to_string()).ok();
        for (text, expected) in [
            ("http://10.0.0.1", Some("http://10.0.0.1:2379")),
            ("https://etcd-1.example.org:2380/", Some("https://etcd-1.example.org:2380")),
            ("https://[2001:db8::1]", Some("https://[2001:db8::1]:2379")),
            ("http://[2001:db8::1]:4", Some("http://[2001:db8::1]:4")),
            ("10.0.0.1:2379", None),
            ("ftp://10.0.0.1", None),
            ("http://", None),
            ("http://a:b", None),
            ("http://a:0", None),
            ("http://a/b", None),
            ("http://2001:db8::1:2379", None),
            ("http://[2001:db8::1", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        let told = fleet("endpoints = [\"http://root:hunter2@10.0.0.1:2379\"]").expect_err("it is refused");
        assert!(told.contains("`user` and `password_file`"), "{told}");
        let message = told.lines().next().unwrap_or_default();
        assert!(!message.contains("hunter2"), "{told}");
    }

    #[test]
    fn what_is_of_no_use_alone_is_refused() {
        const PLAIN: &str = "endpoints = [\"http://10.0.0.1\"]\n";
        const TLS: &str = "endpoints = [\"https://10.0.0.1\"]\n";
        for (lines, expected) in [
            (format!("{TLS}user = \"a\""), "a `user` and no `password_file`"),
            (format!("{TLS}key_file = \"/a\""), "a `key_file` and no `cert_file`"),
            (format!("{PLAIN}ca_file = \"/a\""), "no endpoint is https://"),
            ("endpoints = []".to_owned(), "`endpoints` has 0 addresses"),
            ("endpoints = [\"http://a\", \"http://a:2379\"]".to_owned(), "names http://a:2379 twice"),
            (format!("{PLAIN}prefix = \"ballast\""), "`prefix` can't be"),
            (format!("{PLAIN}prefix = \"/a//b\""), "`prefix` can't be"),
            (format!("{PLAIN}ttl = \"1s\""), "`ttl` can't be"),
            (String::new(), "[fleet] has no `endpoints`"),
        ] {
            let told = fleet(&lines).expect_err("it is refused");
            assert!(told.contains(expected), "{told}");
        }
        let read = fleet(&format!("{TLS}prefix = \"/edge/eu/\"\nmember = \"lb-1\"")).expect("it is right");
        assert_eq!((read.prefix.as_str(), read.ttl), ("/edge/eu", DEFAULT_TTL));
    }

    #[test]
    fn services_of_a_file_and_of_a_fleet_do_not_go_together() {
        let text = "[daemon]\ninterfaces = [\"eth0\"]\n[fleet]\nendpoints = [\"http://10.0.0.1\"]\n\
                    [[service]]\nname = \"web\"\naddress = \"203.0.113.10:80\"\n";
        let told =
            parse(vec![("config.toml".into(), text.to_owned())]).expect_err("it is refused").to_string();
        assert!(told.contains("config.toml:5:1") && told.contains("ballast fleet import"), "{told}");
    }
}
