//! Clients, a load balancer and backends: who gets what, and whether every packet is accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Capture, Daemon, HttpServer, Lab, Node, Segment, Service, TcpServer, UdpServer, UdpTraffic, VIP_V4,
    VIP_V6, connect, exchange, http_get, require_root, try_wait_until, wait_until,
};
use lb_tests::model::Protocol;
use lb_tests::packet::Packet;

const MIB: usize = 1 << 20;
const SOON: Duration = Duration::from_secs(5);
const FAMILIES: [IpAddr; 2] = [VIP_V4, VIP_V6];

/// One service of this mode over each of TCP and UDP, both families, with all backends of the lab at weight 1.
fn services(lab: &Lab, forwarding: &str, port: u16) -> String {
    let mut text = String::new();
    for vip in FAMILIES {
        for protocol in ["tcp", "udp"] {
            let family = if vip.is_ipv4() { 4 } else { 6 };
            let name = format!("{protocol}{family}");
            let mut service = Service::new(&name, SocketAddr::new(vip, port), protocol, forwarding);
            for backend in lab.backends() {
                service = service.backend(&backend.label(), SocketAddr::new(backend.address(vip), port), 1);
            }
            text += &service.toml();
        }
    }
    text
}

#[test]
fn a_mebibyte_goes_both_ways_in_every_mode_and_family_and_backends_see_the_client() -> Result<()> {
    require_root!(Ok(()));
    let arms = [("one-armed", Lab::builder()), ("two-armed", Lab::builder().two_armed())];
    for (arm, builder) in arms {
        for mode in ["l2-dsr", "ipip"] {
            let builder = if mode == "ipip" { builder.clone().decapsulating() } else { builder.clone() };
            let lab = builder.build()?;
            let servers: Vec<_> =
                lab.backends().map(|backend| TcpServer::start(backend, &[80])).collect::<Result<_>>()?;
            let daemon = Daemon::start(&lab, 0, &services(&lab, mode, 80))?;
            let client = lab.client(0);
            for vip in FAMILIES {
                // Enough clients that each backend has some.
                for number in 0..8 {
                    let from = client.source_port(number, 0, vip);
                    let stream = connect(client, Some(from), SocketAddr::new(vip, 80), SOON)
                        .with_context(|| format!("{arm} {mode}"))?;
                    exchange(&stream, MIB).with_context(|| format!("{arm} {mode} {from}"))?;
                    let local = stream.local_addr()?;
                    let seen = servers.iter().any(|server| server.clients().contains(&local));
                    assert!(seen, "{arm} {mode}: no backend saw the client {from}");
                }
            }
            assert!(
                servers.iter().all(|server| !server.clients().is_empty()),
                "{arm} {mode}: an idle backend"
            );
            drop(servers);
            let accounts = daemon.accounts().with_context(|| format!("{arm} {mode}"))?;
            let verdict = if arm == "one-armed" { "tx" } else { "redirect" };
            // A MiB in segments of at most 1448 bytes, sixteen times.
            assert!(accounts.verdict(verdict) > 16 * 724, "{arm} {mode}: {accounts:?}");
        }
    }
    Ok(())
}

#[test]
fn udp_is_answered_in_every_mode_and_family() -> Result<()> {
    require_root!(Ok(()));
    for mode in ["l2-dsr", "ipip"] {
        let lab = Lab::builder().decapsulating().build()?;
        let _servers: Vec<_> =
            lab.backends().map(|backend| UdpServer::start(backend, &[53])).collect::<Result<_>>()?;
        let daemon = Daemon::start(&lab, 0, &services(&lab, mode, 53))?;
        for vip in FAMILIES {
            let sources = (0..16).map(|number| lab.client(0).source_port(number, 4000, vip));
            let report = UdpTraffic::new(sources, SocketAddr::new(vip, 53)).run(lab.client(0), 2_000)?;
            assert_eq!((report.lost.len(), report.duplicates), (0, 0), "{mode} {vip}");
            assert!(
                report.by_flow.iter().all(|backends| backends.len() == 1),
                "{mode}: a flow has two backends"
            );
        }
        daemon.accounts()?;
    }
    Ok(())
}

