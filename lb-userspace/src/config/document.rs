//! A service as the members of a fleet share it: a `[[service]]` of the configuration file that is a text of its own, with what
//! was set over its backends.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use super::{
    check,
    diagnostic::Diagnostics,
    kept,
    report::{Report, Source, Wrong},
    service,
    shape::{ServiceShape, UNLIMITED, made_here, of_origin},
    table::Table,
};
use crate::domain::{Admin, Name, Origin, Override, Probe, Service};

/// What a text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub service: Service,
    /// By backend; none of them says nothing.
    pub overrides: BTreeMap<Name, Override>,
}

/// How a text is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// What the service has to be called.
    pub name: &'a Name,
    /// Whether it may name programs and files of this host.
    pub local_files: bool,
}

impl Document {
    /// The service of a text; `place` is what messages call it.
    ///
    /// # Errors
    ///
    /// Everything found wrong.
    pub fn read(place: PathBuf, text: String, reading: Reading<'_>) -> Result<Self, Diagnostics> {
        let sources = [Source::new(place, text)];
        let mut report = Report::new(&sources);
        let (document, errors) = toml::de::DeTable::parse_recoverable(sources[0].text());
        for error in errors {
            report.syntax(0, &error);
        }
        report.stop_at_errors()?;
        let mut table = Table::titled("the document", &document);
        let mut overrides = BTreeMap::new();
        for over in table.tables("override", "[[override]]", &mut report) {
            overrides.extend(kept::read_override(over, &mut report));
        }
        let draft = service::read(table, &mut report);
        check::services(std::slice::from_ref(&draft), UNLIMITED, &mut report);
        if let Some(name) = draft.name.as_ref().filter(|name| name.value != *reading.name) {
            let message = format!("this is the document of service {}", reading.name);
            report.error(name.place, Wrong::new(message, "its key says so"));
        }
        let place = draft.place;
        let service = draft.into_domain(&sources);
        if let Some(what) = service.as_ref().filter(|_| !reading.local_files).and_then(local) {
            let message = format!("a document of the fleet can't have {what}");
            let help = "whoever may write to etcd would have the daemon's rights here; `local_files = true` in [fleet] allows it";
            report.error(place, Wrong::new(message, "it would be this host's").help(help));
        }
        report.finish()?;
        let overrides = overrides.into_iter().filter(|(_, over)| *over != Override::default()).collect();
        match service {
            Some(service) => Ok(Self { service: of_origin(service, &Origin::Fleet), overrides }),
            // What is left out without an error is reported as one.
            None => Err(sources[0].diagnostic(0..1, "the document is incomplete", "").into()),
        }
    }

    /// Its text: the same for the same service, wherever it is written.
    ///
    /// # Errors
    ///
    /// What can't be written as TOML.
    pub fn write(&self) -> Result<String, toml::ser::Error> {
        let over = |(backend, over): (&Name, &Override)| WrittenOverride {
            backend: backend.to_string(),
            weight: over.weight,
            admin: over.admin.map(Admin::as_str),
        };
        let overrides = Overrides { r#override: self.overrides.iter().map(over).collect() };
        let service = toml::to_string(&shape_of(&self.service, &KEYS, &HEALTH_KEYS)?)?;
        match overrides.r#override.is_empty() {
            true => Ok(service),
            false => Ok(format!("{service}\n{}", toml::to_string(&overrides)?)),
        }
    }
}

