//! How each fault is done, and undone.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::clients::Clients;
use super::fault::{Fault, Kind, Target};
use super::topology::{LIVE, PATIENCE, SIZE, Scene, services};
use crate::lab::{LiveServers, Node, wait_until};

/// How long the link of a load balancer is down while it is serviced.
const UNPLUGGED: Duration = Duration::from_secs(1);

impl Scene {
    pub(super) fn begin(&mut self, fault: &Fault) -> Result<()> {
        let number = self.number(fault.target);
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
            Kind::BackendServiced => self.tell(fault.target, &["drain"], &[]),
            Kind::BackendAdded => self.add_spare(),
            Kind::Reload => self.reload_without(number, true),
            Kind::Weight => {
                // Another one each time, and 0 at times.
                let weight = fault.begins.as_millis() % 5 * 3;
                self.tell(fault.target, &["set"], &["--weight", &weight.to_string()])
            }
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
            Kind::BackendAdded => self.tell(fault.target, &["drain"], &[]),
            Kind::Reload => self.reload_without(number, false),
            Kind::Weight => self.tell(fault.target, &["reset"], &[]),
        }
    }

    /// Waits until nothing of it is left.
    pub(super) fn settle(&mut self, fault: &Fault, clients: &Clients) -> Result<()> {
        match fault.target {
            Target::Balancer(number) => {
                self.daemons[usize::from(number)].wait_ready(PATIENCE)?;
                self.wait_routed()
            }
            Target::Backend(number) => self.wait_healthy(number),
            Target::Spare => {
                self.wait_unused(self.number(fault.target), clients)?;
                self.tell(fault.target, &["remove"], &[])
            }
        }
    }

    /// Its place among load balancers, or among backends.
    fn number(&self, target: Target) -> usize {
        match target {
            Target::Balancer(number) | Target::Backend(number) => number.into(),
            Target::Spare => SIZE.backends.into(),
        }
    }

    fn node(&self, target: Target) -> &Node {
        match target {
            Target::Balancer(_) => self.lab.balancer(self.number(target)),
            Target::Backend(_) | Target::Spare => self.lab.backend(self.number(target)),
        }
    }

    /// At the switch: whoever is unplugged loses the carrier, and nobody else is told.
    fn plug(&mut self, target: Target, is_in: bool) -> Result<()> {
        if let Target::Balancer(number) = target {
            self.unplugged = (!is_in).then_some(number.into());
        }
        let port = &self.node(target).first_leg().port;
        let state = if is_in { "up" } else { "down" };
        self.lab.switch().ip("plug or unplug a node", [format!("link set {port} {state}")])
    }

    /// `ballast backend VERB SERVICE NAME ...` on every load balancer, for every service.
    fn tell(&self, target: Target, verb: &[&str], more: &[&str]) -> Result<()> {
        let name = self.node(target).label();
        self.on_all(|daemon| {
            services().try_for_each(|(service, _)| {
                let words = ["backend"].iter().chain(verb).copied().chain([service.as_str(), name.as_str()]);
                daemon.cli_checked(words.chain(more.iter().copied())).map(drop)
            })
        })
    }

    fn add_spare(&self) -> Result<()> {
        let spare = self.node(Target::Spare);
        self.on_all(|daemon| {
            services().try_for_each(|(service, to)| {
                let address = std::net::SocketAddr::new(spare.address(to.ip()), to.port()).to_string();
                daemon.cli_checked(["backend", "add", &service, &spare.label(), &address]).map(drop)
            })
        })
    }

    fn reload_without(&mut self, backend: usize, is_out: bool) -> Result<()> {
        let backend = u16::try_from(backend).context("few backends")?;
        if is_out {
            self.left_out.insert(backend);
        } else {
            self.left_out.remove(&backend);
        }
        let text = self.configuration();
        self.on_all(|daemon| {
            daemon.write_config(&text)?;
            daemon.reload()
        })
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
        self.tell(target, &["reset"], &[])
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
