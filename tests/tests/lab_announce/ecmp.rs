//! Two load balancers behind a router that spreads flows among them.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Bird, Daemon, Lab, LiveClients, LiveServers, Report, Segment, VIP_V4, VIP_V6, next_hops, require_root,
    try_all, try_wait_until,
};
use serde_json::Value;

use crate::scene::{ANNOUNCE, PORT, SOON, UNCHECKED, VIPS, announces, config, wait_announced};

/// Two load balancers, the router, and clients with live connections.
struct Scene {
    clients: LiveClients,
    _servers: LiveServers,
    daemons: Vec<Daemon>,
    _birds: Vec<Bird>,
    lab: Lab,
}

impl Scene {
    fn new(vip: IpAddr, connections: u16) -> Result<Self> {
        let lab = Lab::builder().clients_behind_gateway().balancers(2).backends(4).build()?;
        let servers = LiveServers::start(lab.backends(), PORT)?;
        let text = config(&lab, ANNOUNCE, UNCHECKED, &[]);
        let daemons = vec![Daemon::start(&lab, 0, &text)?, Daemon::start(&lab, 1, &text)?];
        let mut birds = vec![Bird::on_router(&lab)?];
        birds.push(Bird::on_balancer(&lab, 0)?);
        birds.push(Bird::on_balancer(&lab, 1)?);
        lab.balancers().try_for_each(|node| wait_announced(node, true))?;
        let clients = LiveClients::start(
            lab.client(0),
            SocketAddr::new(vip, PORT),
            0..connections,
            connections.into(),
        )?;
        let scene = Self { clients, _servers: servers, daemons, _birds: birds, lab };
        scene
            .wait_ways(&[0, 1])
            .with_context(|| scene._birds[0].ask("show protocols all").unwrap_or_default())?;
        Ok(scene)
    }

    /// Waits until the router sends packets for the VIPs to these load balancers.
    fn wait_ways(&self, balancers: &[usize]) -> Result<()> {
        let expected = |vip: IpAddr| {
            let mut hops: Vec<_> =
                balancers.iter().map(|number| self.lab.balancer(*number).address(vip).to_string()).collect();
            hops.sort();
            hops
        };
        try_wait_until(&format!("the router's ways are {balancers:?}"), 2 * SOON, || {
            try_all(VIPS, |vip| Ok(next_hops(self.lab.gateway(), vip)? == expected(vip)))
        })
    }

    /// Waits until so many more messages were answered.
    fn messages(&mut self, count: u64) -> Result<Report> {
        let before = self.clients.report()?.exchanged;
        self.clients.wait(&format!("{count} messages are answered"), 2 * SOON, |report| {
            !report.lost.is_empty() || report.exchanged >= before + count
        })
    }

    fn packets(&self, balancer: usize) -> Result<u64> {
        let status = self.daemons[balancer].status_json()?;
        let services = status["services"].as_array().context("services")?;
        Ok(services.iter().filter_map(|service| service["packets"].as_u64()).sum())
    }

    fn set_link(&self, balancer: usize, state: &str) -> Result<()> {
        let port = &self.lab.balancer(balancer).leg(Segment::Front).port;
        self.lab.switch().ip("a link", [format!("link set {port} {state}")])
    }
}

/// The whole story, with so many connections, each asking twice a second.
fn a_load_balancer_goes_and_comes(vip: IpAddr, connections: u16) -> Result<()> {
    let mut scene = Scene::new(vip, connections)?;
    let before = scene.clients.open(connections.into())?;
    ensure!(before.lost.is_empty(), "{}", before.losses());
    let count = u64::from(connections);
    scene.clients.pace(u32::from(connections) * 2)?;
    ensure!(scene.packets(0)? > 0 && scene.packets(1)? > 0, "both share the flows");

    // Cut off: no process ends, no route is withdrawn that the router could hear of. Only BFD notices.
    let cut = Instant::now();
    scene.set_link(0, "down")?;
    scene.wait_ways(&[1])?;
    println!(
        "{connections} connections to {vip}: cut off, and gone from the router's routes after {:?}",
        cut.elapsed()
    );
    assert_eq!(scene.messages(4 * count)?.losses(), "", "after the cut");
    scene.set_link(0, "up")?;
    scene.wait_ways(&[0, 1])?;
    assert_eq!(scene.messages(2 * count)?.losses(), "", "after it is back");

    // As before maintenance.
    let left = Instant::now();
    let output = scene.daemons[1].cli(["announce", "off", "--wait", "--timeout", "60s"])?;
    ensure!(output.status.success(), "{}{}", output.stdout, output.stderr);
    println!("withdrawn, and the traffic gone, after {:?}", left.elapsed());
    scene.wait_ways(&[0])?;
    let gone = scene.packets(1)?;
    assert_eq!(scene.messages(2 * count)?.losses(), "", "after it was withdrawn");
    let late = scene.packets(1)? - gone;
    ensure!(late < 20, "{late} packets came after the traffic had left");
    scene.daemons[1].cli_checked(["announce", "on"])?;
    scene.wait_ways(&[0, 1])?;
    assert_eq!(scene.messages(2 * count)?.losses(), "", "after it is on again");

    // A daemon that dies withdraws nothing, and its program goes on.
    scene.daemons[0].kill9()?;
    assert_eq!(scene.messages(4 * count)?.losses(), "", "without a daemon");
    let node = scene.lab.balancer(0);
    ensure!(VIPS.iter().all(|vip| announces(node, *vip).unwrap_or(false)), "the routes are there still");
    scene.wait_ways(&[0, 1])?;

    let after = scene.clients.exchange()?;
    assert_eq!((after.losses().as_str(), &after.open), ("", &before.open));
    Ok(())
}

