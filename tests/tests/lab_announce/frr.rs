//! FRR on a load balancer, with the example that is shipped.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Bird, ChildGuard, Daemon, HttpServer, Lab, Node, Segment, VIP_V4, http_get, let_pass, require_root,
    try_wait_until, wait_until,
};
use nix::unistd::{User, chown};
use tempfile::TempDir;

use crate::scene::{ANNOUNCE, PORT, SECOND, SOON, UNCHECKED, VIPS, config, wait_announced};

/// Where Debian and FRR's own packages have its daemons.
const PROGRAMS: &str = "/usr/lib/frr";

/// Ends when dropped.
struct Frr {
    directory: TempDir,
    node: Node,
    _processes: Vec<ChildGuard>,
}

impl Frr {
    fn start(lab: &Lab, edits: &[(&str, &str)]) -> Result<Self> {
        let node = lab.balancer(0);
        // FRR's daemons are not root, and look at nothing that is root's alone.
        let directory = tempfile::Builder::new().prefix("ballast-frr-").tempdir()?;
        let user = User::from_name("frr")?.context("the package makes a user frr")?;
        chown(directory.path(), Some(user.uid), Some(user.gid))?;
        let router = lab.gateway().leg(Segment::Front);
        let mut text = example()?;
        for (name, value) in [
            ("192.0.2.11", node.ipv4().to_string()),
            ("192.0.2.1", router.ipv4.to_string()),
            ("2001:db8:1::1", router.ipv6.to_string()),
        ] {
            ensure!(text.contains(name), "the example has no {name}");
            text = text.replace(name, &value);
        }
        for (from, to) in edits {
            ensure!(text.contains(from), "the example has no {from}");
            text = text.replace(from, to);
        }
        fs::write(directory.path().join("frr.conf"), text)?;
        fs::write(directory.path().join("vtysh.conf"), "")?;
        let path = |name: &str| directory.path().join(name);
        let mut processes = Vec::new();
        for program in ["zebra", "bfdd", "bgpd"] {
            let mut command = Command::new(Path::new(PROGRAMS).join(program));
            command.args(["-A", "127.0.0.1", "--log", "stdout", "-f", "/dev/null"]);
            command.arg("-i").arg(path(&format!("{program}.pid")));
            command.arg("-z").arg(path("zserv.api")).arg("--vty_socket").arg(directory.path());
            if program == "bfdd" {
                command.arg("--bfdctl").arg(path("bfdd.sock"));
            }
            command.stdin(Stdio::null()).stdout(fs::File::create(path(&format!("{program}.log")))?);
            processes.push(node.spawn(&mut command)?);
            let socket = path(&format!("{program}.vty"));
            wait_until(&format!("{program} answers"), SOON, || socket.exists())?;
        }
        let frr = Self { directory, node: node.clone(), _processes: processes };
        frr.vtysh(&["-b"])?;
        Ok(frr)
    }

    fn vtysh(&self, args: &[&str]) -> Result<String> {
        let directory = self.directory.path().to_str().context("UTF-8")?;
        let own = ["--config_dir", directory, "--vty_socket", directory];
        let output = self.node.run("vtysh", own.iter().chain(args))?;
        let told = output.stdout + &output.stderr;
        ensure!(!told.contains("Unknown command") && !told.contains("% "), "vtysh {args:?} says {told}");
        Ok(told)
    }
}

fn example() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/frr/frr.conf");
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[test]
fn frr_exports_the_vips_and_nothing_else_and_takes_them_back() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().clients_behind_gateway().backends(1).build()?;
    let _server = HttpServer::start(lab.backend(0), &[PORT])?;
    let daemon = Daemon::start(&lab, 0, &config(&lab, ANNOUNCE, UNCHECKED, &[]))?;
    wait_announced(lab.balancer(0), true)?;
    lab.balancer(0).ip("a route of somebody else", ["route add blackhole 198.51.100.0/24"])?;
    let router = Bird::on_router(&lab)?;
    let frr = Frr::start(&lab, &[])?;
    let routes = || router.ask("show route").unwrap_or_default();
    let has = |vip: &std::net::IpAddr| routes().contains(&format!("{vip}/"));
    wait_until("the router has the VIPs", 2 * SOON, || VIPS.iter().all(has))
        .with_context(|| format!("{}\n{:?}", routes(), frr.vtysh(&["-c", "show bgp summary"])))?;
    try_wait_until("BFD is up", 2 * SOON, || {
        router.ask("show bfd sessions").map(|sessions| sessions.matches(" Up ").count() >= 2)
    })?;
    try_wait_until("requests pass", SOON, || {
        http_get(lab.client(0), None, (VIP_V4, PORT).into(), "/", SECOND).map(|reply| reply.status == 200)
    })?;
    daemon.cli_checked(["announce", "off"])?;
    wait_until("the router has them no more", SOON, || !VIPS.iter().any(has))?;
    // What was to be exported with them has been.
    let left = router.ask("show route")?;
    ensure!(!left.contains("198.51.100"), "{left}");
    Ok(())
}

/// As the documentation says it; FRR does it for IPv4 alone.
#[test]
fn frr_exports_vips_from_a_table_of_their_own() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().clients_behind_gateway().backends(1).build()?;
    let own = format!("{ANNOUNCE}table = 117\n");
    let daemon = Daemon::start(&lab, 0, &config(&lab, &own, UNCHECKED, &[]))?;
    wait_announced(lab.balancer(0), true)?;
    // The administrator's, in the main table.
    lab.balancer(0).ip("a route of somebody else", ["route add blackhole 198.51.100.0/24"])?;
    let router = Bird::on_router(&lab)?;
    let edits = [
        (
            "redistribute kernel route-map BALLAST\n  neighbor 10",
            "redistribute table 117 route-map BALLAST\n  neighbor 10",
        ),
        ("router bgp", "ip import-table 117\n!\nrouter bgp"),
    ];
    let frr = Frr::start(&lab, &edits)?;
    let routes = || router.ask("show route").unwrap_or_default();
    let has = || routes().contains(&format!("{VIP_V4}/"));
    wait_until("the router has the VIP", 2 * SOON, has)
        .with_context(|| format!("{}\n{:?}", routes(), frr.vtysh(&["-c", "show ip route"])))?;
    try_wait_until("BFD is up", 2 * SOON, || {
        router.ask("show bfd sessions").map(|sessions| sessions.contains(" Up "))
    })?;
    // What is withdrawn within the first moments of a session may be lost in FRR: bgpd has it no more, its peer has.
    let_pass(3 * SECOND);
    daemon.cli_checked(["announce", "off"])?;
    wait_until("the router has it no more", SOON, || !has()).with_context(|| {
        let kernel = lab.balancer(0).run("ip", ["route", "show", "table", "117"]);
        let shown = ["show ip route", "show bgp summary", "show bgp ipv4 unicast"]
            .map(|question| frr.vtysh(&["-c", question]));
        format!("{}\n{kernel:?}\n{shown:#?}", routes())
    })?;
    // What was to be exported with it has been.
    let left = router.ask("show route")?;
    ensure!(!left.contains("198.51.100"), "{left}");
    daemon.cli_checked(["announce", "on"])?;
    wait_until("the router has it again", SOON, has)?;
    // Of two routes in its one table it exports the better.
    let gateway = lab.gateway().leg(Segment::Front).ipv4;
    lab.balancer(0).ip("a route for the VIP", [format!("route add {VIP_V4} via {gateway}")])?;
    wait_until("the router has it no more, for the host has a better one", SOON, || !has())
}
