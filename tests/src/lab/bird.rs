//! BIRD: on load balancers with the example that is shipped, on the gateway as a router with ECMP.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Lab;
use super::node::Node;
use super::plan::Segment;
use super::process::ChildGuard;
use super::wait::try_wait_for;

/// Ends when dropped, without a good-bye.
#[derive(Debug)]
pub struct Bird {
    node: Node,
    directory: PathBuf,
    process: Option<ChildGuard>,
}

impl Bird {
    /// With the shipped example, its four lines being those of load balancer number `index`.
    pub fn on_balancer(lab: &Lab, index: usize) -> Result<Self> {
        Self::on_balancer_with(lab, index, &[])
    }

    /// The same with words of the example replaced by others.
    pub fn on_balancer_with(lab: &Lab, index: usize, others: &[(&str, &str)]) -> Result<Self> {
        let node = lab.balancer(index);
        let router = lab.gateway().leg(Segment::Front);
        let mut text = example()?;
        for (name, value) in [
            ("router id 192.0.2.11", format!("router id {}", node.ipv4())),
            ("define ROUTER_V4 = 192.0.2.1", format!("define ROUTER_V4 = {}", router.ipv4)),
            ("define ROUTER_V6 = 2001:db8:1::1", format!("define ROUTER_V6 = {}", router.ipv6)),
            // What it does is as shipped; here it does not take its time before a connection.
            ("  bfd on;\n", "  bfd on;\n  connect delay time 1;\n".to_owned()),
            ("error wait time 1, 30", "error wait time 1, 2".to_owned()),
        ] {
            ensure!(text.contains(name), "the example has no {name:?}");
            text = text.replace(name, &value);
        }
        for (name, value) in others {
            ensure!(text.contains(name), "the example has no {name:?}");
            text = text.replace(name, value);
        }
        Self::start(lab, node, &text)
    }

    /// On the gateway: all load balancers are one hop, and it spreads flows among those that announce a VIP.
    pub fn on_router(lab: &Lab) -> Result<Self> {
        let node = lab.gateway();
        let mut text = format!("router id {};\n{ROUTER}", node.leg(Segment::Front).ipv4);
        for (number, balancer) in lab.balancers().enumerate() {
            let leg = balancer.first_leg();
            for (family, address) in [("ipv4", leg.ipv4.to_string()), ("ipv6", leg.ipv6.to_string())] {
                text += &format!(
                    "protocol bgp lb{number}{family} from lb {{ neighbor {address} as 65001; \
                     {family} {{ import all; export none; }}; }}\n"
                );
            }
        }
        for vip in lab.vips() {
            node.ip("forget the way to a VIP", [format!("route del {vip}")])?;
        }
        node.sysctl("net.ipv4.fib_multipath_hash_policy", "1")?;
        node.sysctl("net.ipv6.fib_multipath_hash_policy", "1")?;
        Self::start(lab, node, &text)
    }

    fn start(lab: &Lab, node: &Node, config: &str) -> Result<Self> {
        let directory = lab.directory().join(format!("bird-{}", node.label()));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("bird.conf"), config)?;
        let mut bird = Self { node: node.clone(), directory, process: None };
        bird.restart()?;
        Ok(bird)
    }

    /// Ends it with no chance to do anything about it.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.take().context("BIRD does not run")?.kill()
    }

    /// Starts it, anew if it runs.
    pub fn restart(&mut self) -> Result<()> {
        self.process = None;
        let path = |name: &str| self.directory.join(name);
        let mut command = Command::new("bird");
        command
            .arg("-f")
            .arg("-c")
            .arg(path("bird.conf"))
            .arg("-s")
            .arg(path("bird.ctl"))
            .arg("-P")
            .arg(path("pid"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.process = Some(self.node.spawn(&mut command)?);
        try_wait_for("BIRD answers", PATIENCE, || self.ask("show status").map(Some)).map(drop)
    }

    /// What it says to a question such as `show protocols`.
    pub fn ask(&self, question: &str) -> Result<String> {
        let socket = self.directory.join("bird.ctl");
        let mut args = vec!["-r", "-s", socket.to_str().context("UTF-8")?];
        args.extend(question.split(' '));
        Ok(self.node.run("birdc", args)?.stdout)
    }
}

/// Where a router sends packets for a VIP, sorted.
pub fn next_hops(router: &Node, vip: IpAddr) -> Result<Vec<String>> {
    let family = if vip.is_ipv4() { "-4" } else { "-6" };
    let shown = router.run("ip", [family, "-j", "route", "show", &vip.to_string()])?.stdout;
    let routes: Value = serde_json::from_str(&shown)?;
    let mut hops = Vec::new();
    for route in routes.as_array().context("routes")? {
        hops.extend(route["gateway"].as_str().map(str::to_owned));
        let several = route["nexthops"].as_array().into_iter().flatten();
        hops.extend(several.filter_map(|hop| hop["gateway"].as_str().map(str::to_owned)));
    }
    hops.sort();
    Ok(hops)
}

/// The shipped configuration.
fn example() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/bird/ballast.conf");
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

const ROUTER: &str = "\
protocol device { }
protocol bfd { interface \"*\" { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }; }
protocol kernel k4 { merge paths on; ipv4 { import none; export all; }; }
protocol kernel k6 { merge paths on; ipv6 { import none; export all; }; }
template bgp lb { local as 65000; bfd on; connect delay time 1; connect retry time 2; error wait time 1, 2; }
";
const PATIENCE: Duration = Duration::from_secs(20);
