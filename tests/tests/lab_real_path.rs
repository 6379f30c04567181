//! Health checks that take the way of a backend's traffic (`via = "vip"`).

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, HttpServer, Lab, Mode, Node, VIP_V4, VIP_V6, require_root, try_wait_until, wait_for, wait_until,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const FAMILIES: [(IpAddr, u8); 2] = [(VIP_V4, 4), (VIP_V6, 6)];
/// A backend is down after at most 0.5 × 3 + 0.5 s, also on a busy machine.
const QUICK: &str = "interval = \"500ms\"\ntimeout = \"500ms\"\nrise = 2\nfall = 3\n";
const FAILED: &str = "ballast_health_check_duration_seconds_count{result=\"failed\"}";
const HTTP: &str = "type = \"http\"\npath = \"/healthz\"\n";

/// A service of a family and its check, on a port of its own.
struct Checked<'a> {
    name: String,
    mode: Mode,
    to: SocketAddr,
    protocol: &'static str,
    check: &'a str,
}

impl<'a> Checked<'a> {
    fn tcp(name: String, mode: Mode, to: SocketAddr, check: &'a str) -> Self {
        Self { name, mode, to, protocol: "tcp", check }
    }

    fn toml(&self, lab: &Lab) -> String {
        let service = self.mode.service(&self.name, self.to, self.protocol, lab.backends());
        service.health(&format!("{QUICK}{}", self.check)).toml()
    }
}

/// A name server on the VIPs of a backend that knows no name. Ends with the flag.
fn name_server(node: &Node, end: &Arc<AtomicBool>) -> Result<()> {
    for (vip, _) in FAMILIES {
        let socket = node.enter(|| Ok(UdpSocket::bind((vip, 53))?))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let end = Arc::clone(end);
        std::thread::spawn(move || {
            let mut message = [0; 512];
            while !end.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut message) else { continue };
                // An answer, with recursion available, "no such name" (RFC 1035 section 4.1.1).
                message[2] |= 0x80;
                message[3] = 0x83;
                // Whoever does not get it asks again.
                let _ = socket.send_to(&message[..length], client);
            }
        });
    }
    Ok(())
}

/// Leads the load balancer's own packets for the VIPs to a host that does nothing with them.
fn lead_vips_away(lab: &Lab) -> Result<()> {
    lab.vips().iter().try_for_each(|vip| lab.balancer(0).route_vip_to(*vip, lab.client(0)))
}

/// Health and detail of a backend.
fn verdict(daemon: &Daemon, service: &str, backend: &str) -> Option<(String, String)> {
    let status = daemon.status_json().ok()?;
    let named = |all: &Value, name: &str| {
        all.as_array()?.iter().find(|one| one["name"].as_str() == Some(name)).cloned()
    };
    let backend = named(&named(&status["services"], service)?["backends"], backend)?;
    Some((backend["health"].as_str()?.to_owned(), backend["health_detail"].as_str()?.to_owned()))
}

/// Waits for a health and a detail that holds a text; returns the detail.
fn expect(daemon: &Daemon, service: &str, backend: &str, health: &str, detail: &str) -> Result<String> {
    let mut last = None;
    let what = format!("{service}/{backend} is {health}: {detail}");
    let found = wait_for(&what, SOON, || {
        last = verdict(daemon, service, backend);
        last.clone().filter(|(is, why)| is == health && why.contains(detail)).map(|(_, why)| why)
    });
    found.with_context(|| format!("it is {last:?}"))
}

/// The egress filters of an interface, as tc shows them.
fn filters(node: &Node) -> Result<String> {
    let interface = &node.first_leg().interface;
    Ok(node.run("tc", ["filter", "show", "dev", interface, "egress"])?.stdout)
}

fn qdiscs(node: &Node) -> Result<String> {
    Ok(node.run("tc", ["qdisc", "show", "dev", &node.first_leg().interface])?.stdout)
}

fn detach(daemon: &mut Daemon) -> Result<()> {
    daemon.sigterm()?;
    let config = daemon.files().config.display().to_string();
    daemon.cli_checked(["detach", "--config", &config]).map(drop)
}

