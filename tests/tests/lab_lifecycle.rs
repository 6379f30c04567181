//! The daemon starts, dies, reloads, meets others and loses its interface, and forwarding does not notice.
//!
//! Every loss that is asserted to be 0 was 0 before, in a control run at the same rate without the fault.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lb_common::abi::{ABI_VERSION, names};
use lb_tests::lab::programs::reflect;
use lb_tests::lab::{
    Assembler, Daemon, Kind, Lab, Node, Program, Register, Service, TcpServer, UdpReport, UdpServer,
    UdpTraffic, VIP_V4, VIP_V6, connect, exchange, require_root, try_wait_for, try_wait_until, wait_until,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);
const FAMILIES: [IpAddr; 2] = [VIP_V4, VIP_V6];
const PORT: u16 = 53;
/// Clients, each a flow.
const FLOWS: u16 = 64;

#[test]
fn controller_gone_killed_or_stopped_and_started_again_loses_no_packet_and_no_count() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(3).build()?;
    let servers = serve_udp(&lab)?;
    // The third backend fails its check: what the first daemon found out, the second has to know.
    let _checked = [TcpServer::start(lab.backend(0), &[7])?, TcpServer::start(lab.backend(1), &[7])?];
    let check = "type = \"tcp\"\nport = 7\ninterval = \"100ms\"\nrise = 2\nfall = 3";
    let config: String = FAMILIES.map(|vip| service(&lab, vip, &[1, 1, 1]).health(check).toml()).concat();
    let mut daemon = Daemon::start(&lab, 0, &config)?;
    let expected = ["healthy", "healthy", "unhealthy"];
    try_wait_until("health is known", SOON, || {
        daemon.status_json().map(|status| (0..2).all(|at| health(&status, at) == expected))
    })?;
    for (at, vip) in FAMILIES.into_iter().enumerate() {
        let (traffic, control) = calm(&lab, vip, 2 * SECOND)?;
        assert!(!control.by_backend.contains_key("backend2"), "{:?}", control.by_backend);
        let before = daemon.status_json()?;
        let report = thread::scope(|scope| {
            let run = scope.spawn(|| traffic.run(lab.client(0), 60_000));
            let start = received(&servers);
            wait_until("a quarter has arrived", SOON, || received(&servers) >= start + 15_000)?;
            let at_the_end = daemon.status_json()?;
            if at == 0 {
                daemon.kill9()?;
            } else {
                assert!(daemon.sigterm()?.success(), "SIGTERM is a clean end");
            }
            let without_daemon = received(&servers);
            wait_until("packets flow without a daemon", SOON, || {
                received(&servers) > without_daemon + 2_000
            })?;
            daemon.launch()?;
            daemon.wait_ready(SOON)?;
            let restarted = daemon.status_json()?;
            ensure!(received(&servers) < start + 60_000, "the traffic was over before the daemon was back");
            for (number, _) in FAMILIES.iter().enumerate() {
                assert_eq!(health(&restarted, number), expected, "the restarted daemon forgot what it knew");
                assert_eq!(
                    fingerprint(&restarted, number),
                    fingerprint(&at_the_end, number),
                    "slots changed"
                );
            }
            let (old, new) = (counters(&at_the_end)?, counters(&restarted)?);
            for (name, count) in &old {
                assert!(new.get(name) >= Some(count), "{name} fell from {count} to {:?}", new.get(name));
            }
            run.join().ok().context("the traffic panicked")?
        })?;
        assert_nothing_lost(&report, 60_000);
        assert_eq!(report.by_flow, control.by_flow, "a client was moved");
        daemon.accounts()?;
        let (before, after) = (counters(&before)?, counters(&daemon.status_json()?)?);
        let grown =
            |name: &str| after.get(name).copied().unwrap_or(0) - before.get(name).copied().unwrap_or(0);
        let name = service_name(vip);
        assert_eq!(grown(&name), 60_000, "{name}");
        for backend in lab.backends().map(Node::label) {
            let answered = report.by_backend.get(&backend).copied().unwrap_or_default();
            assert_eq!(grown(&format!("{name}/{backend}")), answered, "{name}/{backend}");
        }
    }
    Ok(())
}

