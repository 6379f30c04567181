//! A load balancer in front of backends that say their names, and clients that hold connections to them.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use lb_tests::lab::{Daemon, Delivery, Lab, LiveClients, LiveServers, Report, Service, VIP_V4};
use lb_tests::packet::{ACK, SYN};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const SOON: Duration = Duration::from_secs(5);
/// How soon after a drain was acknowledged the last new flow may go to the drained backend.
pub(crate) const DRAINED: Duration = Duration::from_millis(100);
pub(crate) const PORT: u16 = 80;

pub(crate) struct Scene {
    pub(crate) clients: LiveClients,
    pub(crate) servers: LiveServers,
    pub(crate) daemon: Daemon,
    pub(crate) to: SocketAddr,
    pub(crate) lab: Lab,
}

impl Scene {
    /// A lab with so many backends, of which these serve the VIP. `lines` are the service's.
    pub(crate) fn new(
        backends: u16,
        serving: Range<usize>,
        lines: &[&str],
        connections: u16,
    ) -> Result<Self> {
        Self::at(VIP_V4, backends, serving, lines, connections)
    }

    pub(crate) fn at(
        vip: IpAddr,
        backends: u16,
        serving: Range<usize>,
        lines: &[&str],
        connections: u16,
    ) -> Result<Self> {
        let lab = Lab::builder().backends(backends).build()?;
        let to = SocketAddr::new(vip, PORT);
        let config = config(&lab, to, serving, lines);
        Self::of(lab, to, &config, connections)
    }

    pub(crate) fn of(lab: Lab, to: SocketAddr, config: &str, connections: u16) -> Result<Self> {
        let servers = LiveServers::start(lab.backends(), to.port())?;
        let daemon = Daemon::start(&lab, 0, config)?;
        let clients = LiveClients::start(lab.client(0), to, 0..connections, connections.into())?;
        Ok(Self { clients, servers, daemon, to, lab })
    }

    /// Lets these backends serve, and no other: the others drain.
    pub(crate) fn change(&self, serving: Range<usize>, lines: &[&str]) -> Result<()> {
        self.daemon.write_config(&config(&self.lab, self.to, serving, lines))?;
        self.daemon.reload()
    }

    /// Waits until so many more messages were answered.
    pub(crate) fn messages(&mut self, count: u64) -> Result<Report> {
        let before = self.clients.report()?.exchanged;
        self.clients.wait(&format!("{count} messages are answered"), 10 * SECOND, |report| {
            !report.lost.is_empty() || report.exchanged >= before + count
        })
    }

    /// Waits until so many more visits were answered and `time` has come, and nothing was lost meanwhile.
    pub(crate) fn visits(&mut self, count: u64, time: SystemTime) -> Result<()> {
        let goal = visits(&self.clients.report()?) + count;
        let now = self.clients.wait(&format!("{count} visits are answered"), SOON, |now| {
            !now.lost.is_empty() || visits(now) >= goal && SystemTime::now() > time
        })?;
        ensure!(now.lost.is_empty(), "{}", now.losses());
        Ok(())
    }
}

fn visits(report: &Report) -> u64 {
    report.visits.values().sum()
}

fn config(lab: &Lab, to: SocketAddr, serving: Range<usize>, lines: &[&str]) -> String {
    let service = Service::new("web", to, "tcp", "l2-dsr");
    let service = lines.iter().fold(service, |service, line| service.line(line));
    service.nodes(serving.map(|number| lab.backend(number)), to).toml()
}

pub(crate) fn is_syn(delivery: &Delivery) -> bool {
    delivery.tcp_flags & (SYN | ACK) == SYN
}
