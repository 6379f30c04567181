//! The lab that everybody is measured in: one client, a balancer for each contender, the same backends for all.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::configuration::{self, BODY, PORT};
use super::contender::{CONTENDERS, Contender, Way};
use crate::lab::{ChildGuard, Daemon, Lab, Node, VIP_V4, http_get, wait_until};

const BACKENDS: u16 = 3;
const VIP: IpAddr = VIP_V4;
/// For what takes a few checks at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// Processes in it end before the lab does.
pub(super) struct Bed {
    backends: Vec<Option<ChildGuard>>,
    lab: Lab,
    ballast: PathBuf,
}

/// A contender at work. Dropping it ends its processes at once; [`Running::stop`] asks them to end.
pub(super) enum Running {
    Kernel,
    Ballast(Box<Daemon>),
    Proxy(ChildGuard),
}

/// How a backend dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// Its process is: the machine refuses connections.
    Killed,
    /// The machine is gone: nothing answers.
    Unplugged,
}

impl Bed {
    pub(super) fn build(ballast: &Path) -> Result<Self> {
        let balancers = u16::try_from(CONTENDERS.len()).context("a handful of contenders")?;
        let lab = Lab::builder().balancers(balancers).backends(BACKENDS).decapsulating().build()?;
        let mut bed = Self { backends: Vec::new(), lab, ballast: ballast.to_owned() };
        bed.lab.client(0).sysctl(HASH_POLICY.0, HASH_POLICY.1)?;
        for number in 0..CONTENDERS.len() {
            bed.prepare(number)?;
        }
        for backend in bed.lab.backends() {
            let directory = bed.directory(backend);
            fs::create_dir_all(&directory).context("make a backend's directory")?;
            fs::write(directory.join("index.html"), "x".repeat(BODY)).context("write what is served")?;
            fs::write(directory.join(NGINX), configuration::backend(&directory))
                .context("configure nginx")?;
            bed.backends.push(None);
        }
        (0..bed.backends.len()).try_for_each(|number| bed.revive(number))?;
        Ok(bed)
    }

    pub(super) fn client(&self) -> &Node {
        self.lab.client(0)
    }

    /// Where clients send to.
    pub(super) fn service(&self) -> SocketAddr {
        SocketAddr::new(VIP, PORT)
    }

    /// Starts a contender, and leads clients through it. Returns when it answers and, if it looks after backends, knows
    /// them to be well.
    pub(super) fn start(&self, number: usize) -> Result<Running> {
        let (contender, balancer) = (CONTENDERS[number], self.lab.balancer(number));
        let running = match contender.way {
            Way::Direct | Way::Routed { .. } => Running::Kernel,
            Way::Ballast(forwarding) => {
                let config = configuration::ballast(&self.lab, VIP, forwarding);
                let mut daemon = Daemon::with_binary(&self.lab, number, &config, self.ballast.clone())?;
                daemon.launch()?;
                daemon.wait_ready(PATIENCE)?;
                wait_until("Ballast finds every backend healthy", PATIENCE, || {
                    daemon.status_json().is_ok_and(|status| all_healthy(&status))
                })
                .with_context(|| {
                    let found = daemon.status_json().map(|status| status["services"][0]["backends"].clone());
                    format!("what it found: {found:?}")
                })?;
                Running::Ballast(Box::new(daemon))
            }
            Way::HaProxy | Way::Nginx => Running::Proxy(self.start_proxy(contender, balancer)?),
        };
        match contender.way {
            Way::Direct => self.client().ip("lead clients to the backends", [self.spread()])?,
            _ => self.client().route_vip_to(VIP, balancer)?,
        }
        let gateway = if contender.forwards_replies() { balancer } else { self.client() };
        for backend in self.lab.backends() {
            let line =
                format!("route replace {}/16 via {}", self.client().source(0, VIP), gateway.address(VIP));
            backend.ip("lead replies", [line])?;
        }
        wait_until("clients are answered", PATIENCE, || self.answers()).with_context(|| {
            let log = fs::read_to_string(self.directory(balancer).join(LOG)).unwrap_or_default();
            format!("what is in the log: {log}")
        })?;
        Ok(running)
    }

    /// Lets a backend die.
    pub(super) fn kill(&mut self, number: usize, death: Death) -> Result<()> {
        match death {
            Death::Killed => self.backends[number].as_mut().context("it lives")?.kill(),
            Death::Unplugged => self.plug(number, "down"),
        }
    }

