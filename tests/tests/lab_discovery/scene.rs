//! A load balancer whose backends nobody declares, and clients that hold connections to them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab, LiveClients, LiveServers, Service, VIP_V4, try_wait_until};
use serde_json::Value;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const PORT: u16 = 80;
/// Connections that are held through everything.
pub(crate) const HELD: usize = 200;

pub(crate) struct Scene {
    pub(crate) clients: LiveClients,
    pub(crate) daemon: Daemon,
    _servers: LiveServers,
    pub(crate) lab: Lab,
}

impl Scene {
    /// Every backend of the lab serves; which of them the service has is the configuration's to say.
    pub(crate) fn new(lab: Lab, config: &str) -> Result<Self> {
        let to = SocketAddr::new(VIP_V4, PORT);
        let servers = LiveServers::start(lab.backends(), PORT)?;
        let daemon = Daemon::start(&lab, 0, config)?;
        let clients = LiveClients::start(lab.client(0), to, 0..100, HELD * 4)?;
        Ok(Self { clients, daemon, _servers: servers, lab })
    }

    /// Waits until the backends in the table are these, by their addresses.
    pub(crate) fn wait_backends(&self, numbers: &[usize]) -> Result<()> {
        let wanted: Vec<_> = numbers.iter().map(|number| self.name(*number)).collect();
        try_wait_until(&format!("the backends are {wanted:?}"), SOON, || {
            let now = self.sharing()?;
            ensure!(now == wanted, "they are {now:?}");
            Ok(true)
        })
    }

    /// What a backend is called that was found by its address.
    pub(crate) fn name(&self, number: usize) -> String {
        format!("{}-{PORT}", self.lab.backend(number).ipv4())
    }

    /// Backends with a part of the table.
    fn sharing(&self) -> Result<Vec<String>> {
        let service = self.service()?;
        let backends = service["backends"].as_array().context("no backends")?.iter();
        let in_table = backends.filter(|backend| backend["share"].as_f64().is_some_and(|share| share > 0.0));
        in_table.map(|backend| Ok(backend["name"].as_str().context("no name")?.to_owned())).collect()
    }

    pub(crate) fn service(&self) -> Result<Value> {
        let status = self.daemon.status_json()?;
        status.pointer("/services/0").cloned().context("no service")
    }

    /// Of the only source.
    pub(crate) fn discovery(&self) -> Result<Value> {
        self.service()?.pointer("/discovery/0").cloned().context("no source")
    }

    /// Waits until the only source is in trouble that says so, or in none.
    pub(crate) fn wait_trouble(&self, said: Option<&str>) -> Result<()> {
        try_wait_until(&format!("the trouble is {said:?}"), SOON, || {
            let now = self.discovery()?;
            let is_it = match (said, now["trouble"].as_str()) {
                (Some(said), Some(trouble)) => trouble.contains(said),
                (said, trouble) => said.is_none() && trouble.is_none(),
            };
            ensure!(is_it, "it is {now}");
            Ok(true)
        })
    }

    pub(crate) fn fingerprint(&self) -> Result<Value> {
        Ok(self.service()?["fingerprint"].clone())
    }

    /// That the held connections all answer, each from where it was.
    pub(crate) fn nothing_broke(&mut self, what: &str) -> Result<()> {
        let report = self.clients.exchange()?;
        ensure!(report.lost.is_empty(), "{what}: {}", report.losses());
        Ok(())
    }

    /// Opens more connections, and says which backends have got any of them.
    pub(crate) fn opened(&mut self) -> Result<Vec<String>> {
        let before = self.clients.report()?;
        let after = self.clients.open(HELD / 2)?;
        ensure!(after.lost.is_empty(), "{}", after.losses());
        let more = |name: &str, count: u64| count > before.open.get(name).copied().unwrap_or_default();
        Ok(after
            .open
            .iter()
            .filter(|(name, count)| more(name, **count))
            .map(|(name, _)| name.clone())
            .collect())
    }

    /// Kills the daemon, starts another, and waits until it knows of its backends what the first did.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.daemon.kill9()?;
        self.daemon.launch()?;
        self.daemon.wait_ready(SOON)
    }

    pub(crate) fn wait_metric(&self, name: &str, holds: impl Fn(f64) -> bool) -> Result<()> {
        try_wait_until(&format!("{name} is as wanted"), SOON, || {
            let text = self.daemon.metrics()?;
            let line = text.lines().find(|line| line.starts_with(&format!("{name}{{service=\"web\"")));
            let line = line.context("it is not there")?;
            ensure!(holds(line.rsplit(' ').next().context("a value")?.parse()?), "it is {line}");
            Ok(true)
        })
    }
}

/// A service without a backend, whose connections stay with one that is gone until a test is over.
pub(crate) fn service() -> Service {
    let check = "type = \"tcp\"\ninterval = \"500ms\"\ntimeout = \"500ms\"\nrise = 1\nfall = 6";
    Service::new("web", SocketAddr::new(VIP_V4, PORT), "tcp", "l2-dsr").health(check)
}