/// All settings of a service; of those that are not among these keys only what is not as it is without. Members of another
/// version, which don't know the others, go on reading what uses none of them.
fn shape_of(
    service: &Service,
    keys: &[&str],
    health_keys: &[&str],
) -> Result<ServiceShape, toml::ser::Error> {
    let whole = ServiceShape::from(service);
    let mut table = toml::Table::try_from(&whole)?;
    let wanted = made_here(service.clone());
    let read = |table: &toml::Table| -> Option<ServiceShape> {
        let shape: ServiceShape = table.clone().try_into().ok()?;
        (shape.validate().ok()? == wanted).then_some(shape)
    };
    let mut shape = whole;
    for (part, known) in [(None, keys), (Some("health"), health_keys)] {
        let of = |table: &toml::Table| match part {
            None => Some(table.clone()),
            Some(part) => table.get(part).and_then(toml::Value::as_table).cloned(),
        };
        let news: Vec<_> = of(&table).into_iter().flat_map(|of| of.into_iter().map(|(key, _)| key)).collect();
        for key in news.iter().filter(|key| !known.contains(&key.as_str())) {
            let mut without = table.clone();
            match part {
                None => drop(without.remove(key)),
                Some(part) => drop(without.get_mut(part).and_then(|of| of.as_table_mut()?.remove(key))),
            }
            if let Some(read) = read(&without) {
                (table, shape) = (without, read);
            }
        }
    }
    Ok(shape)
}

/// Those of a service that every version with fleets knows: they are written as they are. Never add one.
const KEYS: [&str; 21] = [
    "name",
    "address",
    "protocol",
    "forwarding",
    "algorithm",
    "table_size",
    "panic_threshold",
    "on_panic",
    "on_all_down",
    "slow_start",
    "tracking",
    "flow_idle_timeout",
    "unhealthy_grace",
    "drain_timeout",
    "allow",
    "deny",
    "new_flow_rate",
    "backends_file",
    "health",
    "dns",
    "backend",
];

/// Likewise, of its health check.
const HEALTH_KEYS: [&str; 33] = [
    "type",
    "port",
    "via",
    "address",
    "source",
    "interval",
    "fast_interval",
    "down_interval",
    "timeout",
    "rise",
    "fall",
    "path",
    "host",
    "method",
    "headers",
    "expect_status",
    "expect_body",
    "tls",
    "server_name",
    "verify",
    "ca_file",
    "role",
    "user",
    "password_file",
    "database",
    "max_lag",
    "service",
    "name",
    "record",
    "expect_rcode",
    "expect_addresses",
    "send",
    "command",
];

/// What of a service is a program or a file of the host that it is on.
fn local(service: &Service) -> Option<&'static str> {
    if service.discovery.file.is_some() {
        return Some("a `backends_file`");
    }
    let tls = match &service.health.probe {
        Probe::Exec(_) => return Some("a check of type \"exec\""),
        Probe::Database(database) if database.password_file.is_some() => return Some("a `password_file`"),
        Probe::Database(database) => database.tls.as_ref(),
        Probe::Tls(tls) => Some(tls),
        Probe::Http(http) => http.tls.as_ref(),
        Probe::Grpc(grpc) => grpc.tls.as_ref(),
        _ => None,
    };
    tls.filter(|tls| tls.ca_file.is_some()).map(|_| "a `ca_file`")
}

#[derive(Serialize)]
struct Overrides {
    r#override: Vec<WrittenOverride>,
}

#[derive(Serialize)]
struct WrittenOverride {
    backend: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<&'static str>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::testing::service;

    #[test]
    fn a_key_that_older_members_do_not_know_is_written_only_where_it_says_something() {
        let mut service = service("web", &[("a", 1)]);
        let older = KEYS.map(|key| if key == "drain_timeout" { "name" } else { key });
        let older_health = HEALTH_KEYS.map(|key| if key == "rise" { "type" } else { key });
        let written = |service: &Service| shape_of(service, &older, &older_health).expect("written");
        let shape = written(&service);
        assert_eq!((shape.drain_timeout, shape.unhealthy_grace.as_deref()), (None, Some("30s")));
        let health = shape.health.expect("a check");
        assert_eq!((health.rise, health.fall), (None, Some(3)));
        service.drain_timeout = Duration::from_secs(7);
        service.health.rise = 9;
        let shape = written(&service);
        assert_eq!(shape.drain_timeout.as_deref(), Some("7s"));
        assert_eq!(shape.health.expect("a check").rise, Some(9));
        // As it is written now, with nothing that is not known.
        let text = Document { service, overrides: BTreeMap::new() }.write().expect("written");
        let table: toml::Table = toml::from_str(&text).expect("TOML");
        assert!(table.keys().all(|key| KEYS.contains(&key.as_str())), "{text}");
    }
}
