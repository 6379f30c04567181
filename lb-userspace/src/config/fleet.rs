//! `[fleet]`: where the services of several load balancers are kept as one.

use std::{fmt, net::Ipv6Addr, path::PathBuf, time::Duration};

use super::{
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
    let mut config = FleetConfig {
        endpoints: table
            .require("endpoints", report)
            .map(|item| read_endpoints(&item, report))
            .unwrap_or_default(),
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
    if let Some(read) = table.text_or("prefix", config.prefix.clone(), report, prefix) {
        config.prefix = read.value;
    }
    let member = table.get("member").and_then(|item| item.parse(report, values::name));
    config.member = member.map(|member| member.value);
    let user = table.get("user").and_then(|item| item.parse(report, user));
    config.user = user.map(|user| user.value);
    for (key, path) in [
        ("password_file", &mut config.password_file),
        ("ca_file", &mut config.ca_file),
        ("cert_file", &mut config.cert_file),
        ("key_file", &mut config.key_file),
    ] {
        *path = table.get(key).and_then(|item| item.parse(report, values::path)).map(|read| read.value);
    }
    if let Some(read) = table.text_or("ttl", config.ttl, report, values::seconds(MIN_TTL, MAX_TTL)) {
        config.ttl = read.value;
    }
    config.local_files = table.boolean_or("local_files", false, report).unwrap_or_default();
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
        && let Some(item) = table.get("password_file")
    {
        let message = format!("the password goes to {plain} as it is, for everybody on the way to read");
        report.warning(item.place, Wrong::new(message, "https:// would hide it"));
    }
    if config.endpoints.is_empty() || config.endpoints.iter().any(|endpoint| endpoint.tls) {
        return;
    }
    for key in ["ca_file", "cert_file"] {
        if let Some(item) = table.get(key) {
            let message = format!("`{key}` is for TLS, and no endpoint is https://");
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

fn user(key: &str, text: &str) -> Result<String, Wrong> {
    if (1..=255).contains(&text.len()) && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    let message = format!("`{key}` can't be \"{}\"", shortened(text));
    Err(Wrong::new(message, "a user of etcd: 1 to 255 bytes"))
}

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