#[test]
fn detach_is_refused_while_the_daemon_runs_and_then_leaves_the_host_as_it_was() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().balancers_own_vips().build()?;
    let _servers = serve_udp(&lab)?;
    let _host = UdpServer::start(lab.balancer(0), &[PORT])?;
    let mut daemon = Daemon::start(&lab, 0, &service(&lab, VIP_V4, &[1, 1]).toml())?;
    let config = daemon.files().config.display().to_string();
    let (traffic, control) = calm(&lab, VIP_V4, SECOND)?;

    let refused = daemon.cli(["detach", "--config", &config])?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("in use by another ballast daemon (pid "), "{}", refused.stderr);
    let report = traffic.run(lab.client(0), 2_000)?;
    assert_nothing_lost(&report, 2_000);
    assert_eq!(report.by_flow, control.by_flow);

    assert!(daemon.sigterm()?.success());
    let report = traffic.run(lab.client(0), 2_000)?;
    assert_nothing_lost(&report, 2_000);
    assert_eq!(report.by_flow, control.by_flow, "without a daemon");
    let unreachable = daemon.cli(["status"])?;
    assert_eq!(unreachable.status.code(), Some(3), "{}", unreachable.stderr);

    let detached = daemon.cli_checked(["detach", "--config", &config])?;
    assert!(detached.contains("detached from eth0"), "{detached}");
    assert_eq!(lab.balancer(0).xdp_program("eth0")?, None);
    assert!(!daemon.files().pin_dir.exists(), "pins are left");
    let report = traffic.run(lab.client(0), 2_000)?;
    assert_eq!(report.by_backend, [("lb0".to_owned(), 2_000)].into(), "packets are the host's again");
    let again = daemon.cli_checked(["detach", "--config", &config])?;
    assert!(again.contains("nothing to detach"), "{again}");
    Ok(())
}

#[test]
fn a_hundred_reloads_under_traffic_lose_nothing() -> Result<()> {
    require_root!(Ok(()));
    reload_under_traffic(100, &[6_000, 3_000]).map(drop)
}

#[test]
#[ignore = "long: a thousand reloads, and how long they take"]
fn a_thousand_reloads_under_the_highest_rate_that_loses_nothing_lose_nothing_and_take_no_time() -> Result<()>
{
    require_root!(Ok(()));
    let mut took = reload_under_traffic(1_000, &[60_000, 40_000, 25_000, 15_000, 10_000, 6_000, 3_000])?;
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    eprintln!("half of the reloads took {:?}, 99 of a hundred {p99:?}", took[took.len() / 2]);
    ensure!(p99 <= Duration::from_millis(250), "one of a hundred reloads took {p99:?} and longer");
    Ok(())
}

