//! The load balancer's own links: what failed checks say of backends while it has none.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, HttpServer, Lab, Node, Segment, Service, VIP_V4, VIP_V6, http_get, let_pass, require_root,
    try_wait_until, wait_until,
};
use serde_json::Value;

use crate::scene::SOON;

/// A dead backend is unhealthy after 0.6 s, and wrong verdicts would last.
const QUICK: &str = "interval = \"200ms\"\ntimeout = \"200ms\"\nrise = 5\nfall = 2";
const FALL: Duration = Duration::from_millis(600);
/// Of a link that is back, as docs/health-checks.md has it.
const SETTLE: Duration = Duration::from_secs(1);
/// On a machine that is busy with other tests everything is later.
const SLACK: Duration = Duration::from_secs(2);
const VIPS: [IpAddr; 2] = [VIP_V4, VIP_V6];
const PORTS: [u16; 4] = [80, 81, 82, 83];
const HELD: &str = "no interface has a link";
const COUNTS: &str = "failed health checks count as ever";

struct Scene {
    daemon: Daemon,
    _servers: Vec<HttpServer>,
    lab: Lab,
}

impl Scene {
    /// Services of both families, each checked in another way, with a link.
    fn new(backends: u16) -> Result<Self> {
        let scene = Self::start(backends, QUICK, |_| Ok(()))?;
        scene.wait("healthy", |_| true)?;
        Ok(scene)
    }

    /// The same; the daemon is started after `prepare`.
    fn start(backends: u16, pace: &str, prepare: fn(&Lab) -> Result<()>) -> Result<Self> {
        let lab = Lab::builder().backends(backends).build()?;
        let node = lab.balancer(0);
        lab.vips().iter().try_for_each(|vip| node.route_vip_to(*vip, lab.client(0)))?;
        let servers =
            lab.backends().map(|node| HttpServer::start(node, &PORTS)).collect::<Result<Vec<_>>>()?;
        prepare(&lab)?;
        let daemon = Daemon::start(&lab, 0, &config(&lab, pace))?;
        Ok(Self { daemon, _servers: servers, lab })
    }

    /// The load balancer's link, at the switch: it loses the carrier, and nobody tells it.
    fn link(&self, state: &str) -> Result<()> {
        set(&self.lab, self.lab.balancer(0), Segment::Front, state)
    }

    fn status(&self) -> Result<Value> {
        self.daemon.status_json()
    }

    /// Waits until these backends of all services have this health.
    fn wait(&self, health: &str, which: impl Fn(&str) -> bool) -> Result<()> {
        try_wait_until(&format!("backends are {health}"), SOON, || {
            let mut backends = backends(&self.status()?).into_iter().peekable();
            Ok(backends.peek().is_some()
                && backends
                    .filter(|one| which(one["name"].as_str().unwrap_or_default()))
                    .all(|one| one["health"] == health))
        })
        .with_context(|| format!("{:?}", self.daemon.cli_checked(["status"])))
    }

    fn is_held(&self) -> Result<bool> {
        Ok(self.status()?["checks_held"].is_string())
    }

    fn checks_are_held(&self) -> Result<()> {
        try_wait_until("checks are held", SOON, || self.is_held())
    }

    fn checks_count(&self) -> Result<()> {
        try_wait_until("checks count again", SOON, || Ok(!self.is_held()?))
    }

    fn fingerprints(&self) -> Result<Vec<String>> {
        let services = services(&self.status()?);
        Ok(services.iter().map(|service| service["fingerprint"].to_string()).collect())
    }

    fn tracked_slots(&self) -> Result<f64> {
        self.daemon.metric("ballast_tracked_slots")
    }

    /// Has the link come back, and all backends into the first tables, soon after it has settled.
    fn all_come_together(&self, pace: &str, settles: Duration) -> Result<()> {
        self.link("up")?;
        let up = Instant::now();
        self.wait("healthy", |_| true)?;
        let took = up.elapsed();
        println!("{}: all are healthy {took:?} after the link is there", pace.replace('\n', ", "));
        ensure!(took <= settles + SLACK, "healthy after {took:?}");
        try_wait_until("all have traffic", SOON, || {
            Ok(backends(&self.status()?).iter().all(|one| one["share"] == 0.25))
        })?;
        let_pass(FALL);
        assert_eq!((self.falls(), self.tracked_slots()?), (0, 0.0), "{pace}: {}", self.daemon.log());
        Ok(())
    }

