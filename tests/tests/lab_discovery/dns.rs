//! Addresses of a name that BIND serves.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use lb_tests::lab::{Lab, require_root, try_wait_until};

use crate::bind::{Bind, NAME};
use crate::scene::{HELD, SOON, Scene, service};

/// The service has the backends of the name, that this server serves. Answers hold for a second or two.
fn config(lab: &Lab, server: usize, line: &str) -> String {
    let resolver = lab.backend(server).ipv4();
    let discovery =
        format!("[discovery]\nresolvers = [\"{resolver}\"]\ntimeout = \"1s\"\nforget_after = 2\n{line}\n\n");
    format!("{discovery}{}\n[[service.dns]]\nname = \"{NAME}\"\n", service().toml())
}

fn addresses(lab: &Lab, numbers: &[usize]) -> Vec<IpAddr> {
    numbers.iter().map(|number| lab.backend(*number).ipv4().into()).collect()
}

#[test]
fn backends_follow_the_dns_and_its_death_takes_none_away_not_even_over_a_restart() -> Result<()> {
    require_root!(Ok(()));
    // The last one serves names.
    let lab = Lab::builder().backends(4).build()?;
    let mut bind = Bind::start(lab.backend(3), 1, &addresses(&lab, &[0, 1]))?;
    let text = config(&lab, 3, "");
    let mut scene = Scene::new(lab, &text)?;
    scene.wait_backends(&[0, 1])?;
    scene.clients.open(HELD)?;
    let shown = scene.daemon.cli_checked(["service", "show", "web"])?;
    ensure!(shown.contains(&format!("dns {NAME}:80: 2 found")), "{shown}");
    bind.change(&addresses(&scene.lab, &[2, 1, 0]))?;
    scene.wait_backends(&[0, 1, 2])?;
    assert_eq!(scene.opened()?, ["backend0", "backend1", "backend2"]);
    let before = scene.fingerprint()?;

    bind.kill()?;
    scene.wait_trouble(Some(":53"))?;
    scene.wait_metric("ballast_discovery_failures_total", |value| value >= 2.0)?;
    assert_eq!(scene.fingerprint()?, before, "without a server");
    scene.restart()?;
    assert_eq!(scene.fingerprint()?, before, "after a start without a server");
    scene.nothing_broke("after a start without a server")?;
    assert_eq!(scene.opened()?, ["backend0", "backend1", "backend2"]);
    scene.wait_trouble(Some(":53"))?;

    // The name is gone, and then it has no address: neither is an answer to live by.
    bind.restart(&[])?;
    scene.wait_trouble(Some("nxdomain"))?;
    bind.change(&["2001:db8::1".parse()?])?;
    scene.wait_trouble(Some("no A record"))?;
    assert_eq!(scene.fingerprint()?, before, "without an address");

    // One that the answers leave out drains: its connections go on, and it gets no new ones. It comes back.
    bind.change(&addresses(&scene.lab, &[1, 2]))?;
    scene.wait_backends(&[1, 2])?;
    scene.wait_trouble(None)?;
    assert_eq!(scene.opened()?, ["backend1", "backend2"]);
    scene.nothing_broke("while one drains")?;
    let leaving = scene.service()?["leaving"].clone();
    ensure!(leaving[0]["name"] == scene.name(0), "{leaving}");
    bind.change(&addresses(&scene.lab, &[0, 1, 2]))?;
    scene.wait_backends(&[0, 1, 2])?;
    assert_eq!(scene.fingerprint()?, before, "with all of them again");
    scene.nothing_broke("at the end")?;
    scene.daemon.accounts().map(drop)
}

#[test]
fn an_answer_that_a_datagram_can_not_hold_is_taken_whole_and_one_of_too_many_is_not_taken() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    // Not 30 fit without EDNS. Nobody is at most of them, which the health check finds out.
    let many = |count: u16| -> Vec<IpAddr> {
        let nobody = (0..count).map(|number| IpAddr::from([10, 77, (number >> 8) as u8, number as u8]));
        nobody.chain(addresses(&lab, &[0])).collect()
    };
    let (whole, too_many, few) = (many(39), many(60), many(1));
    let mut bind = Bind::start(lab.backend(1), 1, &whole)?;
    // Everything is on this network, as far as the load balancer knows.
    lab.balancer(0).run("ip", ["route", "add", "10.77.0.0/16", "dev", "eth0"])?;
    let text = config(&lab, 1, "max_backends = 50");
    let mut scene = Scene::new(lab, &text)?;
    scene.wait_backends(&[0])?;
    assert_eq!(scene.discovery()?["backends"], 40);
    scene.clients.open(HELD)?;
    bind.change(&too_many)?;
    scene.wait_trouble(Some("it has 61 addresses, and `discovery.max_backends` is 50"))?;
    assert_eq!(scene.discovery()?["backends"], 40);
    bind.change(&few)?;
    scene.wait_trouble(None)?;
    try_wait_until("the others are gone", SOON, || scene.discovery().map(|now| now["backends"] == 2))?;
    scene.nothing_broke("at the end")?;
    scene.daemon.accounts().map(drop)
}
