//! Services and backends as text, in the file's shape: the bodies of the API and what the state file holds.
//!
//! Values are read by nobody but the readers of the configuration file, so there is one set of rules and messages.

#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use super::health::shape::HealthShape;
use super::{
    check, health,
    report::{Report, Source},
    service,
    table::Table,
    values,
};
use crate::{
    dataplane::Limits,
    domain::{Backend, DnsBackends, Origin, Service},
};

/// A `[[service]]`. What is not there has its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceShape {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_size: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_threshold: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_panic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_all_down: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdraw_below: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_idle_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unhealthy_grace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_flow_rate: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthShape>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<DnsShape>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend: Vec<BackendShape>,
}

/// A `[[service.dns]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsShape {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,
}

/// A `[[service.backend]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackendShape {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,
}

/// A value that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// Key of the value at fault.
    pub field: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl ServiceShape {
    /// Validates the service as the configuration file's readers do, and fills the defaults in.
    ///
    /// # Errors
    ///
    /// The first mistake.
    pub fn validate(&self) -> Result<Service, Refused> {
        read(self, |table, report| {
            let draft = service::read(table, report);
            check::services(std::slice::from_ref(&draft), UNLIMITED, report);
            draft
        })
        .and_then(|(draft, source)| draft.into_domain(&[source]).ok_or_else(incomplete))
        .map(made_here)
    }

    /// These settings with those of `patch` over them, an object of the same shape (RFC 7396): a key that is `null` there goes
    /// back to its default.
    ///
    /// # Errors
    ///
    /// `patch` is of another shape.
    pub fn patched(&self, patch: &Value) -> Result<Self, serde_json::Error> {
        let mut settings = serde_json::to_value(self)?;
        let mut patch = patch.clone();
        if let (Some(health), Some(over)) = (settings.get_mut("health"), patch.get_mut("health")) {
            health::shape::prepare(health, over);
        }
        overlay(&mut settings, &patch);
        serde_json::from_value(settings)
    }
}

impl ServiceShape {
    /// See [`HealthShape::without_secrets`].
    #[must_use]
    pub fn without_secrets(self) -> Self {
        Self { health: self.health.map(HealthShape::without_secrets), ..self }
    }
}

impl BackendShape {
    /// Validates the backend by itself; whether it fits its service is not known here.
    ///
    /// # Errors
    ///
    /// The first mistake.
    pub fn validate(&self) -> Result<Backend, Refused> {
        read(self, service::read_backend)
            .and_then(|(draft, _)| draft.into_domain(Origin::Cli).ok_or_else(incomplete))
    }
}

impl From<&Service> for ServiceShape {
    /// Everything is said, defaults too, so that it means the same to a later version.
    fn from(service: &Service) -> Self {
        Self {
            name: Some(service.name.to_string()),
            address: Some(service.vip.to_string()),
            protocol: Some(service.protocol.as_str().to_owned()),
            forwarding: Some(service.forwarding.as_str().to_owned()),
            algorithm: Some(service.algorithm.as_str().to_owned()),
            table_size: Some(service.table_size.slots().into()),
            panic_threshold: Some(service.panic.threshold.number()),
            on_panic: Some(service.panic.action.as_str().to_owned()),
            on_all_down: Some(service.on_all_down.as_str().to_owned()),
            slow_start: Some(time(service.slow_start)),
            withdraw_below: Some(service.withdraw_below.into()),
            tracking: Some(service.tracking.as_str().to_owned()),
            flow_idle_timeout: Some(time(service.flow_idle_timeout)),
            unhealthy_grace: Some(time(service.unhealthy_grace)),
            drain_timeout: Some(time(service.drain_timeout)),
            allow: Some(service.admission.allow.iter().map(ToString::to_string).collect()),
            deny: Some(service.admission.deny.iter().map(ToString::to_string).collect()),
            new_flow_rate: Some(service.admission.new_flow_rate.into()),
            backends_file: service.discovery.file.as_ref().map(|path| path.display().to_string()),
            health: Some((&service.health).into()),
            dns: service.discovery.names.iter().map(Into::into).collect(),
            backend: service.backends.values().map(Into::into).collect(),
        }
    }
}

impl From<&DnsBackends> for DnsShape {
    fn from(of: &DnsBackends) -> Self {
        Self { name: Some(of.name.to_string()), weight: Some(of.weight.into()), backup: Some(of.backup) }
    }
}

impl From<&Backend> for BackendShape {
    fn from(backend: &Backend) -> Self {
        Self {
            name: Some(backend.name.to_string()),
            address: Some(backend.address.to_string()),
            weight: Some(backend.weight.into()),
            backup: Some(backend.backup),
        }
    }
}

/// The one of `all` that is called `text`, the value of a key.
pub(crate) fn one_of<T: Copy>(
    field: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
    text: &str,
) -> Result<T, Refused> {
    let chosen = values::choice(all, name)(field, text);
    chosen.map_err(|wrong| Refused { field: field.to_owned(), message: wrong.told() })
}

/// As if no file had it.
pub(super) fn made_here(service: Service) -> Service {
    of_origin(service, &Origin::Cli)
}

/// With all its backends.
pub(crate) fn of_origin(service: Service, origin: &Origin) -> Service {
    let backends = service.backends.into_iter();
    let backends = backends.map(|(name, backend)| (name, Backend { origin: origin.clone(), ..backend }));
    Service { backends: backends.collect(), origin: origin.clone(), ..service }
}

/// Writes `shape` down and has `reader` read it.
fn read<T>(
    shape: &impl Serialize,
    reader: impl FnOnce(Table<'_>, &mut Report<'_>) -> T,
) -> Result<(T, Source), Refused> {
    let failed = |error: &dyn std::fmt::Display| Refused {
        field: "body".to_owned(),
        message: format!("the request can't be written down: {error}"),
    };
    let text = toml::to_string(shape).map_err(|error| failed(&error))?;
    let sources = [Source::new(PathBuf::from("request"), text)];
    let mut report = Report::new(&sources);
    let draft = {
        let (document, _) = toml::de::DeTable::parse_recoverable(sources[0].text());
        reader(Table::titled("the request", &document), &mut report)
    };
    let outcome = report.finish();
    match outcome {
        Ok(_) => {
            let [source] = sources;
            Ok((draft, source))
        }
        Err(diagnostics) => Err(diagnostics.iter().next().map_or_else(incomplete, |first| {
            let line = first.position.as_ref().map(|position| position.text.as_str()).unwrap_or_default();
            let key = line.split_once('=').map_or("body", |(key, _)| key.trim());
            Refused { field: key.to_owned(), message: format!("{}: {}", first.message, first.label) }
        })),
    }
}

/// No reader leaves something out without an error; this is for the one that would.
fn incomplete() -> Refused {
    Refused { field: "body".to_owned(), message: "the request is incomplete".to_owned() }
}

/// Puts `patch` over `value`, key by key.
fn overlay(value: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        value.clone_from(patch);
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(value) = value else { return };
    for (key, patch) in patch {
        match patch {
            Value::Null => drop(value.remove(key)),
            patch => overlay(value.entry(key).or_insert(Value::Null), patch),
        }
    }
}

fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// Whether everything together fits is the reconciler's to say.
pub(super) const UNLIMITED: Limits = Limits {
    services: u32::MAX,
    backends: u32::MAX,
    lookup_slots: u32::MAX,
    flow_entries: u32::MAX,
    nat_flows: u32::MAX,
    source_prefixes: u32::MAX,
};