    /// Brings a backend back, whatever it died of.
    pub(super) fn revive(&mut self, number: usize) -> Result<()> {
        self.plug(number, "up")?;
        let backend = self.lab.backend(number).clone();
        if let Some(process) = &mut self.backends[number]
            && process.exit_status()?.is_none()
        {
            return Ok(());
        }
        let mut nginx = Command::new("nginx");
        nginx.arg("-c").arg(self.directory(&backend).join(NGINX));
        self.backends[number] = Some(backend.spawn(nginx.stdin(Stdio::null()))?);
        let address = SocketAddr::new(backend.address(VIP), PORT);
        wait_until("a backend answers", PATIENCE, || get(&backend, None, address))
    }

    /// What a contender's balancer has before it is started.
    fn prepare(&self, number: usize) -> Result<()> {
        let (contender, balancer) = (CONTENDERS[number], self.lab.balancer(number));
        if matches!(contender.way, Way::Routed { .. }) {
            for (key, value) in [HASH_POLICY, ("net.ipv4.ip_forward", "1")] {
                balancer.sysctl(key, value)?;
            }
            balancer.ip("lead the VIP to the backends", [self.spread()])?;
        }
        if contender.owns_vip() {
            balancer.ip("give a proxy the VIP", [format!("address add {VIP}/32 dev lo")])?;
        }
        Ok(())
    }

    fn start_proxy(&self, contender: Contender, balancer: &Node) -> Result<ChildGuard> {
        let directory = self.directory(balancer);
        fs::create_dir_all(&directory).context("make a proxy's directory")?;
        let config = directory.join("config");
        let (text, program, option) = match contender.way {
            Way::HaProxy => (configuration::haproxy(&self.lab, VIP), "haproxy", "-f"),
            _ => (configuration::nginx(&self.lab, VIP, &directory), "nginx", "-c"),
        };
        fs::write(&config, text).context("configure a proxy")?;
        let log = File::create(directory.join(LOG)).context("make a proxy's log")?;
        let mut command = Command::new(program);
        command.arg(option).arg(&config).stdin(Stdio::null());
        command.stdout(log.try_clone().context("share the log")?).stderr(log);
        balancer.spawn(&mut command)
    }

    fn directory(&self, node: &Node) -> PathBuf {
        self.lab.directory().join(node.label())
    }

    /// The VIP's route over all backends.
    fn spread(&self) -> String {
        let hops: String =
            self.lab.backends().map(|backend| format!(" nexthop via {}", backend.address(VIP))).collect();
        format!("route replace {VIP}/32{hops}")
    }

    /// Whether several clients in a row are answered.
    fn answers(&self) -> bool {
        let client = self.client();
        (0..8).all(|number| get(client, Some(client.source_port(number, 0, VIP)), self.service()))
    }

    /// The port that a backend's cable goes to.
    fn plug(&self, number: usize, state: &str) -> Result<()> {
        let port = &self.lab.backend(number).first_leg().port;
        self.lab.switch().ip("handle a cable", [format!("link set {port} {state}")])
    }
}

impl Running {
    pub(super) fn stop(self) -> Result<()> {
        match self {
            Self::Kernel => Ok(()),
            Self::Ballast(mut daemon) => {
                daemon.sigterm()?;
                // Or it forwards what a switch floods that has not heard of a backend for a while: all have the same VIP.
                daemon
                    .cli_checked(["detach", "--config", &daemon.files().config.display().to_string()])
                    .map(drop)
            }
            Self::Proxy(mut process) => {
                process.signal(Signal::SIGTERM)?;
                process.wait(PATIENCE).map(drop)
            }
        }
    }
}

const NGINX: &str = "nginx.conf";
/// Ballast's is called so too.
const LOG: &str = "log";
/// Routes are chosen by the 5-tuple.
const HASH_POLICY: (&str, &str) = ("net.ipv4.fib_multipath_hash_policy", "1");

fn get(from: &Node, source: Option<SocketAddr>, to: SocketAddr) -> bool {
    let reply = http_get(from, source, to, "/", Duration::from_millis(500));
    reply.is_ok_and(|reply| reply.status == 200)
}

fn all_healthy(status: &Value) -> bool {
    let backends = status.pointer("/services/0/backends").and_then(Value::as_array);
    backends.is_some_and(|backends| {
        !backends.is_empty()
            && backends.iter().all(|backend| backend.get("health") == Some(&"healthy".into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_backend_that_is_not_known_to_be_well_is_enough_to_wait() {
        let status = |health: &[&str]| {
            let backends: Vec<_> = health.iter().map(|health| json!({ "health": health })).collect();
            json!({ "services": [{ "backends": backends }] })
        };
        assert!(all_healthy(&status(&["healthy", "healthy"])));
        assert!(!all_healthy(&status(&["healthy", "unknown"])));
        assert!(!all_healthy(&status(&[])));
        assert!(!all_healthy(&json!({})));
    }
}
