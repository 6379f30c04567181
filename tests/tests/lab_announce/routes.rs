//! Whose routes are whose, and what becomes of them when the daemon or its settings do.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, Lab, LiveServers, VIP_V4, VIP_V6, let_pass, require_root, try_all, try_wait_until,
};

use crate::scene::{
    ANNOUNCE, CHECKED, Monitor, PORT, PROTOCOL, SECOND, SOON, UNCHECKED, VIPS, announces, config, route,
    told, wait_announced, wait_withdrawn,
};

fn lab() -> Result<(Lab, LiveServers)> {
    let lab = Lab::builder().backends(1).build()?;
    let servers = LiveServers::start(lab.backends(), PORT)?;
    Ok((lab, servers))
}

#[test]
fn a_restart_takes_the_routes_over_and_nobody_hears_of_it() -> Result<()> {
    require_root!(Ok(()));
    let (lab, _servers) = lab()?;
    let node = lab.balancer(0);
    let mut daemon = Daemon::start(&lab, 0, &config(&lab, ANNOUNCE, CHECKED, &[]))?;
    wait_announced(node, true)?;
    for vip in VIPS {
        let route = route(node, vip)?.context("a route")?;
        assert_eq!((&route["type"], &route["metric"]), (&"blackhole".into(), &20_000.into()), "{route}");
    }
    let monitor = Monitor::start(node)?;
    daemon.kill9()?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    try_wait_until("the daemon says that they are announced", SOON, || {
        try_all(VIPS, |vip| Ok(told(&daemon, vip)?["announced"] == true))
    })?;
    // Longer than anything would take that is wrong at first.
    let_pass(SECOND);
    ensure!(daemon.sigterm()?.success());
    ensure!(VIPS.iter().all(|vip| announces(node, *vip).unwrap_or(false)), "they stay when it stops");
    assert_eq!(monitor.about_vips(), [""; 0]);

    // What it serves no more it announces no more, and what somebody took away it puts back.
    let one = config(&lab, ANNOUNCE, CHECKED, &[]);
    let one = one.split("[[service]]\nname = \"web6\"").next().context("a service")?;
    daemon.write_config(one)?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    try_wait_until("the other is gone", SOON, || announces(node, VIP_V6).map(|there| !there))?;
    ensure!(announces(node, VIP_V4)?);
    node.ip("take a route away", [format!("route del blackhole {VIP_V4} metric 20000")])?;
    try_wait_until("it is back", SOON, || announces(node, VIP_V4))?;

    // Nobody forwards after this.
    ensure!(daemon.sigterm()?.success());
    let files = daemon.files().config.display().to_string();
    let printed = daemon.cli_checked(["detach", "--config", &files])?;
    ensure!(printed.contains("withdrew") && !announces(node, VIP_V4)?, "{printed}");
    Ok(())
}

#[test]
fn routes_go_with_the_maps_and_stay_while_a_fleets_services_are_waited_for() -> Result<()> {
    require_root!(Ok(()));
    let (lab, _servers) = lab()?;
    let node = lab.balancer(0);
    let text = config(&lab, ANNOUNCE, CHECKED, &[]);
    let mut daemon = Daemon::start(&lab, 0, &text)?;
    wait_announced(node, true)?;
    let monitor = Monitor::start(node)?;

    // The maps are there and forwarded by, and nobody says yet for which VIPs.
    daemon.kill9()?;
    let host = text.split("[[service]]").next().context("what is before the services")?;
    let nobody = "[fleet]\nendpoints = [\"http://127.0.0.1:1\"]\n";
    daemon.write_config(&format!("{host}\n{nobody}"))?;
    daemon.launch()?;
    try_wait_until("it waits for etcd", SOON, || {
        daemon.status_json().map(|status| status["fleet"]["connected"] == false)
    })?;
    let_pass(SECOND);
    assert_eq!(monitor.about_vips(), [""; 0]);
    daemon.cli_checked(["status", "--ready"])?;
    let said = daemon.cli_checked(["announce", "status", "-o", "json"])?;
    ensure!(
        serde_json::from_str::<serde_json::Value>(&said)?.is_object(),
        "it does announce, and not {said}"
    );

    // New maps have no backends yet: whoever is sent here meanwhile is lost.
    daemon.kill9()?;
    std::fs::remove_dir_all(&daemon.files().pin_dir)?;
    daemon.write_config(&text)?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    try_wait_until("the VIPs are announced again", SOON, || {
        try_all(VIPS, |vip| Ok(told(&daemon, vip)?["announced"] == true))
    })?;
    let heard = monitor.about_vips();
    for vip in VIPS {
        let of_vip = |line: &&String| line.contains(&vip.to_string());
        ensure!(heard.iter().filter(of_vip).count() == 2, "withdrawn and announced, and not {heard:?}");
        ensure!(heard.iter().find(of_vip).is_some_and(|first| first.contains("Deleted")), "{heard:?}");
    }
    Ok(())
}

