use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, Lab, LiveClients, LiveServers, Node, Report, Segment, Service, let_pass, require_root, try_all,
    try_wait_until, wait_until,
};
use nix::sys::signal::Signal;

use crate::keepalived::Keepalived;

pub(crate) const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 80;
/// Of the network that everybody is on: nobody routes anything.
const VIPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 0, 200, 10)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0xc8, 0x10))];

/// Of an IPv4 router with the number that `ballast keepalived` gives it (RFC 9568, section 7.3).
const VIRTUAL_MAC: &str = "00:00:5e:00:01:33";

struct Scene {
    /// Of each VIP.
    clients: [LiveClients; 2],
    _servers: LiveServers,
    keepalived: Vec<Keepalived>,
    daemons: Vec<Daemon>,
    lab: Lab,
}

impl Scene {
    /// The first load balancer holds the VIPs, and each has clients with so many connections.
    fn new(connections: u16) -> Result<Self> {
        Self::edited(connections, |config| config)
    }

    /// The same with keepalived's configuration edited.
    fn edited(connections: u16, edit: fn(String) -> String) -> Result<Self> {
        let lab = Lab::builder().balancers(2).backends(3).vips(VIPS).build()?;
        for vip in VIPS {
            lab.client(0).ip("forget the way to a VIP", [format!("route del {vip}")])?;
        }
        let servers = LiveServers::start(lab.backends(), PORT)?;
        let text = config(&lab);
        let daemons = vec![Daemon::start(&lab, 0, &text)?, Daemon::start(&lab, 1, &text)?];
        let start = |at: usize| {
            let priority = if at == 0 { 110 } else { 100 };
            Keepalived::start(&lab, &daemons[at], lab.balancer(1 - at), priority, edit)
        };
        let mut keepalived = vec![start(0)?];
        wait_until("the first holds the VIPs", SOON, || holds(lab.balancer(0)))
            .with_context(|| keepalived[0].log())?;
        keepalived.push(start(1)?);
        let clients = |vip| {
            LiveClients::start(lab.client(0), SocketAddr::new(vip, PORT), 0..connections, connections.into())
        };
        let clients = [clients(VIPS[0])?, clients(VIPS[1])?];
        Ok(Self { clients, _servers: servers, keepalived, daemons, lab })
    }

    /// Opens connections to each VIP, and has so many messages a second sent over them.
    fn open(&mut self, connections: usize, pace: u32) -> Result<Vec<Report>> {
        let opened = self.clients.iter_mut().map(|clients| {
            let report = clients.open(connections)?;
            ensure!(report.lost.is_empty(), "{}", report.losses());
            clients.pace(pace)?;
            Ok(report)
        });
        opened.collect()
    }

    /// Waits until so many more messages to each VIP were answered. Returns what was lost.
    fn messages(&mut self, count: u64) -> Result<String> {
        let mut losses = String::new();
        let before: Vec<_> = self.clients.iter_mut().map(LiveClients::report).collect::<Result<_>>()?;
        for (clients, before) in self.clients.iter_mut().zip(before) {
            let report = clients.wait(&format!("{count} messages are answered"), 2 * SOON, |report| {
                !report.lost.is_empty() || report.exchanged >= before.exchanged + count
            })?;
            losses += &report.losses();
        }
        Ok(losses)
    }

    /// Every connection is where it was.
    fn ensure_unmoved(&mut self, before: &[Report]) -> Result<()> {
        for (clients, before) in self.clients.iter_mut().zip(before) {
            let after = clients.exchange()?;
            assert_eq!((after.losses().as_str(), &after.open), ("", &before.open));
        }
        Ok(())
    }

    fn wait_holders(&self, holders: [bool; 2]) -> Result<()> {
        wait_until(&format!("who holds the VIPs is {holders:?}"), SOON, || {
            [0, 1].map(|at| holds(self.lab.balancer(at))) == holders
        })
        .with_context(|| self.keepalived.iter().map(Keepalived::log).collect::<String>())
    }

    fn set_link(&self, state: &str) -> Result<()> {
        let port = &self.lab.balancer(0).leg(Segment::Front).port;
        self.lab.switch().ip("a link", [format!("link set {port} {state}")])
    }

    fn rival(&self, at: usize) -> Result<f64> {
        self.daemons[at].metric(&format!("ballast_split_brain{{vip=\"{}\"}}", VIPS[0]))
    }

    /// Drops signs of life, and nothing else, at the first load balancer.
    fn split(&self) -> Result<()> {
        let rules = "table inet split { chain in { type filter hook input priority 0; meta l4proto 112 drop; }; \
                     chain out { type filter hook output priority 0; meta l4proto 112 drop; }; }";
        self.lab.balancer(0).run("nft", [rules]).map(drop)
    }

    fn heal(&self) -> Result<()> {
        self.lab.balancer(0).run("nft", ["delete", "table", "inet", "split"]).map(drop)
    }
}

fn config(lab: &Lab) -> String {
    let key = lab.directory().join("key");
    let mut text =
        format!("[announce]\nmethod = \"address\"\n\n[flow_hash]\nkey_file = \"{}\"\n\n", key.display());
    for vip in VIPS {
        let to = SocketAddr::new(vip, PORT);
        let name = if vip.is_ipv4() { "web4" } else { "web6" };
        text += &Service::new(name, to, "tcp", "l2-dsr").nodes(lab.backends(), to).toml();
    }
    text
}