/// Reloads alternating configurations while both families have as much traffic as loses nothing without them, and tells how
/// long each took.
fn reload_under_traffic(count: usize, rates: &[u32]) -> Result<Vec<Duration>> {
    let lab = Lab::builder().backends(4).build()?;
    let _servers = serve_udp(&lab)?;
    // A backend comes and goes, and weights change.
    let shapes: [&[u32]; 4] = [&[1, 1, 1], &[1, 1, 1, 1], &[3, 1, 1, 1], &[1, 2, 5]];
    let config = |shape: &[u32]| -> String { FAMILIES.map(|vip| service(&lab, vip, shape).toml()).concat() };
    let daemon = Daemon::start(&lab, 0, &config(shapes[3]))?;
    let traffic = calm_together(&lab, &daemon, count / 20, rates)?;
    let runs = traffic.each_ref().map(|traffic| traffic.start(lab.client(0)));
    let mut revision = revision_of(&daemon.status_json()?);
    let (mut took, mut seen) = (Vec::new(), Vec::new());
    for number in 0..count {
        daemon.write_config(&config(shapes[number % shapes.len()]))?;
        let began = Instant::now();
        daemon.reload()?;
        took.push(began.elapsed());
        if number % 20 == 0 {
            seen.push(fingerprint(&daemon.status_json()?, 0).to_owned());
        }
    }
    let status = daemon.status_json()?;
    revision = revision_of(&status) - revision;
    assert!(revision >= count as u64, "{count} changes made {revision} revisions");
    assert_eq!(status.pointer("/services/0/backends").and_then(Value::as_array).map(Vec::len), Some(3));
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "the same file gives the same table: {seen:?}");
    let mut sent = 0;
    for run in runs {
        let report = run?.finish()?;
        assert_eq!((report.lost.len(), report.refused, report.duplicates), (0, 0, 0), "of {}", report.sent);
        // Its flows drain from the backend that goes, and nobody moves to the one that comes.
        let stayed = report.by_flow.iter().filter(|backends| backends.len() == 1).count();
        assert_eq!(stayed, usize::from(FLOWS), "flows that kept their backend");
        sent += report.sent;
    }
    assert!(sent > 1_000, "there was traffic");
    daemon.accounts()?;
    Ok(took)
}

/// The control run for both families at once: each gets half of the highest of these rates at which nothing is lost while
/// so many reloads change nothing. They take the clients and servers as much of the two processors as those that do.
fn calm_together(lab: &Lab, daemon: &Daemon, reloads: usize, rates: &[u32]) -> Result<[UdpTraffic; 2]> {
    for rate in rates {
        let traffic = FAMILIES.map(|vip| {
            let sources = (0..FLOWS).map(|number| lab.client(0).source_port(number, 4000, vip));
            UdpTraffic::new(sources, SocketAddr::new(vip, PORT)).rate(rate / 2)
        });
        let runs = traffic.each_ref().map(|traffic| traffic.start(lab.client(0)));
        for _ in 0..reloads {
            daemon.reload()?;
        }
        let mut lost = 0;
        for run in runs {
            lost += run?.finish()?.lost.len();
        }
        if lost == 0 {
            eprintln!("control run: nothing lost at {rate}/s");
            return Ok(traffic);
        }
        eprintln!("control run: {lost} lost at {rate}/s");
    }
    bail!("packets are lost without any fault")
}

#[test]
fn a_second_daemon_is_refused_within_a_second_and_the_first_goes_on() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let _servers = serve_udp(&lab)?;
    let mut daemon = Daemon::start(&lab, 0, &service(&lab, VIP_V4, &[1, 1]).toml())?;
    let (traffic, control) = calm(&lab, VIP_V4, SECOND)?;
    let before = daemon.status_json()?;
    let program = lab.balancer(0).xdp_program("eth0")?;
    let run = traffic.start(lab.client(0))?;
    for _ in 0..3 {
        let mut rival = daemon.rival();
        rival.launch()?;
        assert_eq!(rival.wait_exit(SECOND)?.code(), Some(1));
        let said = rival.log();
        let pin_dir = daemon.files().pin_dir.display().to_string();
        for part in [pin_dir.as_str(), "in use by another ballast daemon (pid ", "pin_dir of its own"] {
            assert!(said.contains(part), "{part:?} in {said}");
        }
    }
    let report = run.finish()?;
    assert_nothing_lost(&report, report.sent);
    assert_eq!(report.by_flow, control.by_flow);
    let after = daemon.status_json()?;
    assert_eq!((revision_of(&after), is_ready(&after)), (revision_of(&before), true));
    assert_eq!(fingerprint(&after, 0), fingerprint(&before, 0));
    assert_eq!(lab.balancer(0).xdp_program("eth0")?, program, "the program was replaced");
    assert!(daemon.is_running()?);
    daemon.accounts().map(drop)
}

