use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{
    announce::{self, AnnounceConfig},
    discovery::{self, DiscoveryConfig},
    fleet::{self, FleetConfig},
    key::{Key, List, OneOf, Text},
    limits,
    nat::{self, NatDraft},
    peers::{self, PeersConfig},
    reference::Section,
    report::{At, Report, Source, Wrong},
    table::Table,
    values,
};
use crate::{
    dataplane::Limits,
    domain::{DestinationMac, XdpMode},
};

/// Where the control socket is unless something else says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ballast/control.sock";

/// Where the daemon keeps what outlives it, likewise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/ballast";
/// Where maps and links are pinned, likewise.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/ballast";

/// `[daemon]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// 1 to 16 names, each once.
    pub interfaces: Vec<String>,
    pub xdp_mode: XdpMode,
    pub destination_mac: DestinationMac,
    pub state_dir: PathBuf,
    pub pin_dir: PathBuf,
    pub socket: PathBuf,
    /// Where metrics, health and the status page are served; `None` is off.
    pub metrics: Option<SocketAddr>,
    /// By which names, beside addresses and this host's own.
    pub metrics_hosts: Vec<String>,
}

/// Everything in the main file but services. A value that was wrong, and was reported, is replaced by its default.
pub(super) struct Main {
    pub(super) daemon: DaemonConfig,
    pub(super) limits: Limits,
    pub(super) flow_hash_key_file: PathBuf,
    pub(super) nat: NatDraft,
    pub(super) discovery: DiscoveryConfig,
    pub(super) announce: Option<AnnounceConfig>,
    pub(super) fleet: Option<FleetConfig>,
    pub(super) peers: Option<PeersConfig>,
}

pub(super) fn read(document: &mut Table<'_>, report: &mut Report<'_>) -> Main {
    let daemon = read_daemon(document, report);
    let limits = limits::read(document, report);
    let flow_hash_key_file = read_flow_hash(document, &daemon.state_dir, report);
    let nat = nat::read(document, report);
    let discovery = discovery::read(document, report);
    let announce = announce::read(document, report);
    let fleet = fleet::read(document, report);
    let peers = peers::read(document, report);
    Main { daemon, limits, flow_hash_key_file, nat, discovery, announce, fleet, peers }
}

fn read_daemon(document: &mut Table<'_>, report: &mut Report<'_>) -> DaemonConfig {
    let mut config = DaemonConfig {
        interfaces: Vec::new(),
        xdp_mode: XdpMode::Auto,
        destination_mac: DestinationMac::Own,
        state_dir: DEFAULT_STATE_DIR.into(),
        pin_dir: DEFAULT_PIN_DIR.into(),
        socket: DEFAULT_SOCKET.into(),
        metrics: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9640))),
        metrics_hosts: Vec::new(),
    };
    let Some(item) = document.require("daemon", report) else { return config };
    let Some(mut table) = item.table("[daemon]", report) else { return config };
    config.interfaces = read_interfaces(&mut table, report);
    set(&mut config.xdp_mode, table.read(&XDP_MODE, report));
    set(&mut config.destination_mac, table.read(&DESTINATION_MAC, report));
    set(&mut config.state_dir, table.read(&STATE_DIR, report));
    set(&mut config.pin_dir, table.read(&PIN_DIR, report));
    set(&mut config.socket, table.read(&SOCKET, report));
    // A socket address has room for 107 bytes; `api::server::bind` makes it under a name up to 7 bytes longer.
    if let Some(item) = table.get(&SOCKET).filter(|_| config.socket.as_os_str().len() > MAX_SOCKET_PATH) {
        let message = "`socket` is too long a path for a Unix socket";
        report.error(item.place, Wrong::new(message, format!("at most {MAX_SOCKET_PATH} bytes")));
    }
    set(&mut config.metrics, table.read(&METRICS, report));
    config.metrics_hosts = read_hosts(&mut table, report);
    table.finish(report);
    config
}

/// The `state_dir` that a text names, as far as it can be made out.
pub(super) fn state_dir_in(text: &str) -> PathBuf {
    let sources = [Source::new(PathBuf::new(), text.to_owned())];
    let (document, _) = toml::de::DeTable::parse_recoverable(text);
    // What is wrong with it is told by those who need it right.
    read_daemon(&mut Table::document(0, &document), &mut Report::new(&sources)).state_dir
}

fn read_interfaces(table: &mut Table<'_>, report: &mut Report<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let Some(item) = table.require(&INTERFACES, report) else { return names };
    let place = item.place;
    let elements = item.array("such as [\"eth0\"]", report);
    let count = elements.len();
    let is_array = item.is_array();
    for element in elements {
        let Some(name) = element.parse(report, values::interface) else { continue };
        if names.contains(&name.value) {
            let message = format!("`interfaces` names \"{}\" twice", name.value);
            report.error(name.place, Wrong::new(message, "each interface once"));
        }
        names.push(name.value);
    }
    if is_array && !(1..=MAX_INTERFACES).contains(&count) {
        let message = format!("`interfaces` has {count} names");
        report.error(place, Wrong::new(message, format!("1 to {MAX_INTERFACES} interfaces are needed here")));
    }
    names
}

