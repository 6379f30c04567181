//! Services and backends as text, in the file's shape: the bodies of the API and what the state file holds.
//!
//! Values are read by nobody but the readers of the configuration file, so there is one set of rules and messages.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use super::health::shape::HealthShape;
use super::{
    check, health,
    report::{Report, Source},
    service,
    table::Table,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{Fraction, HealthCheck, Http, OnPanic, Probe, testing};

    #[test]
    fn a_service_written_down_is_read_as_the_same() {
        let mut service = made_here(testing::service("web", &[("a", 1), ("b", 7)]));
        service.health.probe =
            Probe::Http(Http { path: "/x".into(), host: Some("h".into()), ..Http::default() });
        service.health.interval = Duration::from_millis(1500);
        service.health.fast_interval = Some(Duration::from_millis(300));
        service.health.down_interval = Some(Duration::from_secs(10));
        service.health.address = Some("10.9.0.1".parse().expect("an address"));
        service.health.source = Some("10.9.0.2".parse().expect("an address"));
        service.unhealthy_grace = Duration::ZERO;
        service.slow_start = Duration::from_secs(90);
        service.panic.threshold = Fraction::new(0.333).expect("a fraction");
        service.panic.action = OnPanic::HealthyOnly;
        service.backends.values_mut().for_each(|backend| backend.backup = backend.name.as_str() == "b");
        service.admission.allow.insert("10.0.0.0/8".parse().expect("a prefix"));
        service.admission.new_flow_rate = 9;
        service.discovery.file = Some(std::sync::Arc::new("/etc/web.toml".into()));
        let name = crate::domain::DnsName { host: "web.example.org".into(), port: 80 };
        service.discovery.names.push(DnsBackends { name, weight: 3, backup: true });
        assert_eq!(ServiceShape::from(&service).validate(), Ok(service));
    }

    #[test]
    fn mistakes_are_those_of_the_file_and_name_their_key() {
        let good = ServiceShape {
            name: Some("web".into()),
            address: Some("203.0.113.10:80".into()),
            ..ServiceShape::default()
        };
        let refused = |shape: ServiceShape| shape.validate().expect_err("wrong");
        let algorithm = refused(ServiceShape { algorithm: Some("random".into()), ..good.clone() });
        assert_eq!(algorithm.field, "algorithm");
        assert!(algorithm.message.starts_with("`algorithm` can't be \"random\": one of"), "{algorithm}");
        let health = HealthShape { interval: Some("1ms".into()), ..HealthShape::default() };
        assert_eq!(refused(ServiceShape { health: Some(health), ..good.clone() }).field, "interval");
        let nameless = refused(ServiceShape { name: None, ..good });
        assert!(nameless.message.contains("the request has no `name`"), "{nameless}");
        let wrong =
            BackendShape { weight: Some(65536), ..BackendShape::default() }.validate().expect_err("wrong");
        assert!(!wrong.message.is_empty());
    }

    #[test]
    fn a_shorter_interval_alone_shortens_the_timeout_and_a_longer_one_does_not_lengthen_it() {
        let service = testing::service("web", &[("a", 1)]);
        let patched = |interval: &str, timeout: Option<&str>| {
            let mut patch = json!({ "health": { "interval": interval } });
            if let Some(timeout) = timeout {
                patch["health"]["timeout"] = timeout.into();
            }
            let shape = ServiceShape::from(&service).patched(&patch).expect("of the shape");
            shape.validate().map(|service| service.health.timeout)
        };
        assert_eq!(patched("500ms", None), Ok(Duration::from_millis(500)));
        assert_eq!(patched("1m", None), Ok(service.health.timeout));
        assert_eq!(patched("500ms", Some("2s")).expect_err("too long").field, "timeout");
        assert_eq!(patched("soon", None).expect_err("no time").field, "interval");

        // The default is an interval like another.
        let default = HealthCheck::default().interval;
        let mut service = service;
        (service.health.interval, service.health.timeout) =
            (Duration::from_secs(60), Duration::from_secs(30));
        let taken_back = |timeout: Value| {
            let patch = json!({ "health": { "interval": null, "timeout": timeout } });
            ServiceShape::from(&service).patched(&patch).expect("of the shape").validate()
        };
        let patch = json!({ "health": { "interval": null } });
        let health = ServiceShape::from(&service).patched(&patch).expect("of the shape").validate();
        let health = health.expect("valid").health;
        assert_eq!((health.interval, health.timeout), (default, default));
        let health = taken_back(Value::Null).expect("valid").health;
        assert_eq!((health.interval, health.timeout), (default, HealthCheck::default().timeout));
        let refused = taken_back("30s".into()).expect_err("too long");
        assert_eq!(refused.field, "timeout");
        assert!(refused.message.contains("2s"), "{refused}");
    }

    #[test]
    fn another_type_of_check_forgets_what_only_the_old_one_has() {
        let mut service = testing::service("web", &[("a", 1)]);
        service.health.probe = Probe::Http(Http { path: "/x".into(), ..Http::default() });
        service.health.port = Some(81);
        for kind in [json!("tcp"), json!(null)] {
            let patch = json!({ "health": { "type": kind } });
            let patched = ServiceShape::from(&service).patched(&patch).expect("of the shape");
            let health = patched.validate().expect("valid").health;
            assert_eq!((health.probe, health.port), (Probe::Tcp, Some(81)));
        }
    }

    #[test]
    fn null_takes_a_setting_back_and_nothing_else() {
        let mut service = made_here(testing::service("web", &[("a", 1)]));
        let plain = service.clone();
        service.health.probe = Probe::Http(Http { host: Some("h".into()), ..Http::default() });
        service.health.port = Some(81);
        service.health.source = Some("10.9.0.2".parse().expect("an address"));
        service.health.down_interval = Some(Duration::from_secs(10));
        service.drain_timeout = Duration::from_secs(7);
        let patched = |patch: Value| {
            let shape = ServiceShape::from(&service).patched(&patch).expect("of the shape");
            shape.validate().expect("valid")
        };
        let patch =
            json!({ "health": { "port": null, "source": null, "host": null }, "drain_timeout": null });
        let mut expected = service.clone();
        expected.health.probe = Probe::Http(Http::default());
        (expected.health.port, expected.health.source) = (None, None);
        expected.drain_timeout = plain.drain_timeout;
        assert_eq!(patched(patch), expected);
        assert_eq!(patched(json!({ "health": null, "drain_timeout": null })), plain);
        assert_eq!(patched(json!({})), service);
    }
}