    /// How many backends became unhealthy so far, by the log.
    fn falls(&self) -> usize {
        self.daemon.log().matches(" is unhealthy:").count()
    }
}

fn services(status: &Value) -> Vec<Value> {
    status["services"].as_array().cloned().unwrap_or_default()
}

fn backends(status: &Value) -> Vec<Value> {
    services(status)
        .iter()
        .flat_map(|service| service["backends"].as_array().cloned().unwrap_or_default())
        .collect()
}

fn set(lab: &Lab, node: &Node, segment: Segment, state: &str) -> Result<()> {
    lab.switch().ip("a link", [format!("link set {} {state}", node.leg(segment).port)])
}

fn config(lab: &Lab, pace: &str) -> String {
    let checks = [
        ("http", "type = \"http\"\npath = \"/healthz\""),
        ("tcp", "type = \"tcp\""),
        ("echo", "type = \"icmp\""),
        ("via", "type = \"http\"\npath = \"/healthz\"\nvia = \"vip\""),
    ];
    let mut text = String::new();
    for vip in VIPS {
        for ((kind, check), port) in checks.into_iter().zip(PORTS) {
            let (name, to) =
                (format!("{kind}-{}", if vip.is_ipv4() { 4 } else { 6 }), SocketAddr::new(vip, port));
            let service = Service::new(&name, to, "tcp", "l2-dsr").health(&format!("{check}\n{pace}"));
            text += &service.nodes(lab.backends(), to).toml();
        }
    }
    text
}

#[test]
fn a_link_that_flaps_makes_no_backend_unhealthy_and_changes_no_table() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(3)?;
    let before = scene.fingerprints()?;
    ensure!(before.len() == 8 && scene.falls() == 0 && !scene.is_held()?, "{before:?}");
    for (round, dark) in [(1, 1_500), (2, 100)] {
        let down = Instant::now();
        scene.link("down")?;
        if round == 1 {
            scene.checks_are_held()?;
            let told = scene.daemon.cli_checked(["status"])?;
            ensure!(told.contains("FAILED HEALTH CHECKS DON'T COUNT") && told.contains(HELD), "{told}");
        }
        let_pass(Duration::from_millis(dark).saturating_sub(down.elapsed()));
        scene.link("up")?;
        let up = Instant::now();
        for (vip, port) in VIPS.into_iter().flat_map(|vip| PORTS.map(|port| (vip, port))) {
            wait_until("requests are answered", SOON, || {
                http_get(scene.lab.client(0), None, (vip, port).into(), "/", SETTLE / 10)
                    .is_ok_and(|reply| reply.status == 200)
            })?;
        }
        let answered = up.elapsed();
        ensure!(answered <= SETTLE + SLACK, "answered after {answered:?}");
        scene.checks_count()?;
        println!(
            "a link down for {:?}: answered {answered:?} after it, checks count after {:?}, revision {}",
            up - down,
            up.elapsed(),
            scene.status()?["revision"]
        );
        // Whatever would have been found by now has been.
        let_pass(2 * FALL);
        scene.wait("healthy", |_| true)?;
        assert_eq!(scene.falls(), 0, "{}", scene.daemon.log());
        assert_eq!((scene.fingerprints()?, scene.tracked_slots()?), (before.clone(), 0.0));
        let log = scene.daemon.log();
        assert_eq!(log.matches(COUNTS).count(), round, "{log}");
        assert_eq!(log.matches("failed health checks ").count(), 2 * round, "{log}");
        ensure!(!log.contains("can't be checked"), "{log}");
    }
    ensure!(scene.daemon.metric("ballast_health_checks_held_total")? > 0.0, "none was held");
    Ok(())
}