#[test]
fn a_client_always_gets_the_same_backend_whatever_its_port() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(4).build()?;
    let _servers: Vec<_> =
        lab.backends().map(|backend| HttpServer::start(backend, &[80])).collect::<Result<_>>()?;
    let _daemon = Daemon::start(&lab, 0, &services(&lab, "l2-dsr", 80))?;
    for vip in FAMILIES {
        let mut answered = BTreeSet::new();
        for number in 0..24 {
            let from = || lab.client(0).source_port(number, 0, vip);
            let ask = || http_get(lab.client(0), Some(from()), SocketAddr::new(vip, 80), "/", SOON);
            let first = ask()?.backend;
            for _ in 0..5 {
                assert_eq!(ask()?.backend, first, "client {}", from().ip());
            }
            answered.insert(first);
        }
        // All four, but one time in 250; and no more than two, one time in a million: the hash has another key in every lab.
        assert!(answered.len() >= 3, "24 clients over 4 backends: {answered:?}");
    }
    Ok(())
}

#[test]
fn flow_hash_spreads_the_connections_of_one_client() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(3).build()?;
    let config = services(&lab, "l2-dsr", 80)
        .replace("[service.health]", "algorithm = \"flow-hash\"\n[service.health]");
    let _daemon = Daemon::start(&lab, 0, &fixed_key(&lab, &config)?)?;
    for vip in FAMILIES {
        let tuples: Vec<_> = (1024..4024).map(|port| (lab.client(0).address(vip), port)).collect();
        let mapping = who_gets(&lab, lab.balancer(0), vip, &tuples)?;
        for (backend, count) in tally(&mapping) {
            let share = count as f64 / tuples.len() as f64;
            assert!((share - 1.0 / 3.0).abs() < 0.03, "{backend} has {share:.3} of one client's connections");
        }
    }
    Ok(())
}

#[test]
fn shares_are_within_two_points_of_the_weights_over_20k_clients() -> Result<()> {
    require_root!(Ok(()));
    let weights = [1, 2, 5];
    for vip in FAMILIES {
        let lab = Lab::builder().backends(3).build()?;
        let mut service = Service::new("web", SocketAddr::new(vip, 80), "udp", "l2-dsr");
        for (backend, weight) in lab.backends().zip(weights) {
            service = service.backend(&backend.label(), SocketAddr::new(backend.address(vip), 80), weight);
        }
        let daemon = Daemon::start(&lab, 0, &fixed_key(&lab, &service.toml())?)?;
        let mapping = who_gets(&lab, lab.balancer(0), vip, &clients(&lab, vip))?;
        let counts = tally(&mapping);
        for (backend, weight) in lab.backends().zip(weights) {
            let expected = f64::from(weight) / 8.0;
            let share = counts.get(&backend.label()).copied().unwrap_or_default() as f64 / TUPLES as f64;
            assert!(
                (share - expected).abs() < 0.02,
                "{vip}: {} has {share:.4}, not {expected}",
                backend.label()
            );
        }
        daemon.accounts()?;
    }
    Ok(())
}

#[test]
fn two_load_balancers_with_shuffled_configurations_map_20k_clients_alike() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().balancers(2).backends(5).build()?;
    let vip = VIP_V4;
    let config = |backends: &[&Node]| {
        let mut service = Service::new("web", SocketAddr::new(vip, 80), "udp", "l2-dsr");
        for backend in backends {
            let weight = u32::from(backend.label().ends_with('3')) * 2 + 1;
            service = service.backend(&backend.label(), SocketAddr::new(backend.address(vip), 80), weight);
        }
        fixed_key(&lab, &service.toml())
    };
    let mut backends: Vec<_> = lab.backends().collect();
    let first = Daemon::start(&lab, 0, &config(&backends)?)?;
    // Another order, and another history: first without one backend, then with it.
    backends.rotate_left(2);
    backends.swap(0, 3);
    let second = Daemon::start(&lab, 1, &config(&backends[1..])?)?;
    second.write_config(&config(&backends)?)?;
    second.reload()?;

    let tuples = clients(&lab, vip);
    let by_first = who_gets(&lab, lab.balancer(0), vip, &tuples)?;
    let by_second = who_gets(&lab, lab.balancer(1), vip, &tuples)?;
    assert_eq!(by_first.len(), TUPLES);
    assert!(by_first == by_second, "the two disagree on {} clients", moved(&by_first, &by_second));
    let fingerprint =
        |daemon: &Daemon| Ok::<_, anyhow::Error>(daemon.status_json()?["services"][0]["fingerprint"].clone());
    assert_eq!(fingerprint(&first)?, fingerprint(&second)?);
    Ok(())
}

