//! `[fleet]`: where the services of several load balancers are kept as one.

mod endpoint;
mod keys;

use std::{path::PathBuf, time::Duration};

use super::{
    daemon::set,
    report::{Place, Report, Wrong},
    table::{Item, Table},
};
use crate::domain::Name;

pub use endpoint::Endpoint;
use endpoint::endpoint;
pub(super) use keys::FLEET;

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

/// `None` where there is no such section.
pub(super) fn read(document: &mut Table<'_>, report: &mut Report<'_>) -> Option<FleetConfig> {
    let mut table = document.table("fleet", "[fleet]", report)?;
    let place = table.place();
    if !cfg!(feature = "fleet") {
        let wrong = Wrong::new("this ballast was built without `fleet`", "it can't be a member of one");
        report.error(place, wrong.help("build it with the cargo feature `fleet`, which is on by default"));
        return None;
    }
    let endpoints = table.require(&keys::ENDPOINTS, report);
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
    set(&mut config.prefix, table.read(&keys::PREFIX, report));
    config.member = table.read(&keys::MEMBER, report).flatten().map(|member| member.value);
    config.user = table.read(&keys::USER, report).flatten().map(|user| user.value);
    config.password_file = table.read(&keys::PASSWORD_FILE, report).flatten().map(|path| path.value);
    config.ca_file = table.read(&keys::CA_FILE, report).flatten().map(|path| path.value);
    config.cert_file = table.read(&keys::CERT_FILE, report).flatten().map(|path| path.value);
    config.key_file = table.read(&keys::KEY_FILE, report).flatten().map(|path| path.value);
    set(&mut config.ttl, table.read(&keys::TTL, report));
    set(&mut config.local_files, table.read(&keys::LOCAL_FILES, report));
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
        && let Some(item) = table.get(&keys::PASSWORD_FILE)
    {
        let message = format!("the password goes to {plain} as it is, for everybody on the way to read");
        report.warning(item.place, Wrong::new(message, "https:// would hide it"));
    }
    if config.endpoints.is_empty() || config.endpoints.iter().any(|endpoint| endpoint.tls) {
        return;
    }
    for key in [&keys::CA_FILE, &keys::CERT_FILE] {
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

const DEFAULT_PREFIX: &str = "/ballast";
const DEFAULT_TTL: Duration = Duration::from_secs(10);
const MAX_ENDPOINTS: usize = 16;

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
