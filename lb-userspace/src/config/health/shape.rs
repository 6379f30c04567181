use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::probe::ProbeType;
use crate::domain::{HealthCheck, Probe};

/// A `[service.health]` as text, in the file's shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthShape {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
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
}

impl HealthShape {
    /// These settings with those of `patch` over them.
    pub(in crate::config) fn patched(mut self, mut patch: Self) -> Self {
        // Another type of check starts without what only the old one has.
        if patch.kind.is_some() && patch.kind != self.kind {
            self = self.common();
        }
        if patch.interval.is_some() && patch.timeout.is_none() {
            // As in a file that names the interval alone: the timeout must not stand in its way.
            let longest = patch.interval.as_deref().and_then(parsed);
            if longest.is_some() && self.timeout.as_deref().and_then(parsed) > longest {
                patch.timeout.clone_from(&patch.interval);
            }
        }
        overlaid(&self, &patch).unwrap_or(patch)
    }

    /// What every check has.
    fn common(self) -> Self {
        let Self {
            kind,
            port,
            address,
            source,
            interval,
            fast_interval,
            down_interval,
            timeout,
            rise,
            fall,
            ..
        } = self;
        Self {
            kind,
            port,
            address,
            source,
            interval,
            fast_interval,
            down_interval,
            timeout,
            rise,
            fall,
            ..Self::default()
        }
    }
}

impl From<&HealthCheck> for HealthShape {
    fn from(check: &HealthCheck) -> Self {
        let time = |time: Duration| humantime::format_duration(time).to_string();
        let shape = Self {
            kind: Some(ProbeType::of(&check.probe).as_str().to_owned()),
            port: check.port.map(Into::into),
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
            Probe::None | Probe::Tcp => shape,
            Probe::Http { path, host } => Self { path: Some(path.clone()), host: host.clone(), ..shape },
        }
    }
}

/// The keys of `over` laid over those of `under`.
fn overlaid(under: &HealthShape, over: &HealthShape) -> Option<HealthShape> {
    let mut table = toml::Table::try_from(under).ok()?;
    table.extend(toml::Table::try_from(over).ok()?);
    table.try_into().ok()
}

fn parsed(time: &str) -> Option<Duration> {
    humantime::parse_duration(time).ok()
}
