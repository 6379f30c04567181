//! The types of checks, and the keys that only some of them have.

pub(in crate::config) mod database;
pub(in crate::config) mod dns;
pub(in crate::config) mod exec;
pub(in crate::config) mod http;
pub(in crate::config) mod tls;

use crate::{
    config::{
        key::{Key, Printable, Text},
        reference::Section,
        report::{At, Report, Wrong},
        table::Table,
    },
    domain::{Engine, Grpc, Probe},
};

use super::text;

/// `type` of a check.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeType {
    None,
    Tcp,
    Tls,
    Http,
    Https,
    Grpc,
    Dns,
    Icmp,
    Mysql,
    Postgres,
    Redis,
    Exec,
    Agent,
}

impl ProbeType {
    pub(super) const ALL: [Self; 13] = [
        Self::None,
        Self::Tcp,
        Self::Tls,
        Self::Http,
        Self::Https,
        Self::Grpc,
        Self::Dns,
        Self::Icmp,
        Self::Mysql,
        Self::Postgres,
        Self::Redis,
        Self::Exec,
        Self::Agent,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::Dns => "dns",
            Self::Icmp => "icmp",
            Self::Mysql => "mysql",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Exec => "exec",
            Self::Agent => "agent",
        }
    }

    pub(super) const fn of(probe: &Probe) -> Self {
        match probe {
            Probe::None => Self::None,
            Probe::Tcp => Self::Tcp,
            Probe::Tls(_) => Self::Tls,
            Probe::Http(http) if http.tls.is_some() => Self::Https,
            Probe::Http(_) => Self::Http,
            Probe::Grpc(_) => Self::Grpc,
            Probe::Dns(_) => Self::Dns,
            Probe::Icmp => Self::Icmp,
            Probe::Database(database) => match database.engine {
                Engine::Mysql => Self::Mysql,
                Engine::Postgres => Self::Postgres,
                Engine::Redis => Self::Redis,
            },
            Probe::Exec(_) => Self::Exec,
            Probe::Agent { .. } => Self::Agent,
        }
    }

    /// Whether it asks a TCP port.
    pub(super) fn is_for_tcp(self) -> bool {
        !matches!(self, Self::None | Self::Dns | Self::Icmp | Self::Exec)
    }
}

/// `None` if anything was wrong, which is reported.
pub(super) fn read(
    table: &mut Table<'_>,
    probe_type: Option<At<ProbeType>>,
    report: &mut Report<'_>,
) -> Option<Probe> {
    let misplaced = report_misplaced(table, probe_type, report);
    let probe = match probe_type?.value {
        ProbeType::None => Probe::None,
        ProbeType::Tcp => Probe::Tcp,
        ProbeType::Icmp => Probe::Icmp,
        ProbeType::Tls => Probe::Tls(tls::read(table, report)?),
        ProbeType::Http => Probe::Http(http::read(table, None, report)?),
        ProbeType::Https => {
            let tls = tls::read(table, report);
            let http = http::read(table, tls.clone(), report)?;
            tls?;
            Probe::Http(http)
        }
        ProbeType::Grpc => {
            let service = table.read_or(&SERVICE, String::new(), report);
            let tls = tls::read_optional(table, report);
            Probe::Grpc(Grpc { service: service?.value, tls: tls? })
        }
        ProbeType::Dns => Probe::Dns(dns::read(table, report)?),
        ProbeType::Mysql => Probe::Database(database::read(Engine::Mysql, table, report)?),
        ProbeType::Postgres => Probe::Database(database::read(Engine::Postgres, table, report)?),
        ProbeType::Redis => Probe::Database(database::read(Engine::Redis, table, report)?),
        ProbeType::Exec => Probe::Exec(exec::read(table, report)?),
        ProbeType::Agent => {
            let send = table.read(&SEND, report)?;
            Probe::Agent { send: send.map(|send| send.value) }
        }
    };
    (!misplaced).then_some(probe)
}

/// Reports the keys that are for other types of checks, and whether there are any.
fn report_misplaced(
    table: &mut Table<'_>,
    probe_type: Option<At<ProbeType>>,
    report: &mut Report<'_>,
) -> bool {
    let mut misplaced = false;
    for (key, types) in KEYS {
        if probe_type.is_some_and(|probe| types.contains(&probe.value)) || !table.has(key) {
            continue;
        }
        // Of a type that is wrong itself nobody can say what it takes.
        let (Some(item), Some(probe)) = (table.get(key), probe_type) else { continue };
        let of: Vec<_> = types.iter().map(|of| format!("{:?}", of.as_str())).collect();
        let message = format!("`{key}` means nothing to a check of type \"{}\"", probe.value.as_str());
        report.error(item.place, Wrong::new(message, format!("only for type = {}", of.join(", "))));
        misplaced = true;
    }
    misplaced
}

/// Whether `key` means something to some types of checks alone.
pub(super) fn is_of_some_types(key: &str) -> bool {
    KEYS.iter().any(|(known, _)| *known == key)
}

const HTTP: &[ProbeType] = &[ProbeType::Http, ProbeType::Https];
const DATABASES: &[ProbeType] = &[ProbeType::Mysql, ProbeType::Postgres, ProbeType::Redis];
/// Those that use TLS if they are told to.
const MAY_USE_TLS: &[ProbeType] = &[ProbeType::Grpc, ProbeType::Mysql, ProbeType::Postgres, ProbeType::Redis];
const USE_TLS: &[ProbeType] = &[
    ProbeType::Tls,
    ProbeType::Https,
    ProbeType::Grpc,
    ProbeType::Mysql,
    ProbeType::Postgres,
    ProbeType::Redis,
];
const DNS: &[ProbeType] = &[ProbeType::Dns];

const KEYS: [(&str, &[ProbeType]); 22] = [
    ("path", HTTP),
    ("host", HTTP),
    ("method", HTTP),
    ("headers", HTTP),
    ("expect_status", HTTP),
    ("expect_body", HTTP),
    ("tls", MAY_USE_TLS),
    ("server_name", USE_TLS),
    ("verify", USE_TLS),
    ("ca_file", USE_TLS),
    ("role", DATABASES),
    ("user", DATABASES),
    ("password_file", DATABASES),
    ("database", &[ProbeType::Postgres]),
    ("max_lag", &[ProbeType::Mysql, ProbeType::Postgres]),
    ("service", &[ProbeType::Grpc]),
    ("name", DNS),
    ("record", DNS),
    ("expect_rcode", DNS),
    ("expect_addresses", DNS),
    ("command", &[ProbeType::Exec]),
    ("send", &[ProbeType::Agent]),
];

pub(in crate::config) const GRPC: Section = Section { heading: "### `grpc`", says: "", keys: &[&SERVICE] };

const SERVICE: Key<Printable> = Key {
    name: "service",
    takes: Printable(0, 255),
    default: "`\"\"`",
    means: "whose health is asked; empty is the whole server's",
};

pub(in crate::config) const AGENT: Section = Section {
    heading: "### `agent`",
    says: "Connects, says `send` if there is one, and reads a line of words, as HAProxy's `agent-check` does.",
    keys: &[&SEND],
};

const SEND: Key<Text<String>> = Key {
    name: "send",
    takes: Text("text, 1 to 1,024 bytes", text::agent),
    default: "none",
    means: "what is said first, its line end included: `\"state\\n\"`",
};
