//! Load balancers that announce the VIPs of one service, with one hash key.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lb_tests::lab::{
    ChildGuard, Daemon, Lab, Node, Service, VIP_V4, VIP_V6, try_all, try_wait_for, try_wait_until, wait_until,
};
use serde_json::Value;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const PORT: u16 = 80;
pub(crate) const VIPS: [IpAddr; 2] = [VIP_V4, VIP_V6];
/// Of the routes.
pub(crate) const PROTOCOL: &str = "117";

/// Short holds: a test waits for them.
pub(crate) const ANNOUNCE: &str = "[announce]\ndown_hold = \"300ms\"\nup_hold = \"600ms\"\n";

/// Checks that soon have a verdict.
pub(crate) const CHECKED: &str =
    "type = \"tcp\"\ninterval = \"200ms\"\ntimeout = \"200ms\"\nrise = 1\nfall = 2";
/// Backends that are there from the start, so that tables are what they stay from then on.
pub(crate) const UNCHECKED: &str = "type = \"none\"";

/// A service on each VIP, `head` before them and `lines` in each.
pub(crate) fn config(lab: &Lab, head: &str, health: &str, lines: &[&str]) -> String {
    let mut text =
        format!("{head}\n[flow_hash]\nkey_file = \"{}\"\n\n", lab.directory().join("key").display());
    for vip in VIPS {
        let to = SocketAddr::new(vip, PORT);
        let name = if vip.is_ipv4() { "web4" } else { "web6" };
        let service = Service::new(name, to, "tcp", "l2-dsr").health(health);
        let service = lines.iter().fold(service, |service, line| service.line(line));
        text += &service.nodes(lab.backends(), to).toml();
    }
    text
}

/// The route to a VIP that is of Ballast's making, as `ip` tells it.
pub(crate) fn route(node: &Node, vip: IpAddr) -> Result<Option<Value>> {
    let family = if vip.is_ipv4() { "-4" } else { "-6" };
    let args = [family, "-j", "-d", "route", "show", "table", "all", "proto", PROTOCOL];
    let shown = node.run("ip", args)?.stdout;
    let routes: Value = serde_json::from_str(&shown).with_context(|| format!("ip says {shown}"))?;
    let of_vip = |route: &&Value| route["dst"].as_str() == Some(&vip.to_string());
    let mut found = routes.as_array().context("a list of routes")?.iter().filter(of_vip).cloned();
    let first = found.next();
    if let Some(second) = found.next() {
        bail!("two routes for {vip}: {first:?} and {second}");
    }
    Ok(first)
}

pub(crate) fn announces(node: &Node, vip: IpAddr) -> Result<bool> {
    Ok(route(node, vip)?.is_some())
}

/// Waits until all VIPs are announced, or none is.
pub(crate) fn wait_announced(node: &Node, announced: bool) -> Result<()> {
    let what = if announced { "all VIPs are announced" } else { "no VIP is announced" };
    try_wait_until(what, SOON, || try_all(VIPS, |vip| Ok(announces(node, vip)? == announced)))
}

/// What the daemon says of a VIP.
pub(crate) fn told(daemon: &Daemon, vip: IpAddr) -> Result<Value> {
    let printed = daemon.cli_checked(["announce", "status", "-o", "json"])?;
    let announce: Value = serde_json::from_str(&printed)?;
    let vips = announce["vips"].as_array().with_context(|| format!("no VIPs in {printed}"))?;
    let found = vips.iter().find(|one| one["vip"].as_str() == Some(&vip.to_string()));
    found.cloned().with_context(|| format!("{vip} is not in {printed}"))
}

/// Waits until the daemon says that a VIP is not announced for this reason, and the route is gone. Returns what else it says.
pub(crate) fn wait_withdrawn(daemon: &Daemon, vip: IpAddr, reason: &str) -> Result<String> {
    try_wait_for(&format!("{vip} is withdrawn: {reason}"), SOON, || {
        let (told, announces) = (told(daemon, vip)?, announces(daemon.node(), vip)?);
        ensure!(told["reason"] == reason && !announces, "there is a route: {announces}; {told}");
        Ok(Some(told["detail"].as_str().unwrap_or_default().to_owned()))
    })
}

/// All that happens to routes from now on.
pub(crate) struct Monitor {
    lines: Receiver<String>,
    _process: ChildGuard,
}

impl Monitor {
    pub(crate) fn start(node: &Node) -> Result<Self> {
        let mut command = Command::new("ip");
        command.args(["monitor", "route"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = node.spawn(&mut command)?;
        let output = process.child().stdout.take().context("a piped stdout")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let monitor = Self { lines, _process: process };
        // It listens when it tells of a route of the test's own.
        wait_until("the monitor listens", SOON, || {
            let _ = node.ip(
                "a route to be told",
                ["route replace blackhole 198.51.100.1", "route del blackhole 198.51.100.1"],
            );
            monitor.lines.recv_timeout(SECOND / 10).is_ok()
        })?;
        Ok(monitor)
    }

    /// What it has told of a VIP.
    pub(crate) fn about_vips(&self) -> Vec<String> {
        let is_about = |line: &String| VIPS.iter().any(|vip| line.contains(&vip.to_string()));
        self.lines.try_iter().filter(is_about).collect()
    }
}
