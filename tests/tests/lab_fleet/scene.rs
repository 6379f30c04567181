//! Load balancers that are members of one fleet, and what is asked of all of them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Etcd, HttpServer, Lab, Output, Service, VIP_V4, try_wait_for, wait_until};
use serde_json::Value;

pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const PORT: u16 = 80;

pub(crate) struct Scene {
    pub(crate) daemons: Vec<Daemon>,
    pub(crate) etcd: Etcd,
    _servers: Vec<HttpServer>,
    pub(crate) lab: Lab,
}

impl Scene {
    /// So many load balancers and members of etcd, and one service `web` that is in etcd.
    pub(crate) fn new(balancers: u16, etcds: u16) -> Result<Self> {
        Self::with(balancers, etcds, TTL, web)
    }

    /// Likewise, with other lines behind those of `[fleet]` and other services.
    pub(crate) fn with(
        balancers: u16,
        etcds: u16,
        lines: &str,
        services: impl Fn(&Lab) -> String,
    ) -> Result<Self> {
        let lab = Lab::builder().clients(1 + etcds).balancers(balancers).backends(3).build()?;
        let servers = lab.backends().map(|node| HttpServer::start(node, &[PORT])).collect::<Result<_>>()?;
        let nodes: Vec<_> = (1..=usize::from(etcds)).map(|number| lab.client(number)).collect();
        let etcd = Etcd::start(&lab, &nodes)?;
        let text = |number: u16| format!("{}{lines}", member(&etcd, number));
        let daemon = |number: u16| Daemon::new(&lab, number.into(), &text(number));
        let mut daemons = (0..balancers).map(daemon).collect::<Result<Vec<_>>>()?;
        daemons[0].found_fleet(&services(&lab))?;
        share_key(&daemons)?;
        daemons.iter_mut().try_for_each(Daemon::launch)?;
        daemons.iter_mut().try_for_each(|daemon| daemon.wait_ready(SOON))?;
        Ok(Self { daemons, etcd, _servers: servers, lab })
    }

    /// Waits until every member has the same tables of the same revision, and the first backends of `web` are so wanted by
    /// the administrator. Returns how long it took.
    pub(crate) fn wait_alike(&self, admin: &[&str]) -> Result<Duration> {
        let started = Instant::now();
        let mut last = Vec::new();
        wait_until(&format!("all members have {admin:?} alike"), SOON, || {
            last = self.daemons.iter().map(seen).collect();
            let all: Option<Vec<_>> = last.iter().map(|seen| seen.as_ref().ok()).collect();
            all.is_some_and(|all| {
                all.iter().all(|seen| seen.admin[..admin.len()] == *admin && seen.same_as(all[0]))
            })
        })
        .with_context(|| format!("they have {last:?}"))?;
        Ok(started.elapsed())
    }

    /// Waits until a member says so of its fleet.
    pub(crate) fn wait_fleet(
        &self,
        member: usize,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        try_wait_for(&format!("lb{member}: {what}"), SOON, || {
            let now = self.daemons[member].fleet_status()?;
            ensure!(holds(&now), "it is {now}");
            Ok(Some(now))
        })
    }

    pub(crate) fn wait_connected(&self, member: usize, connected: bool) -> Result<()> {
        let what = format!("connected: {connected}");
        self.wait_fleet(member, &what, |fleet| fleet["connected"] == connected).map(drop)
    }

    /// Runs a command on a member until it is done, as an operator would while etcd elects a leader.
    pub(crate) fn insist(&self, member: usize, args: &[&str]) -> Result<()> {
        let done = || self.daemons[member].cli_checked(args.iter().copied()).map(Some);
        try_wait_for(&format!("lb{member}: {args:?} is done"), SOON, done).map(drop)
    }

    /// Runs a command that has to be refused without a change, and returns what it says.
    pub(crate) fn refused(&self, member: usize, args: &[&str]) -> Result<String> {
        let Output { status, stderr, .. } = self.daemons[member].cli(args.iter().copied())?;
        ensure!(status.code() == Some(1), "{args:?} ends with {status}: {stderr}");
        Ok(stderr)
    }
}

/// Gives all one hash key, where each would make its own.
fn share_key(daemons: &[Daemon]) -> Result<()> {
    for daemon in daemons {
        let directory = &daemon.files().state_dir;
        fs::create_dir_all(directory)?;
        let path = directory.join("flow-hash.key");
        fs::write(&path, "00112233445566778899aabbccddeeff\n")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// What a member has of `web`.
#[derive(Debug)]
struct Seen {
    fingerprint: Value,
    revision: Value,
    admin: Vec<String>,
    weights: Vec<Value>,
}

impl Seen {
    fn same_as(&self, other: &Self) -> bool {
        (&self.fingerprint, &self.revision, &self.admin, &self.weights)
            == (&other.fingerprint, &other.revision, &other.admin, &other.weights)
    }
}

fn seen(daemon: &Daemon) -> Result<Seen> {
    let status = daemon.status_json()?;
    let web = service(&status, "web")?;
    let backends = web["backends"].as_array().context("no backends")?;
    Ok(Seen {
        fingerprint: web["fingerprint"].clone(),
        revision: status["fleet"]["live_revision"].clone(),
        admin: backends.iter().map(|one| one["admin"].as_str().unwrap_or_default().to_owned()).collect(),
        weights: backends.iter().map(|one| one["weight"].clone()).collect(),
    })
}

pub(crate) fn service<'a>(status: &'a Value, name: &str) -> Result<&'a Value> {
    let services = status["services"].as_array().context("no services")?;
    services.iter().find(|one| one["name"] == name).with_context(|| format!("no {name}: {status}"))
}

/// A service of all backends of the lab, without checks.
pub(crate) fn web(lab: &Lab) -> String {
    let to = SocketAddr::new(VIP_V4, PORT);
    Service::new("web", to, "tcp", "l2-dsr").nodes(lab.backends(), to).toml()
}

/// Of a member that is gone when etcd has not heard of it for 3 s.
pub(crate) fn config(etcd: &Etcd, number: u16) -> String {
    format!("{}{TTL}", member(etcd, number))
}

fn member(etcd: &Etcd, number: u16) -> String {
    format!("[fleet]\nendpoints = [{}]\nmember = \"lb-{number}\"\n", etcd.endpoints())
}

const TTL: &str = "ttl = \"3s\"\n";
