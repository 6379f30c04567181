//! What withdraws a VIP: what this host knows of itself, for longer than a moment. And what does not.

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Bird, Daemon, HttpServer, Lab, LiveServers, Segment, VIP_V4, VIP_V6, http_get, let_pass, programs,
    require_root, try_wait_for, try_wait_until,
};

use crate::scene::{
    ANNOUNCE, CHECKED, Monitor, PORT, SECOND, SOON, VIPS, announces, config, told, wait_announced,
    wait_withdrawn,
};

struct Scene {
    daemon: Daemon,
    _servers: LiveServers,
    lab: Lab,
}

impl Scene {
    fn new(lines: &[&str]) -> Result<Self> {
        let lab = Lab::builder().backends(2).build()?;
        let servers = LiveServers::start(lab.backends(), PORT)?;
        let daemon = Daemon::start(&lab, 0, &config(&lab, ANNOUNCE, CHECKED, lines))?;
        let scene = Self { daemon, _servers: servers, lab };
        scene.wait(true)?;
        Ok(scene)
    }

    fn wait(&self, announced: bool) -> Result<()> {
        wait_announced(self.lab.balancer(0), announced)
    }
}

#[test]
fn a_link_that_is_down_withdraws_and_comes_back_later_than_the_link() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(&[])?;
    let port = &scene.lab.balancer(0).leg(Segment::Front).port;
    let set = |state: &str| scene.lab.switch().ip("a link", [format!("link set {port} {state}")]);
    set("down")?;
    for vip in VIPS {
        let says = wait_withdrawn(&scene.daemon, vip, "no_carrier")?;
        ensure!(says.contains("eth0"), "{says}");
    }
    let begun = std::time::Instant::now();
    set("up")?;
    scene.wait(true)?;
    ensure!(begun.elapsed() >= SECOND * 6 / 10, "back after {:?}, sooner than it may be", begun.elapsed());
    // What is over before the hold is nothing.
    let patient = "[announce]\ndown_hold = \"20s\"\n";
    scene.daemon.write_config(&config(&scene.lab, patient, CHECKED, &[]))?;
    scene.daemon.reload()?;
    let monitor = Monitor::start(scene.lab.balancer(0))?;
    set("down")?;
    // Longer than the hold was, and than the daemon takes to look.
    let_pass(2 * SECOND);
    set("up")?;
    assert_eq!(monitor.about_vips(), [""; 0]);
    let told = told(&scene.daemon, VIP_V4)?;
    ensure!(told["announced"] == true, "{told}");
    Ok(())
}

#[test]
fn a_program_that_is_detached_by_hand_withdraws_where_another_takes_its_place() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(&[])?;
    let node = scene.lab.balancer(0);
    // The daemon attaches again within a second, unless somebody else is quicker.
    try_wait_for("another program is there", SOON, || {
        scene.daemon.detach_by_hand()?;
        node.attach_xdp("eth0", &programs::reflect()).map(Some)
    })?;
    let says = wait_withdrawn(&scene.daemon, VIP_V4, "not_attached")?;
    ensure!(says.contains("eth0"), "{says}");
    node.detach_xdp("eth0")?;
    scene.wait(true)
}

#[test]
fn a_program_that_does_not_know_its_services_withdraws() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(&[])?;
    // Whatever it was that wrote there: the table of services is empty.
    let mend = scene.daemon.attached()?.forget_services()?;
    let says = wait_withdrawn(&scene.daemon, VIP_V6, "probe_failed")?;
    ensure!(says.contains("web6"), "{says}");
    mend();
    scene.wait(true)
}

#[test]
fn backends_withdraw_only_where_a_service_says_so() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(&[])?;
    let down = |number: usize, state: &str| {
        let node = scene.lab.backend(number);
        scene.lab.switch().ip("a backend", [format!("link set {} {state}", node.leg(Segment::Front).port)])
    };
    let healthy = |count: u64| {
        try_wait_until(&format!("{count} are healthy"), SOON, || {
            scene.daemon.status_json().map(|status| {
                let services = status["services"].as_array().into_iter().flatten();
                let backends =
                    services.flat_map(|service| service["backends"].as_array().into_iter().flatten());
                backends.filter(|backend| backend["health"] == "healthy").count() as u64 == 2 * count
            })
        })
    };
    down(0, "down")?;
    down(1, "down")?;
    healthy(0)?;
    let_pass(SECOND);
    ensure!(
        VIPS.iter().all(|vip| announces(scene.lab.balancer(0), *vip).unwrap_or(false)),
        "dead backends are no reason"
    );

    scene.daemon.write_config(&config(&scene.lab, ANNOUNCE, CHECKED, &["withdraw_below = 2"]))?;
    scene.daemon.reload()?;
    for vip in VIPS {
        let says = wait_withdrawn(&scene.daemon, vip, "backends_below")?;
        ensure!(says.contains("0 backends"), "{says}");
    }
    down(0, "up")?;
    healthy(1)?;
    ensure!(!announces(scene.lab.balancer(0), VIP_V4)?, "one is not enough");
    down(1, "up")?;
    scene.wait(true)?;
    // Whoever is drained serves nobody who comes.
    scene.daemon.cli_checked(["backend", "drain", "web4", "backend0"])?;
    wait_withdrawn(&scene.daemon, VIP_V4, "backends_below")?;
    ensure!(announces(scene.lab.balancer(0), VIP_V6)?, "the other VIP has nothing to do with it");
    Ok(())
}