#[test]
fn a_vip_that_is_missing_on_a_dsr_backend_shows_via_the_vip_and_not_without() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    lead_vips_away(&lab)?;
    let _servers =
        lab.backends().map(|node| HttpServer::start(node, &[80, 81])).collect::<Result<Vec<_>>>()?;
    let end = Arc::new(AtomicBool::new(false));
    lab.backends().try_for_each(|node| name_server(node, &end))?;
    let (plain, via) = (HTTP.to_owned(), format!("{HTTP}via = \"vip\"\n"));
    let dns = "type = \"dns\"\nname = \"example.org\"\nexpect_rcode = \"nxdomain\"\nvia = \"vip\"\n";
    let echo = "type = \"icmp\"\npath = \"vip\"\n";
    let mut services = Vec::new();
    for (vip, family) in FAMILIES {
        for (kind, port, protocol, check) in [
            ("plain", 80, "tcp", plain.as_str()),
            ("via", 81, "tcp", &via),
            ("echo", 82, "tcp", echo),
            ("dns", 53, "udp", dns),
        ] {
            let (name, to) = (format!("{kind}-{family}"), SocketAddr::new(vip, port));
            services.push(Checked { name, mode: Mode::L2Dsr, to, protocol, check });
        }
    }
    let config: String = services.iter().map(|service| service.toml(&lab)).collect();
    let mut daemon = Daemon::start(&lab, 0, &config)?;
    let all = |backend: &str, health: &str| {
        services.iter().try_for_each(|service| expect(&daemon, &service.name, backend, health, "").map(drop))
    };
    all("backend0", "healthy")?;
    all("backend1", "healthy")?;

    let holds = |verb: &str| -> Result<()> {
        let lines = lab.vips().iter().map(|vip| {
            let length = if vip.is_ipv4() { "/32" } else { "/128 nodad" };
            let line = format!("address {verb} {vip}{length} dev lo");
            if verb == "del" { line.replace(" nodad", "") } else { line }
        });
        lab.backend(1).ip("take a VIP, or give it back", lines.collect::<Vec<_>>())
    };
    holds("del")?;
    for (vip, family) in FAMILIES {
        let to = SocketAddr::new(vip, 81);
        expect(&daemon, &format!("via-{family}"), "backend1", "unhealthy", &format!("via {to}"))?;
        expect(&daemon, &format!("echo-{family}"), "backend1", "unhealthy", "timed out")?;
        expect(&daemon, &format!("dns-{family}"), "backend1", "unhealthy", "timed out")?;
        expect(&daemon, &format!("plain-{family}"), "backend1", "healthy", "")?;
        expect(&daemon, &format!("via-{family}"), "backend0", "healthy", "")?;
    }
    holds("add")?;
    all("backend1", "healthy")?;

    // None of it was anybody's traffic.
    let status = daemon.status_json()?;
    let packets = status["services"].as_array().context("services")?.iter().map(|one| one["packets"].clone());
    ensure!(packets.clone().all(|count| count == 0), "{:?}", packets.collect::<Vec<_>>());
    ensure!(status.pointer("/verdicts/tx") == Some(&Value::from(0)), "{}", status["verdicts"]);
    end.store(true, Ordering::Relaxed);
    // And nothing stays of it, also where somebody had taken the filter away meanwhile, and not the qdisc that was made for it.
    let (balancer, interface) = (lab.balancer(0), &lab.balancer(0).first_leg().interface);
    balancer.tc("clean up", [format!("filter del dev {interface} egress")])?;
    try_wait_until("the filter is back", SOON, || filters(balancer).map(|all| all.contains("ballast:")))?;
    detach(&mut daemon)?;
    let left = filters(lab.balancer(0))? + &qdiscs(lab.balancer(0))?;
    ensure!(!left.contains("ballast") && !left.contains("clsact"), "{left}");
    Ok(())
}

