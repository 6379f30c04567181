//! Backends that are set up wrongly.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lb_tests::lab::{Daemon, Lab, Mode, Service, VIP_V4, VIP_V6, programs, require_root};

use super::examined::{Examined, FAMILIES, servers, services};

/// A backend without the VIP, one that answers for it, one without a tunnel, one that is not there, and somebody else's
/// program: each is found, nothing else is, and what the fix says mends it.
#[test]
fn misconfigured_backends_are_found_and_mended() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::Ipip.lab().backends(4).build()?;
    let _servers = servers(&lab, &[80, 81])?;
    let direct = [lab.backend(0), lab.backend(1), lab.backend(2)];
    let tunnelled = [lab.backend(0), lab.backend(3)];
    let mut config = String::new();
    for (vip, family) in FAMILIES {
        let ghost = ghost(&lab, vip);
        let name = format!("dsr-{family}");
        let to = SocketAddr::new(vip, 80);
        config += &Mode::L2Dsr
            .service(&name, to, "tcp", direct)
            .backend("ghost", SocketAddr::new(ghost, 80), 1)
            .toml();
        let (name, to) = (format!("ipip-{family}"), SocketAddr::new(vip, 81));
        config += &Mode::Ipip.service(&name, to, "tcp", tunnelled).toml();
    }
    let balancer = lab.balancer(0);
    lab.backend(1).ip(
        "lose the VIPs",
        [format!("address del {VIP_V4}/32 dev lo"), format!("address del {VIP_V6}/128 dev lo")],
    )?;
    lab.backend(2).sysctl("net.ipv4.conf.all.arp_ignore", "0")?;
    lab.backend(2)
        .ip("hold a VIP where it is asked for", [format!("address add {VIP_V6}/128 dev eth0 nodad")])?;
    lab.backend(3).tc("lose the tunnels", ["qdisc del dev eth0 clsact"])?;
    balancer.attach_xdp("eth0", &programs::reflect())?;

    let daemon = Daemon::new(&lab, 0, &config)?;
    let examined = Examined::of(&daemon)?;
    let (v4, v6) = (VIP_V4.to_string(), VIP_V6.to_string());
    let ghosts = ["problem reachable dsr-4/ghost", "problem reachable dsr-6/ghost"];
    examined.expect(&[
        "problem xdp-program eth0",
        &format!("problem vip-answers {v4}"),
        &format!("problem vip-answers {v6}"),
        ghosts[0],
        ghosts[1],
        "problem backend-vip dsr-4/backend1",
        "problem backend-vip dsr-6/backend1",
        "problem backend-vip ipip-4/backend3",
        "problem backend-vip ipip-6/backend3",
    ])?;
    examined.says("xdp-program", "eth0", "which is not this Ballast's")?;
    examined.says("vip-answers", &v4, "backend backend2 (02:ba:11:00:04:03) answers ARP")?;
    examined.says("vip-answers", &v6, "backend backend2 (02:ba:11:00:04:03) answers neighbour discovery")?;
    examined.says("reachable", "dsr-4/ghost", "does not answer ARP on eth0")?;
    examined.says("backend-vip", "dsr-6/backend1", &format!("does not hold {v6}"))?;
    examined.says("backend-vip", "ipip-4/backend3", "does not take the outer header off ipip packets")?;
    examined.says("backend-vip", "ipip-6/backend3", "does not take the outer header off ipip packets")?;

    // As an operator reads it.
    let file = daemon.files().config.display().to_string();
    let shown = daemon.cli(["doctor", "--config", &file])?;
    for words in [
        "PROBLEM backend-vip dsr-4/backend1: it does not hold 203.0.113.10",
        "  fix on backend1:\n    ip address add 203.0.113.10/32 dev lo\n",
        "9 problems, 0 warnings",
    ] {
        ensure!(shown.stdout.contains(words), "{}", shown.stdout);
    }
    ensure!(shown.stderr.trim() == "error: 9 problems found", "{}", shown.stderr);

    for (check, subject) in [
        ("vip-answers", v4.as_str()),
        ("vip-answers", &v6),
        ("backend-vip", "dsr-4/backend1"),
        ("backend-vip", "dsr-6/backend1"),
    ] {
        examined.mend(&lab, check, subject)?;
    }
    // The fix's first command is for looking, with a tool that need not be there.
    let fix = &examined.find("xdp-program", "eth0")?["fix"]["commands"][1];
    balancer.run("sh", ["-c", fix.as_str().unwrap_or_default()])?;
    // The kernel's tunnel devices need not be there either.
    lab.backend(3).decapsulate()?;
    Examined::of(&daemon)?.expect(&ghosts)
}