#[test]
fn somebody_elses_route_is_left_alone_and_named() -> Result<()> {
    require_root!(Ok(()));
    let (lab, _servers) = lab()?;
    let node = lab.balancer(0);
    let theirs = VIPS.map(|vip| format!("route add blackhole {vip} metric 20000 proto static"));
    node.ip("routes of somebody else", theirs)?;
    let shown = || -> Result<String> {
        let [v4, v6] =
            ["-4", "-6"].map(|family| node.run("ip", [family, "route", "show", "proto", "static"]));
        Ok(v4?.stdout + &v6?.stdout)
    };
    let before = shown()?;
    let daemon = Daemon::start(&lab, 0, &config(&lab, ANNOUNCE, CHECKED, &[]))?;
    for vip in VIPS {
        let says = wait_withdrawn(&daemon, vip, "foreign_route")?;
        ensure!(says.contains("metric 20000"), "{says}");
    }
    let status = daemon.cli_checked(["status"])?;
    ensure!(status.contains("203.0.113.10 IS NOT ANNOUNCED"), "{status}");
    assert_eq!(
        daemon.metric("ballast_announce_withdrawn{vip=\"203.0.113.10\",reason=\"foreign_route\"}")?,
        1.0
    );
    daemon.cli_checked(["announce", "off"])?;
    wait_withdrawn(&daemon, VIP_V4, "administrator")?;
    daemon.cli_checked(["announce", "on"])?;
    assert_eq!(shown()?, before);
    // Its place is taken when it is free.
    node.ip("they go", [format!("route del blackhole {VIP_V4} metric 20000 proto static")])?;
    try_wait_until("it is announced", SOON, || announces(node, VIP_V4))
}

/// Two daemons with one number would do that to each other for ever.
#[test]
fn somebody_who_makes_routes_with_the_same_number_is_noticed() -> Result<()> {
    require_root!(Ok(()));
    let (lab, _servers) = lab()?;
    let node = lab.balancer(0);
    let daemon = Daemon::start(&lab, 0, &config(&lab, ANNOUNCE, CHECKED, &[]))?;
    wait_announced(node, true)?;
    let theirs: IpAddr = [198, 51, 100, 7].into();
    for _ in 0..4 {
        node.ip(
            "as a rival does",
            [
                format!("route add blackhole {theirs} metric 20000 proto {PROTOCOL}"),
                format!("route del blackhole {VIP_V4} metric 20000 proto {PROTOCOL}"),
            ],
        )?;
        try_wait_until("each has its own", SOON, || {
            Ok(announces(node, VIP_V4)? && !announces(node, theirs)?)
        })?;
    }
    try_wait_until("it is told", SOON, || {
        daemon.cli_checked(["announce", "status"]).map(|told| told.contains("somebody else makes routes"))
    })?;
    assert_eq!(daemon.metric("ballast_announce_trouble")?, 1.0);
    Ok(())
}

#[test]
fn a_reload_makes_routes_as_it_says_now_and_removes_those_of_before() -> Result<()> {
    require_root!(Ok(()));
    let (lab, _servers) = lab()?;
    let node = lab.balancer(0);
    let daemon = Daemon::start(&lab, 0, &config(&lab, ANNOUNCE, CHECKED, &[]))?;
    wait_announced(node, true)?;
    let reload = |head: &str| -> Result<()> {
        daemon.write_config(&config(&lab, head, CHECKED, &[]))?;
        daemon.reload()
    };
    let wait_route = |what: &str, is: &dyn Fn(&serde_json::Value) -> bool| {
        try_wait_until(what, SOON, || try_all(VIPS, |vip| Ok(route(node, vip)?.as_ref().is_some_and(is))))
    };
    reload("[announce]\nmetric = 7\ntable = 1000\n")?;
    wait_route("they are elsewhere", &|route| route["metric"] == 7 && route["table"] == "1000")?;
    node.ip("a device", ["link add vip0 type veth peer name vip1", "link set vip0 up", "link set vip1 up"])?;
    reload("[announce]\nmetric = 7\ntable = 1000\ndevice = \"vip0\"\n")?;
    wait_route("they lead to a device", &|route| route["dev"] == "vip0" && route["type"] == "unicast")?;
    // The kernel takes them along without a word.
    node.ip("the device goes down", ["link set vip0 down"])?;
    wait_withdrawn(&daemon, VIP_V4, "route_refused")?;
    node.ip("the device comes up", ["link set vip0 up"])?;
    wait_announced(node, true)?;
    let of = |protocol: &str| -> Result<String> {
        let [v4, v6] = ["-4", "-6"]
            .map(|family| node.run("ip", [family, "route", "show", "table", "all", "proto", protocol]));
        Ok(v4?.stdout + &v6?.stdout)
    };
    reload("[announce]\nprotocol = 200\n")?;
    wait_announced(node, false)?;
    try_wait_until("they have the other number", SOON, || {
        of("200").map(|routes| routes.lines().count() == 2)
    })?;
    reload("")?;
    try_wait_until("they are gone", SOON, || of("200").map(|routes| routes.is_empty()))?;
    let printed = daemon.cli_checked(["announce", "status"])?;
    ensure!(printed.contains("nothing is announced"), "{printed}");
    let refused = daemon.cli(["announce", "off"])?;
    ensure!(
        refused.status.code() == Some(1) && refused.stderr.contains("announces nothing"),
        "{}",
        refused.stderr
    );
    Ok(())
}

#[test]
fn a_device_that_is_not_there_keeps_no_route_that_should_go() -> Result<()> {
    require_root!(Ok(()));
    let (lab, _servers) = lab()?;
    let node = lab.balancer(0);
    let daemon = Daemon::start(&lab, 0, &config(&lab, ANNOUNCE, UNCHECKED, &[]))?;
    wait_announced(node, true)?;
    daemon.write_config(&config(&lab, &format!("{ANNOUNCE}device = \"nowhere\"\n"), UNCHECKED, &[]))?;
    daemon.reload()?;
    daemon.cli_checked(["announce", "off", &VIP_V4.to_string()])?;
    wait_withdrawn(&daemon, VIP_V4, "administrator")?;
    // What should stay stays as it was.
    ensure!(announces(node, VIP_V6)?);
    daemon.cli_checked(["announce", "on"])?;
    let says = wait_withdrawn(&daemon, VIP_V4, "route_refused")?;
    ensure!(says.contains("nowhere"), "{says}");
    Ok(())
}
