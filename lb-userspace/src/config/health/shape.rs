use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    probe::{self, ProbeType},
    text,
};
use crate::{
    config::secrets::HIDDEN,
    domain::{Database, Dns, HealthCheck, Http, Probe, Tls, Via, may_be_secret},
};

/// A `[service.health]` as text, in the file's shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthShape {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down_interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fall: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_rcode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_addresses: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
}

/// What has to be done before `patch` is laid over the check's settings, both as JSON.
pub(in crate::config) fn prepare(settings: &mut Value, patch: &mut Value) {
    let (Value::Object(settings), Value::Object(patch)) = (settings, patch) else { return };
    if patch.get("type").is_some_and(|kind| settings.get("type") != Some(kind)) {
        // Another type of check starts without what only the old one has.
        settings.retain(|key, _| !probe::is_of_some_types(key));
    }
    if !patch.contains_key("timeout") {
        // As in a file that names the interval alone: the timeout must not stand in its way.
        let time = |of: &Map<String, Value>, key| of.get(key).and_then(Value::as_str).and_then(parsed);
        let longest = match patch.get("interval") {
            Some(Value::Null) => Some(HealthCheck::default().interval),
            _ => time(patch, "interval"),
        };
        if let Some(longest) = longest.filter(|longest| time(settings, "timeout") > Some(*longest)) {
            patch.insert("timeout".to_owned(), humantime::format_duration(longest).to_string().into());
        }
    }
}

impl HealthShape {
    /// For whoever may see how a server is checked, but not with which secrets: values of headers that may be some are hidden.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        for header in self.headers.iter_mut().flatten() {
            if let Some((name, _)) = header.split_once(':')
                && may_be_secret(name)
            {
                *header = format!("{name}: {}", HIDDEN);
            }
        }
        self
    }
}

impl From<&HealthCheck> for HealthShape {
    fn from(check: &HealthCheck) -> Self {
        let shape = Self {
            kind: Some(ProbeType::of(&check.probe).as_str().to_owned()),
            port: check.port.map(Into::into),
            via: Some(check.via).filter(|via| *via != Via::default()).map(|via| via.as_str().to_owned()),
            address: check.address.map(|address| address.to_string()),
            source: check.source.map(|source| source.to_string()),
            interval: Some(time(check.interval)),
            fast_interval: check.fast_interval.map(time),
            down_interval: check.down_interval.map(time),
            timeout: Some(time(check.timeout)),
            rise: Some(check.rise.into()),
            fall: Some(check.fall.into()),
            ..Self::default()
        };
        match &check.probe {
            Probe::None | Probe::Tcp | Probe::Icmp => shape,
            Probe::Tls(tls) => shape.with_tls(tls),
            Probe::Http(http) => shape.with_http(http),
            Probe::Grpc(grpc) => {
                let service = Some(grpc.service.clone()).filter(|service| !service.is_empty());
                Self { service, ..shape }.with_optional_tls(grpc.tls.as_ref())
            }
            Probe::Dns(dns) => shape.with_dns(dns),
            Probe::Database(database) => shape.with_database(database),
            Probe::Agent { send } => Self { send: send.clone(), ..shape },
            Probe::Exec(command) => Self { command: Some(command.clone()), ..shape },
        }
    }
}

impl HealthShape {
    fn with_tls(self, tls: &Tls) -> Self {
        Self {
            server_name: tls.server_name.clone(),
            verify: Some(tls.verify),
            ca_file: tls.ca_file.as_deref().map(path),
            ..self
        }
    }

    fn with_optional_tls(self, tls: Option<&Tls>) -> Self {
        match tls {
            Some(settings) => Self { tls: Some(true), ..self.with_tls(settings) },
            None => self,
        }
    }

    fn with_http(self, http: &Http) -> Self {
        let headers: Vec<_> = http.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let shape = Self {
            path: Some(http.path.clone()),
            host: http.host.clone(),
            method: Some(http.method.clone()),
            headers: Some(headers).filter(|headers| !headers.is_empty()),
            expect_status: Some(text::written(http)),
            expect_body: http.expect_body.clone(),
            ..self
        };
        match &http.tls {
            Some(settings) => shape.with_tls(settings),
            None => shape,
        }
    }

    fn with_dns(self, dns: &Dns) -> Self {
        let addresses: Vec<_> = dns.answers.iter().map(ToString::to_string).collect();
        Self {
            name: Some(dns.name.clone()),
            record: Some(dns.record.as_str().to_owned()),
            expect_rcode: Some(dns.rcode.as_str().to_owned()),
            expect_addresses: Some(addresses).filter(|addresses| !addresses.is_empty()),
            ..self
        }
    }

    fn with_database(self, database: &Database) -> Self {
        Self {
            role: Some(database.role.as_str().to_owned()),
            user: database.user.clone(),
            password_file: database.password_file.as_deref().map(path),
            database: database.database.clone(),
            max_lag: database.max_lag.map(time),
            ..self
        }
        .with_optional_tls(database.tls.as_ref())
    }
}

fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn parsed(time: &str) -> Option<Duration> {
    humantime::parse_duration(time).ok()
}