/// Requests that are longer than a segment go through as well.
#[test]
fn a_broken_tunnel_shows_via_the_vip_in_every_mode_and_family() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::Ipip.lab().backends(2).build()?;
    lead_vips_away(&lab)?;
    let ports: Vec<u16> = (80..88).collect();
    let _servers = lab.backends().map(|node| HttpServer::start(node, &ports)).collect::<Result<Vec<_>>>()?;
    let header = format!("\"X-Padding: {}\"", "p".repeat(3000));
    let check = format!("{HTTP}via = \"vip\"\nheaders = [{header}, {header}]\n");
    let mut services = Vec::new();
    for ((vip, family), number) in FAMILIES.into_iter().zip([0, 4]) {
        for (mode, port) in Mode::TUNNELS.into_iter().zip(80 + number..) {
            let name = format!("{}-{family}-{port}", mode.forwarding());
            services.push(Checked::tcp(name, mode, SocketAddr::new(vip, port), &check));
        }
    }
    // A switch of the lab's takes frames of 1,600 bytes: outer headers must not depend on that.
    let leg = &lab.balancer(0).first_leg().interface;
    lab.balancer(0).ip("a usual MTU", [format!("link set {leg} mtu 1500")])?;
    let config: String = services.iter().map(|service| service.toml(&lab)).collect();
    let daemon = Daemon::start(&lab, 0, &config)?;
    let all = |backend: &str, health: &str| {
        services.iter().try_for_each(|service| expect(&daemon, &service.name, backend, health, "").map(drop))
    };
    all("backend0", "healthy")?;
    all("backend1", "healthy")?;
    let interface = &lab.backend(1).first_leg().interface;
    lab.backend(1).tc("break the tunnels", [format!("qdisc del dev {interface} clsact")])?;
    all("backend1", "unhealthy")?;
    all("backend0", "healthy")?;
    lab.backend(1).decapsulate()?;
    all("backend1", "healthy")
}

#[test]
fn the_filter_survives_the_daemon_and_an_operators_survive_the_filter() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    lead_vips_away(&lab)?;
    let server = HttpServer::start(lab.backend(0), &[80])?;
    let balancer = lab.balancer(0);
    // One of an operator's own; it looks for what comes in and meets nothing here.
    balancer.decapsulate()?;
    let interface = &balancer.first_leg().interface;
    let ingress = || {
        Ok::<_, anyhow::Error>(balancer.run("tc", ["filter", "show", "dev", interface, "ingress"])?.stdout)
    };
    let operators = ingress()?;
    ensure!(operators.contains("lab_decap"), "{operators}");

    let check = format!("{HTTP}via = \"vip\"\n");
    let service = Checked::tcp("web".into(), Mode::L2Dsr, SocketAddr::new(VIP_V4, 80), &check);
    let mut daemon = Daemon::start(&lab, 0, &service.toml(&lab))?;
    expect(&daemon, "web", "backend0", "healthy", "")?;
    let first = filters(balancer)?;
    ensure!(first.matches("ballast:").count() == 1, "{first}");

    daemon.kill9()?;
    ensure!(filters(balancer)? == first, "a dead daemon's filter stays as it is");
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    let second = filters(balancer)?;
    ensure!(second.matches("ballast:").count() == 1 && second != first, "it is replaced: {second}");
    let before = server.requests().len();
    wait_until("checks go on", SOON, || server.requests().len() > before + 3)?;

    // Somebody cleans up. That is no fault of the backend, and mended.
    balancer.tc("clean up", [format!("filter del dev {interface} egress")])?;
    try_wait_until("the filter is back", SOON, || filters(balancer).map(|all| all.contains("ballast:")))?;
    let before = server.requests().len();
    wait_until("checks go on", SOON, || server.requests().len() > before + 3)?;
    ensure!(!daemon.log().contains("is unhealthy"), "{}", daemon.log());

    detach(&mut daemon)?;
    ensure!(!filters(balancer)?.contains("ballast"), "{}", filters(balancer)?);
    ensure!(ingress()? == operators, "{}", ingress()?);
    Ok(())
}