#[test]
fn removing_one_of_ten_backends_moves_its_own_clients_and_hardly_any_other() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(10).build()?;
    let vip = VIP_V4;
    let config = |without: Option<&str>| {
        // What the table says is seen only where no flow is tracked.
        let service = Service::new("web", SocketAddr::new(vip, 80), "udp", "l2-dsr");
        let mut service = service.line("tracking = \"never\"");
        for backend in lab.backends().filter(|backend| Some(backend.label().as_str()) != without) {
            service = service.backend(&backend.label(), SocketAddr::new(backend.address(vip), 80), 1);
        }
        fixed_key(&lab, &service.toml())
    };
    let daemon = Daemon::start(&lab, 0, &config(None)?)?;
    let tuples = clients(&lab, vip);
    let before = who_gets(&lab, lab.balancer(0), vip, &tuples)?;
    daemon.write_config(&config(Some("backend4"))?)?;
    daemon.reload()?;
    let after = who_gets(&lab, lab.balancer(0), vip, &tuples)?;
    let others = before.iter().filter(|(_, backend)| *backend != "backend4");
    let moved_others = others.filter(|(tuple, backend)| after.get(tuple) != Some(backend)).count();
    assert!(
        moved_others as f64 <= 0.015 * TUPLES as f64,
        "{moved_others} of {TUPLES} clients of others moved"
    );
    assert!(after.values().all(|backend| backend != "backend4"));
    // It comes back to exactly what it was.
    daemon.write_config(&config(None)?)?;
    daemon.reload()?;
    assert!(who_gets(&lab, lab.balancer(0), vip, &tuples)? == before);
    daemon.accounts()?;
    Ok(())
}

#[test]
fn a_backend_that_dies_loses_its_clients_and_gets_them_back() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(3).build()?;
    let mut servers: Vec<_> =
        lab.backends().map(|backend| HttpServer::start(backend, &[80])).collect::<Result<_>>()?;
    let mut service = Service::new("web", SocketAddr::new(VIP_V4, 80), "tcp", "l2-dsr").http_health();
    for backend in lab.backends() {
        service = service.backend(&backend.label(), SocketAddr::new(backend.address(VIP_V4), 80), 1);
    }
    let daemon = Daemon::start(&lab, 0, &service.toml())?;
    let healthy = |count: usize| {
        try_wait_until(&format!("{count} healthy backends"), SOON, || {
            let backends = daemon.status_json()?["services"][0]["backends"].take();
            let healthy = backends.as_array().into_iter().flatten().filter(|one| one["health"] == "healthy");
            ensure!(healthy.count() == count, "they are {backends}");
            Ok(true)
        })
    };
    healthy(3)?;
    let who = || -> Result<Vec<String>> {
        let ask = |number| {
            let from = lab.client(0).source_port(number, 0, VIP_V4);
            Ok(http_get(lab.client(0), Some(from), SocketAddr::new(VIP_V4, 80), "/", SOON)?.backend)
        };
        (0..60).map(ask).collect()
    };
    let before = who()?;
    servers[1].set(lb_tests::lab::Behaviour::Refuse)?;
    healthy(2)?;
    let during = who()?;
    assert!(during.iter().all(|backend| backend != "backend1"));
    let kept = before.iter().zip(&during).filter(|(old, _)| *old != "backend1");
    // 2 of 1,000 slots of other backends change theirs; of some 40 clients more than 3 are in such a one, 2 times in a million.
    let moved = kept.filter(|(old, new)| old != new).count();
    assert!(moved <= 3, "{moved} clients of healthy backends moved");
    servers[1].set(lb_tests::lab::Behaviour::Serve)?;
    healthy(3)?;
    assert_eq!(who()?, before);
    daemon.accounts()?;
    Ok(())
}

#[test]
fn promtool_has_nothing_to_say_about_the_metrics() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let daemon = Daemon::start(&lab, 0, &services(&lab, "l2-dsr", 80))?;
    let page = lab.directory().join("metrics");
    std::fs::write(&page, daemon.metrics()?)?;
    let check = format!("promtool check metrics < {}", page.display());
    let output = lab.client(0).run("sh", ["-c", &check])?;
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    Ok(())
}

/// A flow: the client's address and port.
type Tuple = (IpAddr, u16);

