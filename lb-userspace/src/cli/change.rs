//! Commands that change services and backends.

use std::fmt::Write;

use clap_complete::ArgValueCandidates;
use serde_json::{Map, Value};

use super::{
    BackendCommand, Format, ServiceCommand, complete,
    exit::Failure,
    health::HealthSettings,
    output::{self, Style, plain},
    wait::{self, Goal, Patience},
};
use crate::{
    api::{client::Client, v1},
    domain::{Admin, Name},
};

/// Settings of a service that may be given when it is added and changed later. Each is a key of the configuration file,
/// with the same values.
#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// How packets get to a backend: l2-dsr, ipip, gue, dnat, nat
    #[arg(long, value_name = "MODE")]
    forwarding: Option<String>,
    /// Smallest healthy part of the backends that will do, 0 to 1; 0 for one backend
    #[arg(long, value_name = "PART")]
    panic_threshold: Option<f64>,
    /// When fewer are healthy: fail-open, healthy-only
    #[arg(long, value_name = "WHAT")]
    on_panic: Option<String>,
    /// When every backend is unhealthy: fail-open, drop, reject
    #[arg(long, value_name = "WHAT")]
    on_all_down: Option<String>,
    /// How long a backend takes from a tenth of its new flows to all of them; 0s to 1h
    #[arg(long, value_name = "TIME")]
    slow_start: Option<String>,
    /// With fewer healthy backends this host does not announce the VIP; 0 for whatever becomes of them
    #[arg(long, value_name = "N")]
    withdraw_below: Option<i64>,
    /// Which flows are tracked: auto, always, never
    #[arg(long, value_name = "WHICH")]
    tracking: Option<String>,
    /// A tracked flow that is silent for longer is forgotten; 1s to 1h
    #[arg(long, value_name = "TIME")]
    flow_idle_timeout: Option<String>,
    /// How long TCP flows stay with a backend that became unhealthy; 0s to 1h
    #[arg(long, value_name = "TIME")]
    unhealthy_grace: Option<String>,
    /// How long flows stay with a backend that drains; 0s to 24h
    #[arg(long, value_name = "TIME")]
    drain_timeout: Option<String>,
    /// Source prefixes whose packets are let in, and no others; separated by commas, "" for all
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',')]
    allow: Option<Vec<String>>,
    /// Source prefixes whose packets are dropped; the longest prefix of both lists decides
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',')]
    deny: Option<Vec<String>>,
    /// New flows let in each second; 0 for any number
    #[arg(long, value_name = "N")]
    new_flow_rate: Option<i64>,
    #[command(flatten)]
    health: HealthSettings,
}

/// What a service is given once and keeps.
#[derive(Debug, clap::Args)]
pub(super) struct Fixed {
    /// tcp or udp
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// source-hash, flow-hash, round-robin, least-connections
    #[arg(long, value_name = "ALGORITHM")]
    algorithm: Option<String>,
    /// Slots of the lookup table: a power of two
    #[arg(long, value_name = "SLOTS")]
    table_size: Option<i64>,
}

/// A backend of a service, and whether to wait.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The service
    #[arg(value_name = "SERVICE", add = ArgValueCandidates::new(complete::services))]
    pub(super) service: Name,
    /// The backend
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::backends))]
    pub(super) name: Name,
    #[command(flatten)]
    pub(super) patience: Patience,
}

pub(super) async fn service(client: &Client, command: ServiceCommand, format: Format) -> Result<(), Failure> {
    let changed = match command {
        ServiceCommand::Add { name, address, fixed, settings } => {
            let Fixed { protocol, algorithm, table_size } = *fixed;
            let service = v1::ServiceSettings {
                name: Some(name.to_string()),
                address: Some(address),
                protocol,
                algorithm,
                table_size,
                ..settings.into_api()
            };
            client.add_service(&service).await?
        }
        ServiceCommand::Set { name, settings, unset } => {
            client.set_service(&name, &patch(settings.into_api(), &unset).map_err(Failure::Usage)?).await?
        }
        ServiceCommand::Remove { name } => client.remove_service(&name).await?,
        ServiceCommand::List(watch) => return super::service::list(client, watch, format).await,
        ServiceCommand::Show { name, watch } => {
            return super::service::show(client, &name, watch, format).await;
        }
    };
    print(&changed, format)
}