#[test]
fn connections_survive_a_load_balancer_that_is_cut_off_withdrawn_and_killed() -> Result<()> {
    require_root!(Ok(()));
    a_load_balancer_goes_and_comes(VIP_V4, 400)
}

#[test]
#[ignore = "long: thousands of connections, both families"]
fn five_thousand_connections_survive_a_load_balancer_that_is_cut_off() -> Result<()> {
    require_root!(Ok(()));
    a_load_balancer_goes_and_comes(VIP_V6, 5_000)?;
    a_load_balancer_goes_and_comes(VIP_V4, 5_000)
}

/// Of so many connections over one host about half move to a second one that comes up beside it with new maps. One backend is dead
/// for both, so that the first tables are those of who passed in time.
fn flows_move_to_a_host_that_starts_from_nothing(vip: IpAddr, connections: u16) -> Result<()> {
    let lab = Lab::builder().clients_behind_gateway().balancers(2).backends(4).build()?;
    let _servers = LiveServers::start(lab.backends(), PORT)?;
    let port = &lab.backend(3).leg(Segment::Front).port;
    lab.switch().ip("one is dead", [format!("link set {port} down")])?;
    let check = "type = \"tcp\"\ninterval = \"1s\"\ntimeout = \"1s\"\nfall = 2";
    let text = config(&lab, ANNOUNCE, check, &[]);
    let first = Daemon::start(&lab, 0, &text)?;
    let _birds = [Bird::on_router(&lab)?, Bird::on_balancer(&lab, 0)?, Bird::on_balancer(&lab, 1)?];
    let hops = |count| {
        try_wait_until(&format!("the router has {count} ways"), 2 * SOON, || {
            next_hops(lab.gateway(), vip).map(|hops| hops.len() == count)
        })
    };
    hops(1)?;
    let count = usize::from(connections);
    let mut clients = LiveClients::start(lab.client(0), SocketAddr::new(vip, PORT), 0..connections, count)?;
    let before = clients.open(count)?;
    ensure!(before.lost.is_empty(), "{}", before.losses());

    let second = Daemon::start(&lab, 1, &text)?;
    hops(2)?;
    let after = clients.exchange()?;
    assert_eq!((after.losses().as_str(), &after.open), ("", &before.open));
    let service = |daemon: &Daemon| -> Result<Value> {
        let status = daemon.status_json()?;
        ensure!(status["tracked_slots"] == 0, "slots are tracked: {}", status["tracked_slots"]);
        let services = status["services"].as_array().context("services")?;
        let of_vip = |service: &&Value| {
            service["address"].as_str().and_then(|to| to.parse().ok()) == Some(SocketAddr::new(vip, PORT))
        };
        services.iter().find(of_vip).cloned().context("the service")
    };
    let (one, other) = (service(&first)?, service(&second)?);
    assert_eq!(one["fingerprint"], other["fingerprint"]);
    let moved = other["packets"].as_u64().context("packets")?;
    ensure!(moved >= u64::from(connections) / 4, "only {moved} packets came to the second host");
    Ok(())
}

#[test]
fn connections_that_move_to_a_host_that_has_just_started_from_nothing_survive() -> Result<()> {
    require_root!(Ok(()));
    flows_move_to_a_host_that_starts_from_nothing(VIP_V4, 400)
}

#[test]
#[ignore = "long: thousands of connections, both families"]
fn thousands_of_connections_survive_a_host_that_starts_from_nothing() -> Result<()> {
    require_root!(Ok(()));
    flows_move_to_a_host_that_starts_from_nothing(VIP_V6, 4_000)?;
    flows_move_to_a_host_that_starts_from_nothing(VIP_V4, 4_000)
}

/// Without anybody who withdraws it, a wait for the traffic to leave ends when it is told to.
#[test]
fn traffic_that_does_not_leave_is_waited_for_no_longer_than_was_said() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let _servers = LiveServers::start(lab.backends(), PORT)?;
    let daemon = Daemon::start(&lab, 0, &config(&lab, ANNOUNCE, UNCHECKED, &[]))?;
    wait_announced(lab.balancer(0), true)?;
    // The client's route leads here, whatever is announced.
    let mut clients = LiveClients::start(lab.client(0), SocketAddr::new(VIP_V4, PORT), 0..20, 20)?;
    clients.open(20)?;
    clients.pace(200)?;
    let output = daemon.cli(["announce", "off", "203.0.113.10", "--wait", "--timeout", "2s"])?;
    assert_eq!(output.status.code(), Some(5), "{}{}", output.stdout, output.stderr);
    ensure!(output.stderr.contains("packets/s"), "{}", output.stderr);
    ensure!(
        !announces(lab.balancer(0), VIP_V4)? && announces(lab.balancer(0), VIP_V6)?,
        "one is withdrawn, and one is not"
    );
    Ok(())
}
