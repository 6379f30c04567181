//! `ballast explain` over the real command line: what it says of a packet is what becomes of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, HttpServer, Lab, Mode, Service, VIP_V4, VIP_V6, connect, http_get, require_root, try_wait_until,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);
/// A dropped client hears nothing.
const DROPPED_AFTER: Duration = Duration::from_millis(200);
const PORT: u16 = 80;

/// What is said of a packet.
fn explain(daemon: &Daemon, args: &[&str]) -> Result<Value> {
    let printed = daemon.cli_checked([&["explain", "-o", "json"], args].concat())?;
    serde_json::from_str(&printed).with_context(|| format!("understand {printed}"))
}

/// What counts packets. Flows are counted by the controller's scan, whenever that is.
fn counted(daemon: &Daemon) -> Result<Value> {
    let status = daemon.status_json()?;
    let of = |service: &Value| {
        let backends = service["backends"].as_array().cloned().unwrap_or_default();
        let backends: Vec<_> =
            backends.iter().map(|one| (one["packets"].clone(), one["new_flows"].clone())).collect();
        serde_json::json!([service["packets"], service["bytes"], service["new_flows"], backends])
    };
    let services: Vec<_> = status["services"].as_array().into_iter().flatten().map(of).collect();
    Ok(serde_json::json!([services, status["drops"], status["verdicts"]["drop"]]))
}

#[test]
fn the_backend_that_answers_is_the_one_that_was_named() -> Result<()> {
    require_root!(Ok(()));
    for (mode, algorithm) in [(Mode::L2Dsr, "flow-hash"), (Mode::Nat, "round-robin")] {
        let lab = mode.lab().build()?;
        let servers = lab.backends().map(|backend| HttpServer::start(backend, &[mode.server_port(PORT)]));
        let _servers: Vec<_> = servers.collect::<Result<_>>()?;
        let config = [("v4", VIP_V4), ("v6", VIP_V6)].map(|(name, vip)| {
            let service = mode.service(name, SocketAddr::new(vip, PORT), "tcp", lab.backends());
            service.line(&format!("algorithm = \"{algorithm}\"")).toml()
        });
        let daemon = Daemon::start(&lab, 0, &config.concat())?;
        try_wait_until("the ways to all backends are known", SOON, || {
            daemon.status_json().map(|status| {
                let services = status["services"].as_array().cloned().unwrap_or_default();
                let mut backends =
                    services.iter().filter_map(|service| service["backends"].as_array()).flatten();
                backends.all(|backend| backend["reachable"] == true) && services.len() == 2
            })
        })?;
        // While nobody else sends anything.
        let before = counted(&daemon)?;
        for (name, vip) in [("v4", VIP_V4), ("v6", VIP_V6)] {
            let from = lab.client(0).source_port(1, 29_999, vip).to_string();
            explain(&daemon, &["--service", name, "--from", &from, "--syn"])?;
            explain(&daemon, &["--service", name, "--from", &from])?;
        }
        ensure!(counted(&daemon)? == before, "{mode}: asking was counted");
        let mut seen = BTreeSet::new();
        for (name, vip) in [("v4", VIP_V4), ("v6", VIP_V6)] {
            for number in 0..10 {
                let from = lab.client(0).source_port(number, 30_000 + number, vip);
                seen.insert(
                    is_named_rightly(&lab, &daemon, name, vip, from)
                        .with_context(|| format!("{mode}: {from} to {vip}"))?,
                );
            }
        }
        ensure!(seen.len() > 1, "{mode}: only {seen:?} was ever named");
        daemon.accounts()?;
    }
    Ok(())
}

/// Asks about a client's first packet, sends it, and returns the backend.
fn is_named_rightly(
    lab: &Lab,
    daemon: &Daemon,
    service: &str,
    vip: IpAddr,
    from: SocketAddr,
) -> Result<String> {
    let from_text = from.to_string();
    let said = explain(daemon, &["--service", service, "--from", &from_text, "--syn"])?;
    let verdict = said["verdict"].as_str().unwrap_or_default();
    ensure!(said["service"] == service && ["tx", "redirect"].contains(&verdict), "{said}");
    let named = said["backend"].as_str().context("no backend is named")?;
    let answer = http_get(lab.client(0), Some(from), SocketAddr::new(vip, PORT), "/", SOON)?;
    ensure!(answer.backend == named, "{} answered: {said:#}", answer.backend);
    let frame = said["output"].as_str().context("no frame leaves")?;
    ensure!(frame.len() >= 2 * 54 && frame != said["input"], "{said:#}");
    Ok(named.to_owned())
}

