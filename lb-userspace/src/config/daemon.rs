use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use lb_common::abi::{
    MAX_BACKEND_INDEX,
    limits::{MAX_FLOW_ENTRIES, MIN_FLOW_ENTRIES, MIN_TABLE_SIZE},
};

use super::{
    discovery::{self, DiscoveryConfig},
    nat::{self, NatDraft},
    peers::{self, PeersConfig},
    report::{Report, Source, Wrong},
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
}

/// Everything in the main file but services. A value that was wrong, and was reported, is replaced by its default.
pub(super) struct Main {
    pub(super) daemon: DaemonConfig,
    pub(super) limits: Limits,
    pub(super) flow_hash_key_file: PathBuf,
    pub(super) nat: NatDraft,
    pub(super) discovery: DiscoveryConfig,
    pub(super) peers: Option<PeersConfig>,
}

pub(super) fn read(document: &mut Table<'_>, report: &mut Report<'_>) -> Main {
    let daemon = read_daemon(document, report);
    let limits = read_limits(document, report);
    let flow_hash_key_file = read_flow_hash(document, &daemon.state_dir, report);
    let nat = nat::read(document, report);
    let discovery = discovery::read(document, report);
    let peers = peers::read(document, report);
    Main { daemon, limits, flow_hash_key_file, nat, discovery, peers }
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
    };
    let Some(item) = document.require("daemon", report) else { return config };
    let Some(mut table) = item.table("[daemon]", report) else { return config };
    config.interfaces = read_interfaces(&mut table, report);
    let mode = values::choice(&XdpMode::ALL, XdpMode::as_str);
    set(&mut config.xdp_mode, table.get("xdp_mode").and_then(|item| item.parse(report, mode)));
    let frames = values::choice(&DestinationMac::ALL, DestinationMac::as_str);
    set(
        &mut config.destination_mac,
        table.get("destination_mac").and_then(|item| item.parse(report, frames)),
    );
    for (key, path) in [
        ("state_dir", &mut config.state_dir),
        ("pin_dir", &mut config.pin_dir),
        ("socket", &mut config.socket),
    ] {
        set(path, table.get(key).and_then(|item| item.parse(report, values::path)));
    }
    // A socket address has room for 107 bytes; `api::server::bind` makes it under a name up to 7 bytes longer.
    if let Some(item) = table.get("socket").filter(|_| config.socket.as_os_str().len() > MAX_SOCKET_PATH) {
        let message = "`socket` is too long a path for a Unix socket";
        report.error(item.place, Wrong::new(message, format!("at most {MAX_SOCKET_PATH} bytes")));
    }
    set(
        &mut config.metrics,
        table.get("metrics").and_then(|item| item.parse(report, values::listen_address)),
    );
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
    let Some(item) = table.require("interfaces", report) else { return names };
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

fn read_limits(document: &mut Table<'_>, report: &mut Report<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut table) = document.table("limits", "[limits]", report) else { return limits };
    for (key, limit, range) in [
        ("services", &mut limits.services, (1, MAX_SERVICES)),
        ("backends", &mut limits.backends, (2, MAX_BACKEND_INDEX)),
        ("lookup_slots", &mut limits.lookup_slots, (MIN_TABLE_SIZE, MAX_LOOKUP_SLOTS)),
        ("nat_flows", &mut limits.nat_flows, (MIN_NAT_FLOWS, MAX_NAT_FLOWS)),
        ("source_prefixes", &mut limits.source_prefixes, (1, MAX_SOURCE_PREFIXES)),
    ] {
        set(limit, table.integer_or(key, *limit, range, report));
    }
    if let Some(item) = table.get("flow_entries") {
        let wanted = format!("a power of two from {MIN_FLOW_ENTRIES} to {MAX_FLOW_ENTRIES}");
        let allowed = |entries| {
            let entries = u32::try_from(entries).ok().filter(|entries| entries.is_power_of_two())?;
            (MIN_FLOW_ENTRIES..=MAX_FLOW_ENTRIES).contains(&entries).then_some(entries)
        };
        set(&mut limits.flow_entries, item.integer_as(&wanted, allowed, report));
    }
    table.finish(report);
    limits
}

fn read_flow_hash(document: &mut Table<'_>, state_dir: &Path, report: &mut Report<'_>) -> PathBuf {
    let mut key_file = state_dir.join("flow-hash.key");
    if let Some(mut table) = document.table("flow_hash", "[flow_hash]", report) {
        set(&mut key_file, table.get("key_file").and_then(|item| item.parse(report, values::path)));
        table.finish(report);
    }
    key_file
}

fn set<T>(target: &mut T, value: Option<super::report::At<T>>) {
    if let Some(value) = value {
        *target = value.value;
    }
}

const MAX_INTERFACES: usize = 16;
const MAX_SOCKET_PATH: usize = 100;
/// 64 MiB of service table.
const MAX_SERVICES: u32 = 1 << 16;
/// 512 MiB of lookup tables.
const MAX_LOOKUP_SLOTS: u32 = 1 << 26;
const MIN_NAT_FLOWS: u32 = 1 << 10;
/// Some 5 GB of both tables.
const MAX_NAT_FLOWS: u32 = 1 << 24;
const MAX_SOURCE_PREFIXES: u32 = 1 << 24;
