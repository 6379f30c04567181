//! From the configuration file, and from the API, to a command.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use super::{host, last::LastApplied};
use crate::{
    api::{ReloadError, Reloading},
    config::{self, Config, Files},
    control::{Applied, Command, Edit, FoundBackends, Handle, NextHopUpdate, Rejected},
    domain::{Backend, Forwarding, NatPool, Service},
    neighbour::{self, Resolver},
};

/// Makes the running state equal to the file.
pub(super) struct Reloader {
    path: PathBuf,
    /// For the parts of the file that only a start can change.
    started_with: Config,
    control: Handle,
    resolver: Resolver,
    /// Where what was applied is kept, and what is there.
    last: Mutex<(LastApplied, Option<Files>)>,
    /// Reloads one after the other: each reads the file and applies what it read.
    turn: tokio::sync::Mutex<()>,
}

impl Reloader {
    pub(super) async fn new(
        path: PathBuf,
        config: &Config,
        control: Handle,
    ) -> Result<Self, neighbour::Error> {
        let resolver = Resolver::new().await?;
        let last = Mutex::new((LastApplied::new(&config.daemon.state_dir), None));
        let turn = tokio::sync::Mutex::new(());
        Ok(Self { path, started_with: config.clone(), control, resolver, last, turn })
    }

    /// Reads the files and applies them, or says what would change.
    pub(super) async fn reload(&self, reloading: Reloading) -> Result<Applied, ReloadError> {
        let _turn = self.turn.lock().await;
        let Reloading { files, dry_run, disruptive } = reloading;
        let dry_run = dry_run || files.is_some();
        let config = match files {
            Some(files) => config::parse(files),
            None => config::load(&self.path),
        };
        let outcome = match config {
            Ok(config) => self.make_live(&config, dry_run, disruptive).await.map(|mut applied| {
                applied.warnings.extend(self.needs_restart(&config));
                applied
            }),
            Err(diagnostics) => Err(ReloadError::Config(diagnostics)),
        };
        if let Err(error) = &outcome
            && !dry_run
        {
            // The caller is told, and whoever asks for the status later is too.
            let _ = self.control.submit(Command::ConfigRefused(error.to_string())).await;
        }
        outcome
    }

    /// Applies a configuration that a start goes by. What only a start can change it has, or has from another one.
    pub(super) async fn start(&self, config: &Config) -> Result<Applied, ReloadError> {
        self.make_live(config, false, false).await
    }

    async fn make_live(
        &self,
        config: &Config,
        dry_run: bool,
        disruptive: bool,
    ) -> Result<Applied, ReloadError> {
        check_own_addresses(&config.services).map_err(|rejected| located(config, rejected))?;
        let backends = config.services.iter().flat_map(|service| service.backends.values());
        let ways = self.ways(backends).await;
        let (services, nat) = (config.services.clone(), config.nat.clone());
        let command = Command::Declare { services, nat, ways, disruptive };
        let outcome =
            if dry_run { self.control.plan(command).await } else { self.control.submit(command).await };
        let mut applied = outcome.map_err(|rejected| located(config, rejected))?;
        applied.warnings.extend(config.warnings.iter().map(ToString::to_string));
        if config.nat != NatPool::default() || config.services.iter().any(uses_pool) {
            applied.warnings.extend(host::shared_ports(&config.nat));
        }
        if !dry_run {
            applied.warnings.extend(self.keep(&config.files));
        }
        Ok(applied)
    }