pub(super) async fn backend(client: &Client, command: BackendCommand, format: Format) -> Result<(), Failure> {
    let (target, goal, settings) = match command {
        BackendCommand::List { service, watch } => {
            return super::backend::list(client, &service, watch, format).await;
        }
        BackendCommand::Add { service, name, address, weight, backup } => {
            let (name, address) = (Some(name.to_string()), Some(address));
            let backend = v1::NewBackend { name, address, weight, backup: backup.then_some(true) };
            return print(&client.add_backend(&service, &backend).await?, format);
        }
        BackendCommand::Set { service, name, weight } => {
            let settings = v1::BackendSettings { weight: Some(weight), ..v1::BackendSettings::default() };
            return print(&client.set_backend(&service, &name, &settings).await?, format);
        }
        BackendCommand::Drain(target) => (target, Goal::Drained, admin(Admin::Draining)),
        BackendCommand::Enable(target) => (target, Goal::InTable, admin(Admin::Active)),
        BackendCommand::Disable(target) => (target, Goal::Over, admin(Admin::Disabled)),
        BackendCommand::Reset(target) => {
            (target, Goal::InTable, v1::BackendSettings { reset: true, ..v1::BackendSettings::default() })
        }
        BackendCommand::Remove(target) => {
            print(&client.remove_backend(&target.service, &target.name).await?, format)?;
            return wait::wait(client, &target, Goal::Over).await;
        }
    };
    target.patience.check(goal)?;
    print(&client.set_backend(&target.service, &target.name, &settings).await?, format)?;
    wait::wait(client, &target, goal).await
}

/// The settings, and `null` for each key that goes back to its default: `drain_timeout`, `health.port`.
///
/// # Errors
///
/// Why these arguments make no sense together.
pub(super) fn patch(settings: v1::ServiceSettings, unset: &[String]) -> Result<Value, String> {
    let mut patch = serde_json::to_value(settings).map_err(|error| error.to_string())?;
    let Value::Object(keys) = &mut patch else { return Err(format!("no settings: {patch}")) };
    for key in unset {
        let (of, name) = key.rsplit_once('.').unwrap_or(("", key));
        let of = match of {
            "" => &mut *keys,
            of => match keys.entry(of).or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(of) => of,
                _ => return Err(format!("there is no setting {key}")),
            },
        };
        if of.insert(name.to_owned(), Value::Null).is_some_and(|set| !set.is_null()) {
            return Err(format!("{key} can't be both set and taken back"));
        }
    }
    if keys.is_empty() {
        return Err("nothing to set: `ballast service set --help` lists the settings".to_owned());
    }
    Ok(patch)
}

fn admin(admin: Admin) -> v1::BackendSettings {
    v1::BackendSettings { admin: Some(admin.as_str().to_owned()), ..v1::BackendSettings::default() }
}

pub(super) fn print(changed: &v1::Changed, format: Format) -> Result<(), Failure> {
    for warning in &changed.warnings {
        output::complain(&format!("warning: {warning}"));
    }
    Ok(output::print(format, changed, render)?)
}

pub(super) fn render(changed: &v1::Changed, _: Style) -> String {
    let outcome = match changed.changes.is_empty() {
        true => format!("nothing to change; revision {} is live", changed.revision),
        false => format!("revision {} is live", changed.revision),
    };
    list(&changed.changes) + &outcome
}

/// A line for each change.
pub(super) fn list(changes: &[v1::Change]) -> String {
    let mut text = String::new();
    for v1::Change { action, object, detail } in changes {
        let separator = if detail.is_empty() { "" } else { ": " };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{action} {object}{separator}{}", plain(detail));
    }
    text
}

impl Settings {
    pub(super) fn into_api(self) -> v1::ServiceSettings {
        v1::ServiceSettings {
            forwarding: self.forwarding,
            panic_threshold: self.panic_threshold,
            on_panic: self.on_panic,
            on_all_down: self.on_all_down,
            slow_start: self.slow_start,
            withdraw_below: self.withdraw_below,
            tracking: self.tracking,
            flow_idle_timeout: self.flow_idle_timeout,
            unhealthy_grace: self.unhealthy_grace,
            drain_timeout: self.drain_timeout,
            allow: self.allow.map(list_of),
            deny: self.deny.map(list_of),
            new_flow_rate: self.new_flow_rate,
            health: self.health.into_api(),
            ..v1::ServiceSettings::default()
        }
    }
}

/// An empty argument is an empty list.
pub(super) fn list_of(values: Vec<String>) -> Vec<String> {
    values.into_iter().filter(|value| !value.is_empty()).collect()
}