const TUPLES: usize = 20_000;

/// [`TUPLES`] clients, each with one flow, always the same.
fn clients(lab: &Lab, vip: IpAddr) -> Vec<Tuple> {
    // An odd step walks over all 65,536 addresses of the client without repeating one.
    let number = |n: usize| (n.wrapping_mul(40_503) + 17) as u16;
    (0..TUPLES).map(|n| (lab.client(0).source(number(n), vip), 1024 + (n % 50_000) as u16)).collect()
}

/// Puts `flow_hash.key_file` before the configuration, with a key that is always the same.
fn fixed_key(lab: &Lab, config: &str) -> Result<String> {
    let path = lab.directory().join("fleet.key");
    if !path.exists() {
        use std::{fs::File, io::Write as _, os::unix::fs::OpenOptionsExt as _};
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(b"000102030405060708090a0b0c0d0e0f\n")?;
    }
    Ok(format!("[flow_hash]\nkey_file = \"{}\"\n\n{config}", path.display()))
}

/// Sends one datagram of each flow through `balancer` and watches which backend it is delivered to.
fn who_gets(lab: &Lab, balancer: &Node, vip: IpAddr, tuples: &[Tuple]) -> Result<BTreeMap<Tuple, String>> {
    let (client, to) = (lab.client(0), balancer.leg(Segment::Front).mac);
    let captures: Vec<_> = lab
        .backends()
        .map(|backend| {
            let mac = backend.leg(Segment::Front).mac;
            let port = &backend.leg(Segment::Front).port;
            let ours = move |frame: &lb_tests::lab::Frame| {
                frame.bytes.starts_with(&mac) && flow_of(&frame.bytes, vip).is_some()
            };
            Ok((backend.label(), Capture::start_filtered(lab.switch(), port, ours)?))
        })
        .collect::<Result<Vec<_>>>()?;
    let frame = |tuple: &Tuple| {
        let packet = Packet::new(Protocol::Udp, *tuple, (vip, 80));
        [packet.l2(to, client.first_leg().mac), packet.ip()].concat()
    };
    // In portions, so that no queue on the way is too short for them.
    for portion in tuples.chunks(250) {
        client.inject_all("eth0", portion.iter().map(frame))?;
        std::thread::yield_now();
    }
    let mut mapping = BTreeMap::new();
    let all = || captures.iter().map(|(_, capture)| capture.so_far().len()).sum::<usize>();
    // What did not arrive is for the caller to notice.
    let _ = wait_until("every datagram is delivered", SOON, || all() >= tuples.len());
    for (backend, capture) in captures {
        for frame in capture.stop()? {
            let tuple = flow_of(&frame.bytes, vip).context("a captured frame of a flow")?;
            let before = mapping.insert(tuple, backend.clone());
            anyhow::ensure!(before.is_none(), "{tuple:?} was delivered to {before:?} and to {backend}");
        }
    }
    anyhow::ensure!(
        mapping.len() == tuples.len(),
        "{} of {} flows were delivered",
        mapping.len(),
        tuples.len()
    );
    Ok(mapping)
}

/// The flow of a UDP frame to port 80 of `vip`.
fn flow_of(frame: &[u8], vip: IpAddr) -> Option<Tuple> {
    let (source, destination, transport): (IpAddr, IpAddr, &[u8]) = if vip.is_ipv4() {
        let source: [u8; 4] = frame.get(26..30)?.try_into().ok()?;
        let destination: [u8; 4] = frame.get(30..34)?.try_into().ok()?;
        (source.into(), destination.into(), frame.get(34..38)?)
    } else {
        let source: [u8; 16] = frame.get(22..38)?.try_into().ok()?;
        let destination: [u8; 16] = frame.get(38..54)?.try_into().ok()?;
        (source.into(), destination.into(), frame.get(54..58)?)
    };
    (destination == vip && transport[2..] == [0, 80])
        .then(|| (source, u16::from_be_bytes([transport[0], transport[1]])))
}

fn tally(mapping: &BTreeMap<Tuple, String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for backend in mapping.values() {
        *counts.entry(backend.clone()).or_default() += 1;
    }
    counts
}

fn moved(one: &BTreeMap<Tuple, String>, other: &BTreeMap<Tuple, String>) -> usize {
    one.iter().filter(|(tuple, backend)| other.get(tuple) != Some(backend)).count()
}