#[test]
fn a_backend_that_died_while_the_link_was_down_is_found_soon_after() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(3)?;
    scene.link("down")?;
    scene.checks_are_held()?;
    set(&scene.lab, scene.lab.backend(1), Segment::Front, "down")?;
    let_pass(2 * FALL);
    assert_eq!(scene.falls(), 0, "{}", scene.daemon.log());
    scene.link("up")?;
    let up = Instant::now();
    scene.wait("unhealthy", |name| name == "backend1")?;
    let took = up.elapsed();
    println!("found {took:?} after the link was back");
    ensure!(took <= SETTLE + FALL + SLACK, "found after {took:?}");
    let_pass(2 * FALL);
    scene.wait("healthy", |name| name != "backend1")?;
    assert_eq!(scene.falls(), 8, "{}", scene.daemon.log());
    Ok(())
}

#[test]
fn while_one_of_two_interfaces_has_a_link_checks_count_as_ever() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).clients_behind_gateway().two_armed().build()?;
    let server = lab.backends().map(|node| HttpServer::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let to = (VIP_V4, 80).into();
    let check = format!("type = \"http\"\npath = \"/healthz\"\n{QUICK}");
    let text = Service::new("web", to, "tcp", "l2-dsr").health(&check).nodes(lab.backends(), to).toml();
    let daemon = Daemon::start(&lab, 0, &text)?;
    let scene = Scene { daemon, _servers: server, lab };
    scene.wait("healthy", |_| true)?;
    let (lab, node) = (&scene.lab, scene.lab.balancer(0));
    set(lab, node, Segment::Back, "down")?;
    let down = Instant::now();
    scene.wait("unhealthy", |_| true)?;
    ensure!(down.elapsed() <= FALL + SLACK, "found after {:?}", down.elapsed());
    ensure!(!scene.daemon.log().contains(HELD) && !scene.is_held()?, "{}", scene.daemon.log());
    // The other one as well, and nobody knows anything any more.
    set(lab, node, Segment::Front, "down")?;
    scene.checks_are_held()?;
    set(lab, node, Segment::Back, "up")?;
    scene.checks_count()?;
    scene.wait("healthy", |_| true)
}

#[test]
fn a_first_start_without_a_link_makes_one_table_of_all_when_there_is_one() -> Result<()> {
    require_root!(Ok(()));
    for pace in [
        // Next checks would come one by one, much later than the first table waits for.
        "interval = \"10s\"\ntimeout = \"1s\"\nfall = 2",
        // Some come as soon as there is a link, and pass before the others are reached.
        "interval = \"1s\"\ntimeout = \"500ms\"\nfall = 3",
        // Those under way end much later.
        "interval = \"10s\"\ntimeout = \"5s\"\nfall = 2",
    ] {
        let scene = Scene::start(4, pace, |lab| set(lab, lab.balancer(0), Segment::Front, "down"))?;
        scene.checks_are_held()?;
        let_pass(FALL);
        let unknown = |one: &Value| one["health"] == "unknown" && one["share"] == 0.0;
        let found = backends(&scene.status()?);
        ensure!(found.len() == 32 && found.iter().all(unknown), "{found:?}");
        scene.all_come_together(pace, SETTLE)?;
    }
    Ok(())
}

#[test]
fn a_start_without_a_link_waits_for_addresses_as_well() -> Result<()> {
    require_root!(Ok(()));
    let pace = "interval = \"400ms\"\ntimeout = \"400ms\"\nfall = 2";
    let scene = Scene::start(4, pace, |lab| {
        let (node, leg) = (lab.balancer(0), lab.balancer(0).leg(Segment::Front));
        set(lab, node, Segment::Front, "down")?;
        // IPv6 starts anew, and asks for a second or more, twice, whether somebody has the address.
        let settings =
            [("accept_dad", "1"), ("dad_transmits", "2"), ("disable_ipv6", "1"), ("disable_ipv6", "0")];
        for (key, value) in settings {
            node.sysctl(&format!("net.ipv6.conf.{}.{key}", leg.interface), value)?;
        }
        node.ip("an address", [format!("address add {}/64 dev {}", leg.ipv6, leg.interface)])?;
        node.route_vip_to(VIP_V6, lab.client(0))
    })?;
    scene.checks_are_held()?;
    let_pass(FALL);
    scene.all_come_together(pace, 4 * SETTLE)
}