    /// Keeps what was applied for a start that finds the files wrong. Returns why it could not.
    fn keep(&self, files: &Files) -> Option<String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (store, kept) = &mut *last;
        if kept.as_ref() == Some(files) {
            return None;
        }
        match store.save(files) {
            Ok(()) => {
                *kept = Some(Files::clone(files));
                None
            }
            Err(why) => Some(why),
        }
    }

    /// Makes a change asked for over the API.
    pub(super) async fn edit(&self, edit: Edit) -> Result<Applied, Rejected> {
        let begins_to_translate = match &edit {
            Edit::AddService(service) => uses_pool(service),
            _ => false,
        };
        let ways = match &edit {
            Edit::AddService(service) => {
                check_own_addresses(std::slice::from_ref(service))?;
                self.ways(service.backends.values()).await
            }
            Edit::AddBackend { backend, .. } => self.ways(std::iter::once(backend)).await,
            _ => Vec::new(),
        };
        let mut applied = self.control.submit(Command::Edit { edit, ways }).await?;
        if begins_to_translate {
            applied.warnings.extend(host::shared_ports(&self.control.snapshot().nat));
        }
        Ok(applied)
    }

    /// Makes what was found part of its services.
    pub(super) async fn found(&self, answers: Vec<FoundBackends>) -> Result<Applied, Rejected> {
        let backends = answers.iter().flat_map(|of| of.backends.values());
        let ways = self.ways(backends).await;
        self.control.submit(Command::Found { answers, ways }).await
    }

    /// Asks the kernel for the ways to these backends, so that a new one is judged and reached at once. What the kernel
    /// can't say yet is left to the neighbour task: a known way is not given up for it.
    async fn ways(&self, backends: impl Iterator<Item = &Backend>) -> Vec<NextHopUpdate> {
        let mut addresses: Vec<_> = backends.map(|backend| backend.address.ip()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        match self.resolver.resolve(&addresses).await {
            Ok(updates) => {
                let known = |update: &NextHopUpdate| update.hop.is_some() || update.gateway.is_some();
                updates.into_iter().filter(known).collect()
            }
            Err(error) => {
                log::warn!("routes to backends could not be read: {error}; going on with what is known");
                Vec::new()
            }
        }
    }

    /// What the file changes that only a start can.
    fn needs_restart(&self, config: &Config) -> Vec<String> {
        let (old, new) = (&self.started_with, config);
        let (was, is) = (&old.daemon, &new.daemon);
        let differences = [
            ("daemon.interfaces", was.interfaces != is.interfaces),
            ("daemon.xdp_mode", was.xdp_mode != is.xdp_mode),
            ("daemon.destination_mac", was.destination_mac != is.destination_mac),
            ("daemon.state_dir", was.state_dir != is.state_dir),
            ("daemon.pin_dir", was.pin_dir != is.pin_dir),
            ("daemon.socket", was.socket != is.socket),
            ("daemon.metrics", was.metrics != is.metrics),
            ("limits", old.limits != new.limits),
            ("discovery", old.discovery != new.discovery),
            ("peers", old.peers != new.peers),
            ("flow_hash.key_file", old.flow_hash_key_file != new.flow_hash_key_file),
        ];
        differences
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(key, _)| format!("{key} has changed: that takes effect when the daemon is restarted"))
            .collect()
    }
}

/// Whether its packets go out with addresses and ports of `[nat]`.
fn uses_pool(service: &Service) -> bool {
    service.forwarding == Forwarding::Nat
}

/// Adds the place in the file to what was refused, where it has one.
fn located(config: &Config, rejected: Rejected) -> ReloadError {
    let diagnostics = match &rejected {
        Rejected::Invalid { field, message } | Rejected::Limit { field: Some(field), message, .. } => {
            config.refuse(field, message)
        }
        _ => None,
    };
    diagnostics.map_or(ReloadError::Rejected(rejected), ReloadError::Config)
}

/// A service on every port of one of the host's own addresses would take the operator's SSH and the replies to our own
/// probes with it.
fn check_own_addresses(services: &[Service]) -> Result<(), Rejected> {
    let every_port = || services.iter().filter(|service| service.vip.port.is_none());
    if every_port().next().is_none() {
        return Ok(());
    }
    let own = host::addresses();
    match every_port().find(|service| own.contains(&service.vip.address)) {
        None => Ok(()),
        Some(service) => Err(Rejected::Invalid {
            field: format!("service.{}", service.name),
            message: format!(
                "{} is an address of this host: a service on every port of it would take SSH and the replies to health \
                 checks away from the host; name the port, or use an address that is routed here and not on an interface",
                service.vip.address
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        control::{
            self,
            store::{Loaded, MemoryStore},
        },
        dataplane::{Fake, reconcile::Reconciler},
        telemetry::PublishStats,
    };

    /// The text of a configuration with these interfaces.
    fn text(directory: &std::path::Path, interfaces: &str) -> String {
        format!("[daemon]\ninterfaces = {interfaces}\nstate_dir = \"{}\"\n", directory.display())
    }

    #[tokio::test]
    async fn only_a_reload_warns_of_what_takes_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.toml");
        let parsed = |interfaces| {
            config::parse(vec![(path.clone(), text(directory.path(), interfaces))]).expect("it is right")
        };
        let reconciler = Reconciler::restore(Box::new(Fake::default())).expect("an empty fake");
        let store = Box::new(MemoryStore::default());
        let control = control::start(reconciler, Arc::new(PublishStats::new()), store, Loaded::default());
        let started = parsed("[\"eth0\"]");
        let reloader = Reloader::new(path.clone(), &started, control).await.expect("a netlink socket");
        // What was applied last is of another time, and no restart brings its settings.
        let other = parsed("[\"eth0\", \"eth1\"]");
        assert_eq!(reloader.start(&other).await.expect("it fits").warnings, [""; 0]);
        std::fs::write(&path, text(directory.path(), "[\"eth1\"]")).expect("written");
        let warnings = reloader.reload(Reloading::default()).await.expect("it fits").warnings;
        assert_eq!(
            warnings,
            ["daemon.interfaces has changed: that takes effect when the daemon is restarted"]
        );
    }
}
