//! "New backend" and "no backend enabled": nobody whom a packet could go to.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Accounts, Behaviour, Daemon, HttpServer, Lab, Node, Service, TcpServer, UdpServer, UdpTraffic, VIP_V4,
    VIP_V6, require_root, try_wait_until, wait_until,
};
use serde_json::Value;

use crate::scene::SOON;

const PORT: u16 = 53;
const CHECKED: u16 = 7;

#[test]
fn new_backends_get_no_traffic_before_their_first_passed_check_when_four_become_nine() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(9).build()?;
    let _servers = lab.backends().map(|node| UdpServer::start(node, &[PORT])).collect::<Result<Vec<_>>>()?;
    let checked = |nodes: &[&Node]| -> Result<Vec<TcpServer>> {
        nodes.iter().map(|node| TcpServer::start(node, &[CHECKED])).collect()
    };
    let nodes: Vec<&Node> = lab.backends().collect();
    let (four, five) = nodes.split_at(4);
    let _old = checked(four)?;
    let check = format!("type = \"tcp\"\nport = {CHECKED}\ninterval = \"200ms\"\nrise = 2\nfall = 2");
    let config = |nodes: &[&Node]| {
        let service = Service::new("udp", (VIP_V4, PORT).into(), "udp", "l2-dsr").health(&check);
        service.nodes(nodes.iter().copied(), (VIP_V4, PORT).into()).toml()
    };
    let daemon = Daemon::start(&lab, 0, &config(four))?;
    wait_until("the four serve", SOON, || serving(&daemon).len() == 4)?;
    let sources = (0..64).map(|number| lab.client(0).source_port(number, 4000, VIP_V4));
    let traffic = UdpTraffic::new(sources, (VIP_V4, PORT).into()).rate(1_000);
    let before = traffic.run(lab.client(0), 640)?;
    ensure!(before.lost.is_empty(), "{} lost without any change", before.lost.len());
    let table = fingerprint(&daemon)?;
    let run = traffic.start(lab.client(0))?;
    daemon.write_config(&config(&nodes))?;
    daemon.reload()?;
    // Checks of the new ones fail: nothing is theirs, and nothing moves.
    wait_until("the new ones are known to be dead", SOON, || count(&daemon, "unhealthy") == 5)?;
    ensure!(fingerprint(&daemon)? == table && serving(&daemon).len() == 4, "{:?}", serving(&daemon));
    let _new = checked(five)?;
    wait_until("all nine serve", SOON, || serving(&daemon).len() == 9)?;
    let report = run.finish()?;
    ensure!(report.lost.is_empty() && report.refused == 0, "{} of {} lost", report.lost.len(), report.sent);
    ensure!(report.by_flow == before.by_flow, "an existing flow was moved");
    Ok(())
}

#[test]
fn a_restart_with_slow_checks_changes_no_slot() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(3).build()?;
    let mut servers =
        lab.backends().map(|node| HttpServer::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    servers.last_mut().context("a server")?.set(Behaviour::Fail(503))?;
    let check = "type = \"http\"\ninterval = \"20s\"\ntimeout = \"10s\"\nrise = 1\nfall = 1";
    let to = (VIP_V4, 80).into();
    let config = Service::new("web", to, "tcp", "l2-dsr").health(check).nodes(lab.backends(), to).toml();
    let mut daemon = Daemon::start(&lab, 0, &config)?;
    wait_until("two serve", SOON, || serving(&daemon) == ["backend0", "backend1"])?;
    wait_until("the third is known to be dead", SOON, || count(&daemon, "unhealthy") == 1)?;
    let table = fingerprint(&daemon)?;
    // From now on no check ends within its 10 s.
    for server in &mut servers {
        server.set(Behaviour::Hang)?;
    }
    for _ in 0..2 {
        daemon.kill9()?;
        daemon.launch()?;
        daemon.wait_ready(SOON)?;
        for _ in 0..5 {
            ensure!(fingerprint(&daemon)? == table, "slots changed");
            ensure!((count(&daemon, "healthy"), count(&daemon, "unhealthy")) == (2, 1), "it forgot");
            thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}

#[test]
fn no_backend_enabled_drops_packets_and_counts_them_and_gives_none_to_the_host() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().balancers_own_vips().build()?;
    let _servers = lab.backends().map(|node| UdpServer::start(node, &[PORT])).collect::<Result<Vec<_>>>()?;
    let host = UdpServer::start(lab.balancer(0), &[PORT])?;
    let services = [("udp4", VIP_V4), ("udp6", VIP_V6)];
    let config = services.map(|(name, vip)| {
        let to = (vip, PORT).into();
        Service::new(name, to, "udp", "l2-dsr").nodes(lab.backends(), to).toml()
    });
    let daemon = Daemon::start(&lab, 0, &config.concat())?;
    for (service, vip) in services {
        let sources = (0..16).map(|number| lab.client(0).source_port(number, 4000, vip));
        let traffic = UdpTraffic::new(sources, (vip, PORT).into()).rate(1_000);
        try_wait_until("all packets are answered", SOON, || {
            traffic.run(lab.client(0), 160).map(|report| report.lost.is_empty())
        })?;
        for backend in ["backend0", "backend1"] {
            daemon.cli_checked(["backend", "disable", service, backend])?;
        }
        let before = daemon.accounts()?;
        ensure!(traffic.run(lab.client(0), 160)?.answered == 0, "somebody answers");
        let after = daemon.accounts()?;
        let dropped = |accounts: &Accounts| accounts.drop("no_backend") + accounts.drop("backend_disabled");
        ensure!(dropped(&after) - dropped(&before) == 160, "{after:?}");
        ensure!(host.received() == 0, "the host got packets of the service");
    }
    Ok(())
}

fn service(daemon: &Daemon) -> Value {
    daemon.status_json().unwrap_or_default()["services"][0].clone()
}

fn fingerprint(daemon: &Daemon) -> Result<String> {
    service(daemon)["fingerprint"].as_str().map(ToOwned::to_owned).context("no fingerprint")
}

/// Who has a part of the table.
fn serving(daemon: &Daemon) -> Vec<String> {
    let backends = service(daemon)["backends"].as_array().cloned().unwrap_or_default();
    let sharing = backends.iter().filter(|one| one["share"].as_f64() > Some(0.0));
    sharing.filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect()
}

fn count(daemon: &Daemon, health: &str) -> usize {
    let backends = service(daemon)["backends"].as_array().cloned().unwrap_or_default();
    backends.iter().filter(|one| one["health"] == health).count()
}
