//! A load balancer that translates, and backends that say their names.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::lab::{Daemon, Lab, LiveServers, Mode, Report};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const SOON: Duration = Duration::from_secs(5);
pub(crate) const PORT: u16 = 80;

pub(crate) struct Scene {
    mode: Mode,
    ports: &'static str,
    targets: Vec<SocketAddr>,
    lines: Vec<&'static str>,
    /// They serve for as long as it is there.
    _servers: LiveServers,
    pub(crate) daemon: Daemon,
    pub(crate) lab: Lab,
}

impl Scene {
    /// TCP services on [`PORT`] of these VIPs, served by these backends of the lab. `ports` are those of `[nat]`,
    /// `lines` the services'.
    pub(crate) fn new(
        mode: Mode,
        lab: Lab,
        ports: &'static str,
        lines: &[&'static str],
        serving: Range<usize>,
    ) -> Result<Self> {
        let targets: Vec<_> = lab.vips().iter().map(|vip| SocketAddr::new(*vip, PORT)).collect();
        let servers = LiveServers::start(lab.backends(), mode.server_port(PORT))?;
        let config = config(mode, &lab, ports, &targets, lines, serving);
        let daemon = Daemon::start(&lab, 0, &config)?;
        Ok(Self { mode, ports, targets, lines: lines.to_vec(), _servers: servers, daemon, lab })
    }

    /// Lets these backends serve, and no other: the others drain.
    pub(crate) fn change(&self, serving: Range<usize>) -> Result<()> {
        let config = config(self.mode, &self.lab, self.ports, &self.targets, &self.lines, serving);
        self.daemon.write_config(&config)?;
        self.daemon.reload()
    }

    /// One counter of the program, over all CPUs.
    pub(crate) fn counted(&self, counter: impl Fn(&lb_common::abi::Counters) -> u64) -> Result<u64> {
        Ok(self.daemon.counters_by_cpu()?.iter().map(counter).sum())
    }
}

fn config(
    mode: Mode,
    lab: &Lab,
    ports: &str,
    targets: &[SocketAddr],
    lines: &[&str],
    serving: Range<usize>,
) -> String {
    let mut text = format!("[nat]\nports = \"{ports}\"\n\n");
    for (number, to) in targets.iter().enumerate() {
        let backends = serving.clone().map(|at| lab.backend(at));
        let service = mode.service(&format!("web-{number}"), *to, "tcp", backends);
        text += &lines.iter().fold(service, |service, line| service.line(line)).toml();
    }
    text
}

/// Nothing was lost and nobody got another's bytes.
pub(crate) fn nothing_lost(report: &Report) -> Result<()> {
    ensure!(report.lost.is_empty(), "{}", report.losses());
    Ok(())
}