#[test]
fn a_foreign_xdp_program_is_named_and_left_alone() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let balancer = lab.balancer(0);
    balancer.attach_xdp("eth0", &reflect())?;
    let foreign = balancer.xdp_program("eth0")?.context("a program is attached")?;
    for mode in ["auto", "native", "generic"] {
        let mut daemon = Daemon::new(&lab, 0, &in_mode(mode, &service(&lab, VIP_V4, &[1, 1])))?;
        fs::write(&daemon.files().log, "")?;
        daemon.launch()?;
        assert_eq!(daemon.wait_exit(SOON)?.code(), Some(1), "{mode}");
        let said = daemon.log();
        for part in
            [&format!("XDP program id {} ", foreign.id), "eth0", "left untouched", "bpftool prog show id"]
        {
            assert!(said.contains(part), "{mode}: {part:?} in {said}");
        }
        assert_eq!(balancer.xdp_program("eth0")?.as_ref(), Some(&foreign), "{mode}");
        let left = fs::read_dir(&daemon.files().pin_dir).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{mode}: a start that was refused left pins");
    }
    // Without it, the same configuration runs.
    balancer.detach_xdp("eth0")?;
    let daemon = Daemon::start(&lab, 0, &service(&lab, VIP_V4, &[1, 1]).toml())?;
    assert!(balancer.xdp_program("eth0")?.is_some_and(|own| own.id != foreign.id));
    assert!(is_ready(&daemon.status_json()?));
    Ok(())
}

#[test]
fn an_interface_that_was_deleted_and_made_again_is_served_again_within_a_second() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let _servers = serve_udp(&lab)?;
    let config: String = FAMILIES.map(|vip| service(&lab, vip, &[1, 1]).toml()).concat();
    let daemon = Daemon::start(&lab, 0, &config)?;
    let traffic = [calm(&lab, VIP_V4, SECOND)?.0, calm(&lab, VIP_V6, SECOND)?.0];
    let before = counters(&daemon.status_json()?)?;
    let slots = fingerprint(&daemon.status_json()?, 0).to_owned();
    for _ in 0..2 {
        lab.balancer(0).ip("delete the interface", ["link del eth0"])?;
        let not_ready = try_wait_for("not ready", 2 * SECOND, || {
            Ok(Some(daemon.cli(["status", "--ready"])?).filter(|output| !output.status.success()))
        })?;
        assert_eq!(not_ready.status.code(), Some(4), "{}", not_ready.stderr);
        assert!(not_ready.stderr.contains("not ready: not attached to eth0"), "{}", not_ready.stderr);

        make_interface_again(&lab)?;
        try_wait_until("it is attached again", SECOND, || {
            daemon.status_json().map(|status| is_ready(&status))
        })?;
        for traffic in &traffic {
            // The kernel has to find out MAC addresses anew.
            try_wait_until("packets are forwarded again", SOON, || {
                traffic.run(lab.client(0), FLOWS.into()).map(|report| report.lost.is_empty())
            })?;
            assert_nothing_lost(&traffic.run(lab.client(0), 2_000)?, 2_000);
        }
        assert_eq!(lab.balancer(0).xdp_program("eth0")?.map(|program| program.mode), Some("native"));
    }
    let status = daemon.status_json()?;
    assert_eq!(fingerprint(&status, 0), slots);
    let after = counters(&status)?;
    assert!(before.iter().all(|(name, count)| after.get(name) > Some(count)), "{before:?} {after:?}");
    Ok(())
}