#[test]
fn what_the_administrator_takes_off_stays_off_until_it_is_put_on() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(&[])?;
    let v4 = VIP_V4.to_string();
    let printed = scene.daemon.cli_checked(["announce", "off", &v4])?;
    ensure!(printed.contains("announcing 203.0.113.10: off"), "{printed}");
    wait_withdrawn(&scene.daemon, VIP_V4, "administrator")?;
    ensure!(announces(scene.lab.balancer(0), VIP_V6)?);
    scene.daemon.kill9()?;
    scene.daemon.launch()?;
    scene.daemon.wait_ready(SOON)?;
    scene.daemon.reload()?;
    wait_withdrawn(&scene.daemon, VIP_V4, "administrator")?;
    scene.daemon.cli_checked(["announce", "off"])?;
    scene.wait(false)?;
    let refused = scene.daemon.cli(["announce", "on", &v4])?;
    ensure!(
        refused.status.code() == Some(1) && refused.stderr.contains("all VIPs are off"),
        "{}",
        refused.stderr
    );
    scene.daemon.cli_checked(["announce", "on"])?;
    scene.wait(true)?;
    let unknown = scene.daemon.cli(["announce", "off", "192.0.2.1"])?;
    ensure!(
        unknown.status.code() == Some(1) && unknown.stderr.contains("no service has the VIP"),
        "{}",
        unknown.stderr
    );
    Ok(())
}

/// A host that starts from nothing has no use for packets while it does not know where they go.
#[test]
fn a_vip_is_announced_first_when_every_backend_has_a_verdict() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let _servers = LiveServers::start(lab.backends(), PORT)?;
    let port = &lab.backend(1).leg(Segment::Front).port;
    lab.switch().ip("one is dead", [format!("link set {port} down")])?;
    let slow = "type = \"tcp\"\ninterval = \"1s\"\ntimeout = \"500ms\"\nfall = 2";
    let daemon = Daemon::start(&lab, 0, &config(&lab, ANNOUNCE, slow, &[]))?;
    let says = told(&daemon, VIP_V4)?;
    assert_eq!(says["reason"], "starting", "{says}");
    wait_announced(lab.balancer(0), true)?;
    let status = daemon.status_json()?;
    let services = status["services"].as_array().context("services")?;
    let healths: Vec<_> = services.iter().map(|service| service["backends"][1]["health"].clone()).collect();
    assert_eq!(healths, ["unhealthy", "unhealthy"]);
    Ok(())
}

/// The route is there for routers, and for nobody else. Where the administrator has one of his own for checks over the VIP, that is
/// in another table.
#[test]
fn the_route_is_in_nobodys_way() -> Result<()> {
    require_root!(Ok(()));
    for forwarding in ["ipip", "gue"] {
        let lab = Lab::builder().clients_behind_gateway().decapsulating().backends(1).build()?;
        let _server = HttpServer::start(lab.backend(0), &[PORT])?;
        let node = lab.balancer(0);
        for vip in VIPS {
            let gateway = lab.gateway().leg(Segment::Front).address(vip);
            node.ip("a way to the VIP", [format!("route add {vip} via {gateway}")])?;
        }
        let head = format!("{ANNOUNCE}table = 1000\n");
        let health = format!("{CHECKED}\nvia = \"vip\"");
        let text = config(&lab, &head, &health, &[]).replace("l2-dsr", forwarding);
        let daemon = Daemon::start(&lab, 0, &text)?;
        wait_announced(node, true)?;
        try_wait_until("checks over the VIP pass", SOON, || {
            daemon.status_json().map(|status| {
                let services = status["services"].as_array().into_iter().flatten();
                services
                    .flat_map(|service| service["backends"].as_array().into_iter().flatten())
                    .all(|backend| backend["health"] == "healthy")
            })
        })
        .with_context(|| format!("{forwarding}: {:?}", daemon.cli_checked(["status"])))?;
        let router = Bird::on_router(&lab)?;
        let _bird = Bird::on_balancer_with(&lab, 0, &[("  learn;\n", "  learn;\n  kernel table 1000;\n")])?;
        for vip in VIPS {
            try_wait_until("requests pass by what BIRD says", 2 * SOON, || {
                http_get(lab.client(0), None, (vip, PORT).into(), "/", SECOND)
                    .map(|reply| reply.status == 200)
            })
            .with_context(|| format!("{forwarding} to {vip}: {:?}", router.ask("show route")))?;
        }
    }
    Ok(())
}
