//! How each fault is done, and undone.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::clients::Clients;
use super::fault::{Fault, Kind, Target};
use super::topology::{HOLD, LIVE, PATIENCE, SIZE, Scene};
use crate::lab::{LiveServers, Node, wait_until};

/// How long the link of a load balancer is down while it is serviced.
const UNPLUGGED: Duration = Duration::from_secs(1);
/// Lines of `[announce]`.
const OTHER_HOLD: &str = "up_hold = \"9s\"";

impl Scene {
    pub(super) fn begin(&mut self, fault: &Fault) -> Result<()> {
        let number = self.number(fault.target);
        if let Target::Balancer(_) = fault.target {
            self.struck = Some(number);
        }
        match fault.kind {
            Kind::DaemonKilled => self.daemons[number].kill9(),
            Kind::DaemonStopped => self.daemons[number].signal(Signal::SIGSTOP),
            Kind::BirdKilled => self.birds[number].kill9(),
            Kind::BalancerCut | Kind::BalancerFlaps | Kind::BackendUnplugged | Kind::BackendFlaps => {
                self.plug(fault.target, false)
            }
            Kind::BalancerServiced => self.daemons[number].cli_checked(["announce", "off"]).map(drop),
            Kind::WebKilled => self.backends[number].web.kill(),
            Kind::LiveKilled => {
                // Dropping it is SIGKILL.
                self.backends[number].live.take().context("it is not running").map(drop)
            }
            Kind::WebHangs => self.backends[number].web.signal(Signal::SIGSTOP),
            Kind::BackendServiced => self.tell(fault.target, "drain", &[]),
            Kind::BackendAdded => self.add(fault.target),
            Kind::BackendRemoved => self.tell(fault.target, "remove", &[]),
            Kind::Weight => {
                // Another one each time, and 0 at times.
                let weight = fault.begins.as_millis() % 5 * 3;
                self.tell(fault.target, "set", &["--weight", &weight.to_string()])
            }
            Kind::Reload => self.reload(OTHER_HOLD),
            Kind::EtcdKilled | Kind::EtcdLeaderKilled | Kind::EtcdMajorityKilled => self.strike_etcd(fault),
            Kind::BalancerAlone => self.leave_alone(fault, number),
        }
    }

    pub(super) fn end(&mut self, fault: &Fault, clients: &Clients) -> Result<()> {
        let number = self.number(fault.target);
        match fault.kind {
            Kind::DaemonKilled => self.daemons[number].launch(),
            Kind::DaemonStopped => self.daemons[number].signal(Signal::SIGCONT),
            Kind::BirdKilled => self.birds[number].restart(),
            Kind::BalancerCut | Kind::BalancerFlaps | Kind::BackendUnplugged | Kind::BackendFlaps => {
                self.plug(fault.target, true)
            }
            Kind::BalancerServiced => self.service_balancer(fault.target),
            Kind::WebKilled => self.backends[number].web.restart(),
            Kind::LiveKilled => self.start_live(number),
            Kind::WebHangs => self.backends[number].web.signal(Signal::SIGCONT),
            Kind::BackendServiced => self.restart_servers(fault.target, clients),
            Kind::BackendAdded => self.tell(fault.target, "drain", &[]),
            Kind::BackendRemoved => self.add(fault.target),
            // Its own: a weight is not set over a backend of a fleet.
            Kind::Weight => self.tell(fault.target, "set", &["--weight", "1"]),
            Kind::Reload => self.reload(HOLD),
            Kind::EtcdKilled | Kind::EtcdLeaderKilled | Kind::EtcdMajorityKilled => self.revive_etcd(fault),
            Kind::BalancerAlone => self.rejoin(fault, number),
        }
    }

    /// Waits until nothing of it is left.
    pub(super) fn settle(&mut self, fault: &Fault, clients: &Clients) -> Result<()> {
        match fault.target {
            Target::Balancer(number) => {
                self.daemons[usize::from(number)].wait_ready(PATIENCE)?;
                self.wait_routed()?;
                self.struck = None;
                self.wait_caught_up()
            }
            Target::Backend(number) => self.wait_healthy(number),
            Target::Spare => {
                self.wait_unused(self.number(fault.target), clients)?;
                self.tell(fault.target, "remove", &[])
            }
            Target::Etcd => self.settle_etcd(),
            Target::Balancers => Ok(()),
        }
    }

    /// Its place among load balancers, or among backends.
    fn number(&self, target: Target) -> usize {
        match target {
            Target::Balancer(number) | Target::Backend(number) => number.into(),
            Target::Spare => SIZE.backends.into(),
            // There is one of each.
            Target::Etcd | Target::Balancers => 0,
        }
    }

    /// The load balancer or the backend.
    pub(super) fn node(&self, target: Target) -> &Node {
        match target {
            Target::Backend(_) | Target::Spare => self.lab.backend(self.number(target)),
            Target::Balancer(_) | Target::Etcd | Target::Balancers => self.lab.balancer(self.number(target)),
        }
    }

    /// At the switch: whoever is unplugged loses the carrier, and nobody else is told.
    fn plug(&self, target: Target, is_in: bool) -> Result<()> {
        let port = &self.node(target).first_leg().port;
        let state = if is_in { "up" } else { "down" };
        self.lab.switch().ip("plug or unplug a node", [format!("link set {port} {state}")])
    }

    /// Makes every load balancer that is not struck read its file again: one that it refuses, and one that it takes.
    fn reload(&self, hold: &str) -> Result<()> {
        for number in self.members() {
            let daemon = &self.daemons[number];
            daemon.write_config(&self.configuration(daemon.node(), &format!("{hold}\nno_such_key = 1")))?;
            let refused = daemon.cli(["reload"])?;
            daemon.write_config(&self.configuration(daemon.node(), hold))?;
            ensure!(
                refused.status.code() == Some(1),
                "a file that makes no sense is taken: {}",
                refused.stdout
            );
            daemon.reload()?;
        }
        Ok(())
    }

    /// What one does before and after one has work to do on a load balancer.
    fn service_balancer(&mut self, target: Target) -> Result<()> {
        let number = self.number(target);
        let waited = ["announce", "off", "--wait", "--timeout", "30s"];
        self.daemons[number].cli_checked(waited).context("before it is stopped")?;
        let status = self.daemons[number].sigterm()?;
        if !status.success() {
            bail!("a daemon that was to end ended with {status}");
        }
        self.plug(target, false)?;
        thread::sleep(UNPLUGGED);
        self.plug(target, true)?;
        self.daemons[number].launch()?;
        self.daemons[number].wait_ready(PATIENCE)?;
        self.daemons[number].cli_checked(["announce", "on"]).map(drop)
    }

    fn restart_servers(&mut self, target: Target, clients: &Clients) -> Result<()> {
        let number = self.number(target);
        self.wait_unused(number, clients)?;
        self.backends[number].web.kill()?;
        self.backends[number].live = None;
        self.backends[number].web.restart()?;
        self.start_live(number)?;
        self.tell(target, "reset", &[])
    }

    /// Waits until no client has a long-lived connection to a backend left.
    fn wait_unused(&self, backend: usize, clients: &Clients) -> Result<()> {
        let name = self.lab.backend(backend).label();
        wait_until(&format!("{name}, which is drained, has no connection left"), PATIENCE, || {
            clients.open(&name) == 0
        })
    }

    fn start_live(&mut self, number: usize) -> Result<()> {
        let servers = LiveServers::start([self.lab.backend(number)], LIVE)?;
        self.backends[number].live = Some(servers);
        Ok(())
    }
}