#[test]
fn an_interface_that_is_not_there_at_a_restart_is_served_when_it_comes() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let _servers = serve_udp(&lab)?;
    let mut daemon = Daemon::start(&lab, 0, &service(&lab, VIP_V4, &[1, 1]).toml())?;
    let (traffic, _) = calm(&lab, VIP_V4, SECOND)?;
    daemon.kill9()?;
    lab.balancer(0).ip("delete the interface", ["link del eth0"])?;
    daemon.launch()?;
    let status = try_wait_for("the daemon answers", SOON, || daemon.status_json().map(Some))?;
    assert_eq!(status["interfaces"][0]["name"], "eth0");
    assert_eq!(status["interfaces"][0]["attached"], false);
    assert_eq!(daemon.cli(["status", "--ready"])?.status.code(), Some(4));

    make_interface_again(&lab)?;
    daemon.wait_ready(SECOND)?;
    try_wait_until("packets are forwarded again", SOON, || {
        traffic.run(lab.client(0), FLOWS.into()).map(|report| report.lost.is_empty())
    })?;
    Ok(())
}

#[test]
fn another_hash_key_than_that_of_the_live_tables_is_refused_and_the_old_one_taken_back() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let _servers = serve_udp(&lab)?;
    let mut daemon = Daemon::start(&lab, 0, &service(&lab, VIP_V4, &[1, 1]).toml())?;
    let (traffic, control) = calm(&lab, VIP_V4, SECOND)?;
    daemon.sigterm()?;
    let key = daemon.files().state_dir.join("flow-hash.key");
    let aside = lab.directory().join("key");
    fs::rename(&key, &aside)?;
    daemon.launch()?;
    assert_eq!(daemon.wait_exit(SOON)?.code(), Some(1));
    assert!(daemon.log().contains("another hash key"), "{}", daemon.log());
    let report = traffic.run(lab.client(0), 2_000)?;
    assert_nothing_lost(&report, 2_000);
    assert_eq!(report.by_flow, control.by_flow);

    fs::rename(&aside, &key)?;
    daemon.launch()?;
    daemon.wait_ready(SOON)
}

#[test]
fn pins_that_do_not_fit_are_refused_with_the_way_out_and_keep_forwarding() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().balancers(2).build()?;
    let _servers = serve_udp(&lab)?;
    let text = service(&lab, VIP_V4, &[1, 1]).toml();
    let other_limits = format!("{text}\n[limits]\nlookup_slots = 65536\n");
    let mut daemon = Daemon::start(&lab, 0, &text)?;
    // Has maps of another size, of which one gets to the wrong place.
    let donor = Daemon::start(&lab, 1, &other_limits)?;
    let (traffic, control) = calm(&lab, VIP_V4, SECOND)?;
    daemon.sigterm()?;
    let program = lab.balancer(0).xdp_program("eth0")?;
    let pin = |of: &Daemon, map: &str| of.files().pin_dir.join(format!("abi-{ABI_VERSION}")).join(map);
    let (lookup, aside) = (pin(&daemon, names::LOOKUP), lab.pins().join("aside"));

    let refused = |daemon: &mut Daemon, what: &str, parts: &[&str]| -> Result<()> {
        fs::write(&daemon.files().log, "")?;
        daemon.launch()?;
        let code = daemon.wait_exit(SOON).with_context(|| format!("{what}: {}", daemon.log()))?.code();
        assert_eq!(code, Some(1), "{what}");
        let said = daemon.log();
        for part in parts.iter().chain(&["ballast detach", "forwarding"]) {
            assert!(said.contains(part), "{what}: {part:?} in {said}");
        }
        assert_eq!(lab.balancer(0).xdp_program("eth0")?, program, "{what}: the program changed");
        let report = traffic.run(lab.client(0), 1_000)?;
        assert_nothing_lost(&report, 1_000);
        assert_eq!(report.by_flow, control.by_flow, "{what}");
        Ok(())
    };
    fs::rename(&lookup, &aside)?;
    refused(&mut daemon, "a missing map", &["missing", names::LOOKUP, "still attached"])?;
    fs::rename(pin(&donor, names::LOOKUP), &lookup)?;
    refused(&mut daemon, "a map of another size", &[names::LOOKUP, "room for 65536", "lookup_slots"])?;
    fs::remove_file(&lookup)?;
    fs::rename(pin(&donor, names::COUNTERS), &lookup)?;
    refused(&mut daemon, "another map under its name", &[names::LOOKUP, "not this version's map"])?;
    fs::remove_file(&lookup)?;
    fs::rename(&aside, &lookup)?;
    daemon.write_config(&other_limits)?;
    refused(
        &mut daemon,
        "other limits",
        &["`[limits] lookup_slots` asks for 65536", "Put the old limit back"],
    )?;
    // All of it undone, it goes on as if nothing had been.
    daemon.write_config(&text)?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    daemon.accounts()?;
    assert!(daemon.log().contains("went on with the pinned maps"), "{}", daemon.log());
    assert_eq!(traffic.run(lab.client(0), 1_000)?.by_flow, control.by_flow);
    Ok(())
}