/// Whether all VIPs are addresses of this load balancer.
fn holds(node: &Node) -> bool {
    let shown = node.run("ip", ["-o", "address"]).map(|output| output.stdout);
    shown.is_ok_and(|shown| VIPS.iter().all(|vip| shown.contains(&format!(" {vip}/"))))
}

#[test]
fn connections_survive_a_failover_a_split_brain_and_its_end() -> Result<()> {
    require_root!(Ok(()));
    let connections = 150;
    let mut scene = Scene::new(connections)?;
    let before = scene.open(connections.into(), 300)?;
    scene.wait_holders([true, false])?;

    // Cut off with all that runs on it.
    let cut = Instant::now();
    scene.set_link("down")?;
    wait_until("the other takes over", SOON, || holds(scene.lab.balancer(1)))?;
    let took = cut.elapsed();
    println!("failover after {took:?}");
    ensure!(took < Duration::from_secs(3), "the failover took {took:?}");
    assert_eq!(scene.messages(300)?, "", "after the failover");
    scene.set_link("up")?;
    // Whoever holds them keeps them.
    scene.wait_holders([false, true])?;
    assert_eq!(scene.messages(300)?, "", "after it is back");

    // Neither hears the other.
    try_wait_until("it knows that it is alone", SOON, || scene.rival(1).map(|rival| rival == 0.0))?;
    let split = Instant::now();
    scene.split()?;
    scene.wait_holders([true, true])?;
    try_wait_until("both raise the alarm", SOON, || try_all([0, 1], |at| Ok(scene.rival(at)? == 1.0)))?;
    println!("split brain: alarm after {:?}", split.elapsed());
    let status = scene.daemons[0].cli_checked(["status"])?;
    ensure!(
        status.contains("SPLIT BRAIN") && status.contains(&scene.lab.balancer(1).first_leg().mac_text()),
        "{status}"
    );
    assert_eq!(scene.messages(450)?, "", "while both hold the VIPs");
    scene.heal()?;
    wait_until("one of both gives way", SOON, || {
        [0, 1].iter().filter(|at| holds(scene.lab.balancer(**at))).count() == 1
    })?;
    assert_eq!(scene.messages(300)?, "", "after it is healed");
    wait_until("the alarm ends", SOON, || {
        let quiet = |at: &usize| scene.rival(*at).map_or(true, |rival| rival == 0.0);
        [0, 1].iter().all(quiet)
    })?;

    scene.ensure_unmoved(&before)
}

#[test]
fn a_host_that_is_not_ready_hands_over_and_one_whose_daemon_died_does_not() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(25)?;
    scene.wait_holders([true, false])?;
    // One that hangs, and one that is dead: what is pinned goes on forwarding.
    scene.daemons[0].signal(Signal::SIGSTOP)?;
    let_pass(Duration::from_secs(4));
    scene.wait_holders([true, false])?;
    scene.daemons[0].signal(Signal::SIGCONT)?;
    scene.daemons[0].kill9()?;
    let_pass(Duration::from_secs(3));
    scene.wait_holders([true, false])?;
    // What nobody forwards is nobody's.
    let config = scene.daemons[0].files().config.display().to_string();
    scene.daemons[0].cli_checked(["detach", "--config", &config])?;
    scene.wait_holders([false, true])?;
    wait_until("the first knows", SOON, || scene.keepalived[0].state() == "FAULT")
        .with_context(|| scene.keepalived[0].log())?;
    // It is ready again, and waits.
    scene.daemons[0].launch()?;
    scene.daemons[0].wait_ready(SOON)?;
    let before = scene.open(25, 50)?;
    wait_until("the first is fit again", SOON, || scene.keepalived[0].state() == "BACKUP")
        .with_context(|| scene.keepalived[0].log())?;
    // Good-bye.
    let left = Instant::now();
    scene.keepalived[1].stop()?;
    wait_until("the first takes over", SOON, || holds(scene.lab.balancer(0)))
        .with_context(|| scene.keepalived[0].log())?;
    println!("handed over after {:?}", left.elapsed());
    assert_eq!(scene.messages(100)?, "");
    scene.keepalived[1].launch()?;
    scene.ensure_unmoved(&before)
}

/// As `use_vmac` has it: frames for VIPs of the hosts' own family come to VRRP's MAC address, on whichever host holds them.
#[test]
fn with_a_virtual_mac_address_connections_survive_a_failover() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::edited(100, |config| {
        let on_top = "  interface eth0\n  use_vmac\n  vmac_xmit_base\n";
        config.replace("  interface eth0\n", on_top).replace(" dev eth0", "")
    })?;
    let before = scene.open(100, 200)?;
    let vip = VIPS[0].to_string();
    let is_at_the_virtual_one = |scene: &Scene| {
        let known = scene.lab.client(0).run("ip", ["neigh", "show", &vip]);
        let listens = |daemon: &Daemon| {
            daemon.status_json().is_ok_and(|status| status["own_macs"].to_string().contains(VIRTUAL_MAC))
        };
        known.is_ok_and(|known| known.stdout.contains(VIRTUAL_MAC)) && scene.daemons.iter().all(listens)
    };
    wait_until("the VIP is at VRRP's address", SOON, || is_at_the_virtual_one(&scene))?;
    scene.set_link("down")?;
    wait_until("the other takes over", SOON, || holds(scene.lab.balancer(1)))?;
    assert_eq!(scene.messages(200)?, "", "after the failover");
    wait_until("it still is", SOON, || is_at_the_virtual_one(&scene))?;
    scene.ensure_unmoved(&before)
}
