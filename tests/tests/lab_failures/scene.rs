//! Backends whose checks can be made to fail while they go on serving, so that whoever answers was chosen.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::lab::{
    Daemon, HttpServer, Lab, Service, TcpServer, VIP_V4, http_get, try_wait_until, wait_until,
};
use serde_json::Value;

pub(crate) const SOON: Duration = Duration::from_secs(10);
const CHECKED: u16 = 7;

pub(crate) struct Scene {
    /// `None`: its checks fail.
    checked: Vec<Option<TcpServer>>,
    _servers: Vec<HttpServer>,
    pub(crate) daemon: Daemon,
    pub(crate) to: SocketAddr,
    pub(crate) lab: Lab,
}

impl Scene {
    /// So many backends, the last `backups` of them being that. `lines` are the service's.
    pub(crate) fn new(backends: u16, backups: usize, lines: &[&str]) -> Result<Self> {
        let lab = Lab::builder().backends(backends).build()?;
        let to = SocketAddr::new(VIP_V4, 80);
        let servers = lab.backends().map(|node| HttpServer::start(node, &[80])).collect::<Result<_>>()?;
        let checked = lab
            .backends()
            .map(|node| Ok(Some(TcpServer::start(node, &[CHECKED])?)))
            .collect::<Result<_>>()?;
        let daemon = Daemon::start(&lab, 0, &config(&lab, to, backups, lines))?;
        let scene = Self { checked, _servers: servers, daemon, to, lab };
        scene.healthy(backends.into())?;
        Ok(scene)
    }

    /// Waits until exactly so many are healthy.
    pub(crate) fn healthy(&self, count: usize) -> Result<()> {
        wait_until(&format!("{count} are healthy"), SOON, || {
            self.backends().filter(|one| one["health"] == "healthy").count() == count
        })
    }

    /// Lets the checks of exactly these backends fail.
    pub(crate) fn kill(&mut self, dead: &[usize]) -> Result<()> {
        for (number, checked) in self.checked.iter_mut().enumerate() {
            match (dead.contains(&number), checked.is_some()) {
                (true, true) => *checked = None,
                (false, false) => {
                    *checked = Some(TcpServer::start(self.lab.backend(number), &[CHECKED])?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Another configuration of the same backends.
    pub(crate) fn change(&self, backups: usize, lines: &[&str]) -> Result<()> {
        self.daemon.write_config(&config(&self.lab, self.to, backups, lines))?;
        self.daemon.reload()
    }

    pub(crate) fn service(&self) -> Value {
        let status = self.daemon.status_json().unwrap_or_default();
        status.pointer("/services/0").cloned().unwrap_or_default()
    }

    /// Part of the table that is a backend's.
    pub(crate) fn share(&self, number: usize) -> f64 {
        self.service()["backends"][number]["share"].as_f64().unwrap_or_default()
    }

    fn backends(&self) -> impl Iterator<Item = Value> + use<> {
        self.service()["backends"].as_array().cloned().unwrap_or_default().into_iter()
    }

    /// Waits until the service is in this state and exactly these backends get new flows, and has clients see it.
    pub(crate) fn expect(&self, state: &str, serving: &[usize]) -> Result<()> {
        let expected: BTreeSet<_> = serving.iter().map(|number| format!("backend{number}")).collect();
        try_wait_until(&format!("{state}, served by {expected:?}"), SOON, || {
            let service = self.daemon.status_json()?["services"][0].take();
            let backends = service["backends"].as_array().into_iter().flatten();
            let sharing = backends.filter(|one| one["share"].as_f64() > Some(0.0));
            let sharing: BTreeSet<_> =
                sharing.filter_map(|one| one["name"].as_str().map(ToOwned::to_owned)).collect();
            ensure!(service["state"] == state && sharing == expected, "it is {service}");
            Ok(true)
        })?;
        if !serving.is_empty() {
            let mut answered = BTreeSet::new();
            // One of four gets none of so many one time in 25 million.
            for number in 0..64 {
                let from = self.lab.client(0).source_port(number, 0, self.to.ip());
                answered.insert(http_get(self.lab.client(0), Some(from), self.to, "/", SOON)?.backend);
            }
            ensure!(answered == expected, "{state}: {answered:?} answered, not {expected:?}");
        }
        let metric = format!("ballast_service_state{{service=\"web\",state=\"{state}\"}}");
        ensure!(self.daemon.metric(&metric)? == 1.0, "{metric}");
        Ok(())
    }
}

fn config(lab: &Lab, to: SocketAddr, backups: usize, lines: &[&str]) -> String {
    let check = format!("type = \"tcp\"\nport = {CHECKED}\ninterval = \"100ms\"\nrise = 1\nfall = 2");
    let service = Service::new("web", to, "tcp", "l2-dsr").health(&check);
    let service = lines.iter().fold(service, |service, line| service.line(line));
    let nodes: Vec<_> = lab.backends().collect();
    let (primaries, backups) = nodes.split_at(nodes.len() - backups);
    let service = service.nodes(primaries.iter().copied(), to);
    let backup = |service: Service, node: &&lb_tests::lab::Node| {
        let address = SocketAddr::new(node.address(to.ip()), to.port());
        service.backend_lines(&format!("name = \"{}\"\naddress = \"{address}\"\nbackup = true", node.label()))
    };
    backups.iter().fold(service, backup).toml()
}