fn read_flow_hash(document: &mut Table<'_>, state_dir: &Path, report: &mut Report<'_>) -> PathBuf {
    let mut key_file = state_dir.join("flow-hash.key");
    if let Some(mut table) = document.table("flow_hash", "[flow_hash]", report) {
        set(&mut key_file, table.read(&KEY_FILE, report));
        table.finish(report);
    }
    key_file
}

fn read_hosts(table: &mut Table<'_>, report: &mut Report<'_>) -> Vec<String> {
    let Some(item) = table.get(&METRICS_HOSTS) else { return Vec::new() };
    let place = item.place;
    let elements = item.array("such as [\"lb1.example.org\"]", report);
    if elements.len() > MAX_HOSTS {
        let message = format!("`metrics_hosts` has {} names", elements.len());
        report.error(place, Wrong::new(message, format!("at most {MAX_HOSTS}")));
        return Vec::new();
    }
    elements.iter().filter_map(|item| item.parse(report, values::host)).map(|host| host.value).collect()
}

/// What is not there, or was wrong, leaves the default.
pub(super) fn set<T>(target: &mut T, value: Option<Option<At<T>>>) {
    if let Some(value) = value.flatten() {
        *target = value.value;
    }
}

const MAX_INTERFACES: usize = 16;
const MAX_SOCKET_PATH: usize = 100;
const MAX_HOSTS: usize = 16;

pub(super) const DAEMON: Section = Section {
    heading: "## `[daemon]`",
    says: "What a start takes from here stays until the next start; `reload` warns if the file has changed it.",
    keys: &[
        &INTERFACES,
        &XDP_MODE,
        &DESTINATION_MAC,
        &STATE_DIR,
        &PIN_DIR,
        &SOCKET,
        &METRICS,
        &METRICS_HOSTS,
    ],
};

const INTERFACES: Key<List> = Key {
    name: "interfaces",
    takes: List("1 to 16 names"),
    default: "required",
    means: "interfaces that clients' packets arrive on",
};
const XDP_MODE: Key<OneOf<XdpMode>> = Key {
    name: "xdp_mode",
    takes: OneOf(&XdpMode::ALL, XdpMode::as_str),
    default: "`\"auto\"`",
    means: "`\"auto\"`: native, else generic with a warning",
};
const DESTINATION_MAC: Key<OneOf<DestinationMac>> = Key {
    name: "destination_mac",
    takes: OneOf(&DestinationMac::ALL, DestinationMac::as_str),
    default: "`\"own\"`",
    means: "frames for which MAC addresses are looked at: `\"own\"`, those that this host answers to by the \
            interfaces, see [operations](operations.md#mac-addresses); `\"any\"`, all but groups'",
};
const STATE_DIR: Key<Text<PathBuf>> = Key {
    name: "state_dir",
    takes: Text("absolute path", values::path),
    default: "`\"/var/lib/ballast\"`",
    means: "the daemon's own files: `state.toml` with what was made and changed over the command line and what was \
            [found](discovery.md) last, `applied.toml` with the configuration that was applied last, the flow hash's \
            key, and of a member of a [fleet](fleet.md) `fleet.toml` with what it had last, \
            `fleet-next.toml` with what is about to become live, and `fleet-member.id`",
};
const PIN_DIR: Key<Text<PathBuf>> = Key {
    name: "pin_dir",
    takes: Text("absolute path", values::path),
    default: "`\"/sys/fs/bpf/ballast\"`",
    means: "maps and links live here; bpffs is mounted if it is not and the daemon is [started as \
            root](operations.md#its-rights). One daemon each",
};
const SOCKET: Key<Text<PathBuf>> = Key {
    name: "socket",
    takes: Text("absolute path of at most 100 bytes", values::path),
    default: "`\"/run/ballast/control.sock\"`",
    means: "the control socket, mode 0660 in a directory of mode 0750",
};
const METRICS: Key<Text<Option<SocketAddr>>> = Key {
    name: "metrics",
    takes: Text("address and port, or `\"off\"`", values::listen_address),
    default: "`\"127.0.0.1:9640\"`",
    means: "where the [status page](status-page.md), `/metrics`, `/healthz` and `/readyz` are served; `\"off\"`: \
            nowhere",
};
const METRICS_HOSTS: Key<List> = Key {
    name: "metrics_hosts",
    takes: List("up to 16 names of hosts"),
    default: "`[]`",
    means: "names by which the status page and `/metrics` may be asked for, beside addresses, `localhost` and this \
            host's own name; any other gets [421](status-page.md#who-may-see-it)",
};

pub(super) const FLOW_HASH: Section = Section { heading: "## `[flow_hash]`", says: "", keys: &[&KEY_FILE] };

const KEY_FILE: Key<Text<PathBuf>> = Key {
    name: "key_file",
    takes: Text("absolute path", values::path),
    default: "`\"<state_dir>/flow-hash.key\"`",
    means: "a file of mode 0600 with 32 hexadecimal digits, made at the first start. Load balancers with the same key \
            and the same backends map every client alike. Keep it: with another key every client may get another \
            backend, and a start over live tables refuses that. [One key for a whole \
            fleet](operations.md#one-hash-key-on-every-load-balancer)",
};
