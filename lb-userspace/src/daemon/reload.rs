//! From the configuration file, and from the API, to a command.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;

use super::{host, last::LastApplied};
use crate::{
    api::{ReloadError, Reloading},
    config::{self, AnnounceConfig, Config, Files},
    control::{Applied, Command, Edit, FoundBackends, Handle, NextHopUpdate, Rejected},
    domain::{Backend, Forwarding, NatPool, Service},
    fleet::book::Declared,
    neighbour::{self, Resolver},
};

/// Makes the running state equal to the file.
pub(super) struct Reloader {
    path: PathBuf,
    /// For the parts of the file that only a start can change.
    started_with: Config,
    control: Handle,
    resolver: Resolver,
    /// How VIPs are announced by what was applied last.
    announcing: watch::Sender<Option<AnnounceConfig>>,
    /// Where what was applied is kept, and what is there.
    last: Mutex<(LastApplied, Option<Files>)>,
    /// Reloads one after the other: each reads the file and applies what it read. So do changes of a fleet.
    turn: tokio::sync::Mutex<Parts>,
}

/// Of a member of a fleet: what the file says, and what the fleet does. Together they are what is declared.
#[derive(Debug)]
struct Parts {
    nat: NatPool,
    /// `None`: not known yet.
    fleet: Option<Declared>,
}

impl Reloader {
    pub(super) async fn new(
        path: PathBuf,
        config: &Config,
        control: Handle,
    ) -> Result<Self, neighbour::Error> {
        let resolver = Resolver::new().await?;
        let last = Mutex::new((LastApplied::new(&config.daemon.state_dir), None));
        let turn = tokio::sync::Mutex::new(Parts { nat: config.nat.clone(), fleet: None });
        let announcing = watch::Sender::new(None);
        Ok(Self { path, started_with: config.clone(), control, resolver, announcing, last, turn })
    }

    /// How VIPs are announced, now and after each reload.
    pub(super) fn announcing(&self) -> watch::Receiver<Option<AnnounceConfig>> {
        self.announcing.subscribe()
    }

    /// Reads the files and applies them, or says what would change.
    pub(super) async fn reload(&self, reloading: Reloading) -> Result<Applied, ReloadError> {
        let mut parts = self.turn.lock().await;
        let Reloading { files, dry_run, disruptive } = reloading;
        let dry_run = dry_run || files.is_some();
        let config = match files {
            Some(files) => config::parse(files),
            None => config::load(&self.path),
        };
        let outcome = match config {
            Ok(config) => self.declare(&config, &mut parts, dry_run, disruptive).await.map(|mut applied| {
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
        self.declare(config, &mut *self.turn.lock().await, false, false).await
    }

    /// Makes what the file declares live, or what it has to say beside the fleet.
    async fn declare(
        &self,
        config: &Config,
        parts: &mut Parts,
        dry_run: bool,
        disruptive: bool,
    ) -> Result<Applied, ReloadError> {
        if self.started_with.fleet.is_none() {
            self.check_joins_no_fleet(config)?;
            return self.make_live(config, dry_run, disruptive).await;
        }
        let nat = std::mem::replace(&mut parts.nat, config.nat.clone());
        let applied = match &parts.fleet {
            Some(fleet) => self.of_fleet(fleet, &parts.nat, dry_run).await,
            // The file says nothing of services, and that is no reason to take away those of an earlier daemon.
            None => Ok(self.nothing()),
        };
        if dry_run || applied.is_err() {
            parts.nat = nat;
        }
        let mut applied = applied.map_err(|rejected| located(config, rejected))?;
        self.tell_of_file(config, &mut applied);
        if !dry_run {
            self.control.submit(Command::ConfigAccepted).await.map_err(ReloadError::Rejected)?;
            self.tell_announcer(config);
            applied.warnings.extend(self.keep(&config.files));
        }
        Ok(applied)
    }

    /// A file whose services have moved into a fleet would take them away from a daemon that is in none.
    fn check_joins_no_fleet(&self, config: &Config) -> Result<(), ReloadError> {
        match &config.fleet {
            None => Ok(()),
            Some(_) => Err(ReloadError::Rejected(Rejected::Invalid {
                field: "fleet".to_owned(),
                message: "a daemon joins a fleet when it starts: restart it; forwarding goes on meanwhile"
                    .to_owned(),
            })),
        }
    }

    fn nothing(&self) -> Applied {
        let revision = self.control.snapshot().revision;
        Applied { revision, changes: Vec::new(), warnings: Vec::new(), impacts: Vec::new() }
    }

    /// Makes what the fleet has agreed on live.
    pub(super) async fn join(&self, fleet: Declared) -> Result<Applied, Rejected> {
        let mut parts = self.turn.lock().await;
        let applied = self.of_fleet(&fleet, &parts.nat, false).await?;
        parts.fleet = Some(fleet);
        Ok(applied)
    }

    /// What [`Self::join`] would do.
    pub(super) async fn plan_joining(&self, fleet: &Declared) -> Result<Applied, Rejected> {
        let parts = self.turn.lock().await;
        self.of_fleet(fleet, &parts.nat, true).await
    }

    async fn of_fleet(&self, fleet: &Declared, nat: &NatPool, dry_run: bool) -> Result<Applied, Rejected> {
        let services: Vec<_> = fleet.services.values().cloned().collect();
        check_own_addresses(&services)?;
        // Of those that are there already the neighbour task tells, and one that does not answer holds up no change of others.
        let snapshot = self.control.snapshot();
        let known = snapshot.services.iter().flat_map(|view| &view.backends);
        let known: HashSet<_> = known.map(|backend| backend.address.ip()).collect();
        let backends = services.iter().flat_map(|service| service.backends.values());
        let ways = self.ways(backends.filter(|backend| !known.contains(&backend.address.ip()))).await;
        let (overrides, nat) = (fleet.overrides.clone(), nat.clone());
        let command = Command::Fleet { services, overrides, nat, ways };
        if dry_run { self.control.plan(command).await } else { self.control.submit(command).await }
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
        self.tell_of_file(config, &mut applied);
        if !dry_run {
            self.tell_announcer(config);
            applied.warnings.extend(self.keep(&config.files));
        }
        Ok(applied)
    }

    fn tell_announcer(&self, config: &Config) {
        self.announcing.send_if_modified(|known| {
            let differs = *known != config.announce;
            known.clone_from(&config.announce);
            differs
        });
    }

    /// Adds what is doubtful in a file.
    fn tell_of_file(&self, config: &Config, applied: &mut Applied) {
        applied.warnings.extend(config.warnings.iter().map(ToString::to_string));
        if config.nat != NatPool::default() || config.services.iter().any(uses_pool) {
            applied.warnings.extend(host::shared_ports(&config.nat));
        }
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
            ("daemon.metrics_hosts", was.metrics_hosts != is.metrics_hosts),
            ("limits", old.limits != new.limits),
            ("discovery", old.discovery != new.discovery),
            ("fleet", old.fleet != new.fleet),
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