/// A filter of an operator's ends the search before ours is asked: probes leave as they come from their sockets.
#[test]
fn a_probe_that_was_not_carried_says_nothing_whether_nobody_answers_it_or_somebody_else_does() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    lead_vips_away(&lab)?;
    let server = HttpServer::start(lab.backend(0), &[80])?;
    let (balancer, next_hop) = (lab.balancer(0), lab.client(0));
    let check = format!("{HTTP}via = \"vip\"\n");
    let service = Checked::tcp("web".into(), Mode::L2Dsr, SocketAddr::new(VIP_V4, 80), &check);
    let daemon = Daemon::start(&lab, 0, &service.toml(&lab))?;
    expect(&daemon, "web", "backend0", "healthy", "HTTP 200")?;
    let interface = &balancer.first_leg().interface;
    let filter = |verb: &str| format!("filter {verb} dev {interface} egress protocol all prio 1");
    // Returns -1, which is to match.
    balancer
        .tc("end the search", [format!("{} bpf bytecode '1,6 0 0 4294967295' flowid 1:1", filter("add"))])?;
    expect(&daemon, "web", "backend0", "healthy", "don't come to the filter that carries them")?;
    ensure!(daemon.metric("ballast_health_checks_skipped_total")? >= 3.0);

    // Whoever the VIP is led to has it, and the backend is dead.
    drop(server);
    let somebody = HttpServer::start(next_hop, &[80])?;
    next_hop.ip("take the VIP", [format!("address add {VIP_V4}/32 dev lo")])?;
    wait_until("somebody else answers", SOON, || somebody.requests().len() > 5)?;
    let (health, why) = verdict(&daemon, "web", "backend0").context("it is there")?;
    ensure!(health == "healthy" && why.contains("can't be checked"), "{health}: {why}");

    balancer.tc("let it go on", [filter("del")])?;
    expect(&daemon, "web", "backend0", "unhealthy", "via 203.0.113.10:80")?;
    let before = somebody.requests().len();
    try_wait_until("it is down for good", SOON, || daemon.metric(FAILED).map(|count| count > 10.0))?;
    ensure!(somebody.requests().len() == before, "carried probes went to the next hop");
    Ok(())
}

/// What is wrong with this host is told, and no backend is down for it.
#[test]
fn what_keeps_this_host_from_checking_is_said_and_is_nobodys_failure() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).two_armed().build()?;
    let _server = HttpServer::start(lab.backend(0), &[80])?;
    let balancer = lab.balancer(0);
    let check = format!("{HTTP}via = \"vip\"\n");
    let service = Checked::tcp("web".into(), Mode::L2Dsr, SocketAddr::new(VIP_V4, 80), &check);
    let daemon = Daemon::start(&lab, 0, &service.toml(&lab))?;
    expect(&daemon, "web", "backend0", "unknown", "this host has no route to 203.0.113.10")?;
    let front = &balancer.first_leg().interface;
    balancer.tc("take clsact's place", [format!("qdisc add dev {front} ingress")])?;
    balancer.route_vip_to(VIP_V4, lab.client(0))?;
    expect(&daemon, "web", "backend0", "unknown", "has a qdisc `ingress` where `clsact` is needed")?;
    balancer.tc("give it back", [format!("qdisc del dev {front} ingress")])?;
    expect(&daemon, "web", "backend0", "healthy", "HTTP 200")?;

    balancer.ip("hold the VIP", [format!("address add {VIP_V4}/32 dev lo")])?;
    expect(&daemon, "web", "backend0", "healthy", "203.0.113.10 is an address of this host")?;
    balancer.ip("give it back", [format!("address del {VIP_V4}/32 dev lo")])?;
    expect(&daemon, "web", "backend0", "healthy", "HTTP 200")?;

    let nobody = {
        let mut octets = lab.client(0).ipv4().octets();
        octets[3] = 253;
        IpAddr::from(octets)
    };
    balancer.ip("lead the VIP to nobody", [format!("route replace {VIP_V4} via {nobody}")])?;
    expect(&daemon, "web", "backend0", "healthy", &format!("{nobody}, the next hop of this host's route"))?;
    balancer.route_vip_to(VIP_V4, lab.client(0))?;
    expect(&daemon, "web", "backend0", "healthy", "HTTP 200")?;

    // Answers come in by another interface than questions leave by.
    let back = &balancer.legs().get(1).context("two arms")?.interface;
    let strictly = format!("net.ipv4.conf.{back}.rp_filter");
    // With slashes, for the dots of a VLAN's name.
    let said = format!("net/ipv4/conf/{back}/rp_filter=1");
    balancer.sysctl(&strictly, "1")?;
    expect(&daemon, "web", "backend0", "healthy", &said)?;
    balancer.sysctl(&strictly, "2")?;
    expect(&daemon, "web", "backend0", "healthy", "HTTP 200")?;
    ensure!(!daemon.log().contains("is unhealthy"), "{}", daemon.log());
    Ok(())
}
