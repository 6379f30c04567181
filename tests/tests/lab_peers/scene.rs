//! Two load balancers with one key, in front of backends that say their names, and clients that hold connections to them.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Bird, Daemon, Lab, LiveClients, LiveServers, Report, Service, VIP_V4, try_all, try_wait_until,
};
use serde_json::Value;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 80;
pub(crate) const CONNECTIONS: u16 = 900;
pub(crate) const PEER_PORT: u16 = 9650;

pub(crate) struct Scene {
    pub(crate) clients: LiveClients,
    /// Held for its end.
    _servers: LiveServers,
    pub(crate) members: Vec<Daemon>,
    /// The router's first.
    pub(crate) birds: Vec<Bird>,
    pub(crate) to: SocketAddr,
    pub(crate) lab: Lab,
}

/// What a test wants.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) vip: IpAddr,
    pub(crate) backends: u16,
    pub(crate) serving: Range<usize>,
    pub(crate) protocol: &'static str,
    pub(crate) forwarding: &'static str,
    /// The service's.
    pub(crate) lines: Vec<&'static str>,
    pub(crate) connections: u16,
    pub(crate) replicates: bool,
    /// Members that are started with the rest.
    pub(crate) started: usize,
    /// There is a router that spreads flows among those that announce the VIP to it.
    pub(crate) routed: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            vip: VIP_V4,
            backends: 8,
            serving: 0..4,
            protocol: "tcp",
            forwarding: "l2-dsr",
            lines: Vec::new(),
            connections: CONNECTIONS,
            replicates: true,
            started: 2,
            routed: false,
        }
    }
}

impl Scene {
    pub(crate) fn new(wanted: &Wanted) -> Result<Self> {
        let builder = Lab::builder().balancers(2).backends(wanted.backends);
        let builder = if wanted.routed { builder.clients_behind_gateway() } else { builder };
        let builder = if wanted.forwarding == "dnat" { builder.replies_through_balancer() } else { builder };
        let lab = builder.build()?;
        let key = lab.directory().join("fleet.key");
        fs::write(&key, "00112233445566778899aabbccddeeff\n")?;
        fs::set_permissions(&key, Permissions::from_mode(0o600))?;
        let to = SocketAddr::new(wanted.vip, PORT);
        let servers = LiveServers::start(lab.backends(), PORT)?;
        let mut scene = Self {
            clients: LiveClients::start(
                lab.client(0),
                to,
                0..wanted.connections.div_ceil(2),
                wanted.connections.into(),
            )?,
            _servers: servers,
            members: Vec::new(),
            birds: Vec::new(),
            to,
            lab,
        };
        for member in 0..wanted.started {
            scene.join(member, wanted)?;
        }
        if wanted.routed {
            scene.birds.push(Bird::on_router(&scene.lab)?);
            for member in 0..wanted.started {
                scene.birds.push(Bird::on_balancer(&scene.lab, member)?);
            }
        }
        Ok(scene)
    }

    /// Starts member number `member`.
    pub(crate) fn join(&mut self, member: usize, wanted: &Wanted) -> Result<()> {
        let config = self.config(member, wanted);
        self.members.push(Daemon::start(&self.lab, member, &config)?);
        if wanted.replicates && self.members.len() == 2 {
            self.wait_up()?;
        }
        Ok(())
    }

    pub(crate) fn wait_up(&self) -> Result<()> {
        try_wait_until("both are there for each other", SOON, || {
            try_all(&self.members, |member| Ok(peer(member)?["up"] == true))
        })
    }

    pub(crate) fn config(&self, member: usize, wanted: &Wanted) -> String {
        let key = self.lab.directory().join("fleet.key");
        let mut config = format!("[flow_hash]\nkey_file = \"{}\"\n", key.display());
        if wanted.routed {
            config.push_str("[announce]\ndown_hold = \"300ms\"\nup_hold = \"600ms\"\n");
        }
        if wanted.replicates {
            let [own, other] = [member, 1 - member].map(|member| self.address(member));
            // Writing to a String can't fail.
            let _ = write!(config, "[peers]\nlisten = [\"{own}\"]\naddresses = [\"{other}\"]\n");
        }
        let service = Service::new("web", self.to, wanted.protocol, wanted.forwarding);
        let service = wanted.lines.iter().fold(service, |service, line| service.line(line));
        let serving = wanted.serving.clone().map(|number| self.lab.backend(number));
        config + &service.nodes(serving, self.to).toml()
    }

    /// Where a member is spoken to: of the VIP's family, so that tests of both speak both.
    pub(crate) fn address(&self, member: usize) -> SocketAddr {
        SocketAddr::new(self.lab.balancer(member).address(self.to.ip()), PEER_PORT)
    }

    /// Lets these backends serve on every member, and no other: the others drain.
    pub(crate) fn change(&self, wanted: &Wanted) -> Result<()> {
        for (number, member) in self.members.iter().enumerate() {
            member.write_config(&self.config(number, wanted))?;
            member.reload()?;
        }
        Ok(())
    }

    /// Leads the clients' packets to a member.
    pub(crate) fn lead_to(&self, member: usize) -> Result<()> {
        self.lab.client(0).route_vip_to(self.to.ip(), self.lab.balancer(member))
    }

    /// Cuts a member off.
    pub(crate) fn cut_off(&self, member: usize) -> Result<()> {
        self.lab.balancer(member).ip("cut a load balancer off", ["link set eth0 down"])
    }

    /// Waits until a member has entries of so many flows, whoever has seen them, and has no more to hear.
    pub(crate) fn wait_told(&self, member: usize, flows: u64) -> Result<()> {
        try_wait_until(&format!("member {member} knows {flows} flows"), SOON, || {
            let entries = number(&self.members[member].status_json()?["flow_table"]["entries"]);
            let pending = number(&peer(&self.members[1 - member])?["pending"]);
            ensure!(entries >= flows && pending == 0, "it has {entries}, and {pending} messages are pending");
            Ok(true)
        })
    }

    /// Opens connections and says how many are open.
    pub(crate) fn open(&mut self, count: usize) -> Result<u64> {
        let report = self.clients.open(count)?;
        anyhow::ensure!(report.lost.is_empty(), "{}", report.losses());
        Ok(report.alive())
    }

    /// A message on every connection, of which none is lost, and none answered by another backend than before.
    pub(crate) fn exchange(&mut self) -> Result<Report> {
        let before = self.clients.report()?;
        let after = self.clients.exchange()?;
        anyhow::ensure!(after.lost.is_empty() && after.open == before.open, "{}", after.losses());
        Ok(after)
    }
}

/// What a member says of the other.
pub(crate) fn peer(member: &Daemon) -> Result<Value> {
    let status = member.status_json()?;
    status["peers"]["peers"].get(0).cloned().context("no peers in the status")
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