#[test]
fn a_drop_is_explained_and_a_question_that_makes_no_sense_refused() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    // Nobody has this address.
    let nobody = match lab.backend(0).ipv4().octets() {
        [a, b, c, _] => SocketAddr::from(([a, b, c, 250], PORT)),
    };
    let vip = SocketAddr::new(VIP_V4, PORT);
    let service = Service::new("web", vip, "tcp", "l2-dsr").backend("gone", nobody, 1);
    let every = Service::new("all", SocketAddr::new(VIP_V6, PORT), "udp", "l2-dsr")
        .nodes(lab.backends(), SocketAddr::new(VIP_V6, PORT));
    let daemon = Daemon::start(&lab, 0, &(service.toml() + &every.toml()))?;
    let from = lab.client(0).source_port(1, 30_000, VIP_V4).to_string();

    let said = explain(&daemon, &["--service", "web", "--from", &from, "--syn"])?;
    assert_eq!(
        (&said["verdict"], &said["reason"]),
        (&"drop".into(), &"next_hop_unresolved".into()),
        "{said:#}"
    );
    assert_eq!((&said["backend"], &said["output"]), (&"gone".into(), &Value::Null));
    ensure!(said["remedy"].as_str().is_some_and(|remedy| remedy.contains("ip neigh")), "{said:#}");
    let dropped = || daemon.metric("ballast_drops_total{reason=\"next_hop_unresolved\"}");
    let before = dropped()?;
    try_wait_until("a connection is dropped, and counted", SOON, || {
        let refused = connect(lab.client(0), None, vip, DROPPED_AFTER).is_err();
        Ok(refused && dropped()? > before)
    })?;

    // For people.
    let shown = daemon.cli_checked(["explain", "--service", "web", "--from", &from, "--syn"])?;
    ensure!(shown.starts_with("dropped: next_hop_unresolved\n"), "{shown}");
    ensure!(shown.contains("What to do: "), "{shown}");
    let elsewhere = SocketAddr::new(VIP_V4, 8080).to_string();
    let shown = daemon.cli_checked(["explain", "--to", &elsewhere, "--from", &from])?;
    ensure!(
        shown.contains(&format!("No service is at {elsewhere} tcp: there is {vip} tcp (web).")),
        "{shown}"
    );
    // The same packet as it is on the wire, and one that is none.
    let input = said["input"].as_str().context("no frame")?;
    assert_eq!(explain(&daemon, &["--frame", input])?["reason"], "next_hop_unresolved");
    let other = explain(&daemon, &["--frame", &format!("02aabbccddee{}", &input[12..])])?;
    assert_eq!((&other["verdict"], &other["reason"]), (&"pass".into(), &"other_mac".into()));

    let v6 = lab.client(0).source_port(1, 30_000, VIP_V6).to_string();
    for (args, code, wanted) in [
        (&["--service", "wed", "--from", &from][..], 1, "did you mean \"web\"?"),
        (&["--service", "web", "--from", &v6], 1, "a packet has two of one family"),
        (&["--service", "all", "--from", &v6, "--syn"], 1, "only TCP has a SYN"),
        (&["--service", "web", "--from", &from, "--port", "81"], 1, "service web has port 80"),
        (
            &["--service", "web", "--from", &from, "--interface", "nix0"],
            1,
            "the program is not attached to \"nix0\"",
        ),
        (&["--service", "web", "--from", &from, "--length", "39"], 1, "40 to 65535 bytes"),
        (&["--frame", "zz"], 1, "neither hexadecimal nor a file"),
        (&["--service", "web", "--from", "10.0.0.1"], 2, "--from"),
        (&["--from", &from], 2, "--service"),
    ] {
        let refused = daemon.cli([&["explain"], args].concat())?;
        assert_eq!(refused.status.code(), Some(code), "{args:?}: {}", refused.stderr);
        ensure!(refused.stderr.contains(wanted), "{args:?}: {}", refused.stderr);
    }
    Ok(())
}