/// An address on the backends' network that nobody has.
fn ghost(lab: &Lab, like: IpAddr) -> IpAddr {
    match lab.backend(0).address(like) {
        IpAddr::V4(address) => IpAddr::from([address.octets()[0], address.octets()[1], 200, 200]),
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[7] = 0xcccc;
            IpAddr::from(segments)
        }
    }
}

/// A server that listens on its own address alone passes every check of its health there, and takes no client of the VIP.
#[test]
fn a_server_that_does_not_listen_on_the_vip_is_found() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::L2Dsr.lab().backends(1).build()?;
    let backend = lab.backend(0);
    let own = SocketAddr::new(backend.ipv4().into(), 80);
    let _listener = backend.enter(|| Ok(std::net::TcpListener::bind(own)?))?;
    let to = SocketAddr::new(VIP_V4, 80);
    let service = Mode::L2Dsr.service("web", to, "tcp", [backend]);
    let daemon = Daemon::new(&lab, 0, &service.toml())?;
    let examined = Examined::of(&daemon)?;
    examined.expect(&["problem backend-vip web/backend0"])?;
    examined.says("backend-vip", "web/backend0", &format!("its server listens on {own} alone"))
}

/// Answers of `dnat`'s backends that take another way.
#[test]
fn backends_that_answer_past_the_load_balancer_are_found_and_mended() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::Nat.lab().backends(1).build()?;
    lab.balancer(0).sysctl("net.ipv4.ip_forward", "0")?;
    let _servers = servers(&lab, &[8080])?;
    let daemon = Daemon::new(&lab, 0, &services(Mode::Dnat, 80, lab.backends()))?;
    let examined = Examined::of(&daemon)?;
    examined.expect(&[
        "warning ip-forward host",
        "warning ip-forward host",
        "warning replies dnat-4-80/backend0",
        "warning replies dnat-6-80/backend0",
    ])?;
    examined.says("replies", "dnat-4-80/backend0", "does not come back through this host")?;
    for subject in ["dnat-4-80/backend0", "dnat-6-80/backend0"] {
        examined.mend(&lab, "replies", subject)?;
    }
    for finding in examined.findings().filter(|finding| finding["check"] == "ip-forward") {
        let command = finding["fix"]["commands"][0].as_str().unwrap_or_default();
        lab.balancer(0).run("sh", ["-c", command])?;
    }
    Examined::of(&daemon)?.expect(&[])?;
    // A client on the backends' own network is answered directly all the same.
    let client = lab.client(0).ipv4().to_string();
    let examined = Examined::with(&daemon, &["--client", &client])?;
    examined.expect(&["problem replies dnat-4-80/backend0"])
}

/// The way to a backend behind a router, for which one mode is not made and another is too large.
#[test]
fn a_router_on_the_way_is_told_of() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(0).remote_backends(1).router_mtu(1400).decapsulating().build()?;
    let _servers = servers(&lab, &[80, 81])?;
    let direct = Mode::L2Dsr.service("direct", SocketAddr::new(VIP_V4, 80), "tcp", lab.backends());
    let tunnel = Mode::Ipip.service("tunnel", SocketAddr::new(VIP_V4, 81), "tcp", lab.backends());
    let daemon = Daemon::new(&lab, 0, &(direct.toml() + &tunnel.toml()))?;
    let examined = Examined::of(&daemon)?;
    examined.expect(&["problem route direct/backend0", "warning path-mtu tunnel/backend0"])?;
    examined.says("route", "direct/backend0", "is behind the gateway")?;
    examined.says("path-mtu", "tunnel/backend0", "large ones are not")
}

/// Addresses that can't be a backend's.
#[test]
fn a_backend_on_this_host_and_one_that_nobody_routes_to_are_found() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::Nat.lab().backends(1).build()?;
    let _servers = servers(&lab, &[8080])?;
    let to = SocketAddr::new(VIP_V4, 80);
    let own = SocketAddr::new(lab.balancer(0).ipv4().into(), 8080);
    let service = Service::new("web", to, "tcp", "nat")
        .backend("self", own, 1)
        .backend("nowhere", SocketAddr::from(([198, 51, 100, 9], 8080)), 1)
        .backend("backend0", SocketAddr::new(lab.backend(0).ipv4().into(), 8080), 1);
    let daemon = Daemon::new(&lab, 0, &service.toml())?;
    let examined = Examined::of(&daemon)?;
    examined.expect(&["problem clash web/self", "problem route web/nowhere"])?;
    examined.says("clash", "web/self", "is this host's")
}