#[test]
fn both_xdp_modes_attach_and_forward_and_a_restart_changes_between_them() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let _servers = serve_udp(&lab)?;
    let _tcp: Vec<_> =
        lab.backends().map(|backend| TcpServer::start(backend, &[PORT])).collect::<Result<_>>()?;
    let text = |mode| {
        let udp = service(&lab, VIP_V4, &[1, 1]);
        let tcp =
            udp.clone().toml().replace("\"udp\"", "\"tcp\"").replace("name = \"udp4\"", "name = \"tcp4\"");
        in_mode(mode, &udp) + &tcp
    };
    let mut daemon = Daemon::new(&lab, 0, &text("native"))?;
    for mode in ["native", "generic", "native"] {
        daemon.write_config(&text(mode))?;
        daemon.launch()?;
        daemon.wait_ready(SOON)?;
        let status = daemon.status_json()?;
        assert_eq!(status.pointer("/interfaces/0/mode").and_then(Value::as_str), Some(mode));
        assert_eq!(lab.balancer(0).xdp_program("eth0")?.map(|program| program.mode), Some(mode));
        let (traffic, _) = calm(&lab, VIP_V4, SECOND)?;
        assert_nothing_lost(&traffic.run(lab.client(0), 2_000)?, 2_000);
        exchange(&connect(lab.client(0), None, SocketAddr::new(VIP_V4, PORT), SOON)?, 1 << 20)?;
        assert!(daemon.sigterm()?.success());
    }
    Ok(())
}

fn serve_udp(lab: &Lab) -> Result<Vec<UdpServer>> {
    lab.backends().map(|backend| UdpServer::start(backend, &[PORT])).collect()
}

fn received(servers: &[UdpServer]) -> u64 {
    servers.iter().map(UdpServer::received).sum()
}

fn service_name(vip: IpAddr) -> String {
    format!("udp{}", if vip.is_ipv4() { 4 } else { 6 })
}

/// A service over UDP with a backend for each weight.
fn service(lab: &Lab, vip: IpAddr, weights: &[u32]) -> Service {
    let service = Service::new(&service_name(vip), SocketAddr::new(vip, PORT), "udp", "l2-dsr");
    lab.backends().zip(weights).fold(service, |service, (backend, weight)| {
        service.backend(&backend.label(), SocketAddr::new(backend.address(vip), PORT), *weight)
    })
}

fn in_mode(mode: &str, service: &Service) -> String {
    format!(
        "[daemon]\ninterfaces = {{interfaces}}\nstate_dir = \"{{state_dir}}\"\npin_dir = \"{{pin_dir}}\"\n\
         socket = \"{{socket}}\"\nxdp_mode = \"{mode}\"\n\n{}",
        service.toml()
    )
}

/// The control run: traffic at the highest of some rates at which nothing is lost without any fault, and its report.
fn calm(lab: &Lab, vip: IpAddr, length: Duration) -> Result<(UdpTraffic, UdpReport)> {
    let sources = (0..FLOWS).map(|number| lab.client(0).source_port(number, 4000, vip));
    let traffic = UdpTraffic::new(sources, SocketAddr::new(vip, PORT));
    for rate in [10_000, 6_000, 3_000] {
        let traffic = traffic.clone().rate(rate);
        let report = traffic.run(lab.client(0), u64::from(rate) * length.as_secs())?;
        if report.lost.is_empty() {
            return Ok((traffic, report));
        }
        eprintln!("control run: {} of {} lost at {rate}/s", report.lost.len(), report.sent);
    }
    bail!("packets are lost without any fault")
}

fn assert_nothing_lost(report: &UdpReport, sent: u64) {
    let counts = (report.sent, report.lost.len(), report.refused, report.duplicates);
    assert_eq!(
        counts,
        (sent, 0, 0, 0),
        "sent, lost, refused, duplicates; first lost: {:?}",
        report.lost.first()
    );
}

fn revision_of(status: &Value) -> u64 {
    status.get("revision").and_then(Value::as_u64).unwrap_or_default()
}

fn is_ready(status: &Value) -> bool {
    status.get("ready") == Some(&Value::Bool(true))
}

fn fingerprint(status: &Value, service: usize) -> &str {
    let found = status.pointer(&format!("/services/{service}/fingerprint")).and_then(Value::as_str);
    found.expect("a service has a fingerprint")
}

fn health(status: &Value, service: usize) -> Vec<&str> {
    let backends = status.pointer(&format!("/services/{service}/backends")).and_then(Value::as_array);
    backends.into_iter().flatten().filter_map(|backend| backend.get("health")?.as_str()).collect()
}

/// Packets of all, of each service (`udp4`) and of each backend (`udp4/backend0`).
fn counters(status: &Value) -> Result<BTreeMap<String, u64>> {
    let packets = |object: &Value| object.get("packets").and_then(Value::as_u64).context("no packets");
    let name =
        |object: &Value| object.get("name").and_then(Value::as_str).map(str::to_owned).context("no name");
    let list =
        |object: &Value, key: &str| object.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut all = BTreeMap::from([("packets".to_owned(), packets(status)?)]);
    for service in list(status, "services") {
        all.insert(name(&service)?, packets(&service)?);
        for backend in list(&service, "backends") {
            all.insert(format!("{}/{}", name(&service)?, name(&backend)?), packets(&backend)?);
        }
    }
    Ok(all)
}

/// The load balancer's only interface, wired as the lab does it.
fn make_interface_again(lab: &Lab) -> Result<()> {
    const OFFLOADS: [&str; 10] = ["tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off"];
    const XDP_PASS: i32 = 2;
    let (balancer, switch) = (lab.balancer(0), lab.switch());
    let leg = balancer.first_leg();
    let (port, mac, bridge) = (&leg.port, leg.mac_text(), leg.segment.bridge());
    let namespace = balancer.name();
    let link =
        format!("link add {port} mtu 1600 type veth peer name eth0 address {mac} mtu 1600 netns {namespace}");
    switch.ip("make the link", [link])?;
    let pass = Program::load(
        Kind::Xdp,
        "lab_pass",
        &Assembler::default().set(Register::R0, XDP_PASS).exit_r0().finish(),
    )?;
    let pin: PathBuf = lab.pins().join("pass-again");
    pass.pin(&pin)?;
    let attached = switch.ip("attach", [format!("link set dev {port} xdpdrv pinned {}", pin.display())]);
    fs::remove_file(&pin)?;
    attached?;
    for (place, interface) in [(&**balancer, "eth0"), (switch, port.as_str())] {
        place.run("ethtool", ["-K", interface].into_iter().chain(OFFLOADS))?;
    }
    let (v4, v6) = (leg.ipv4, leg.ipv6);
    balancer.ip(
        "configure it",
        [
            "link set eth0 up".to_owned(),
            format!("address add {v4}/16 dev eth0"),
            format!("address add {v6}/64 dev eth0 nodad"),
        ],
    )?;
    switch.ip("connect it", [format!("link set {port} up master {bridge}")])
}
