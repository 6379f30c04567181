//! Clocks that jump: those that go forwards only, as while a host sleeps, and the time of day, as somebody sets it.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, Lab, LiveClients, LiveServers, Service, TcpServer, VIP_V4, require_root, try_wait_until,
};
use serde_json::Value;

use crate::scene::{SOON, flows, same_flows, serve, services};
use crate::wall_clock::WallClock;

/// Of the service to which connections are held, and of the one whose backends are found.
const PORT: u16 = 80;
const FOUND_PORT: u16 = 81;
const CHECKED: u16 = 7;
const DRAIN: Duration = Duration::from_secs(2);
/// On a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(5);

#[test]
fn flows_and_health_survive_clocks_that_jump_two_hours_ahead() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(4).build()?;
    let _servers = serve(&lab)?;
    let mut daemon = Daemon::start(&lab, 0, &services(&lab, 2))?;
    let before = flows(&lab)?;
    // From now on half of the flows are where only the flow table remembers them.
    daemon.write_config(&services(&lab, 4))?;
    daemon.reload()?;
    same_flows(&flows(&lab)?, &before).context("after a change")?;
    let table = daemon.status_json()?["services"][0]["fingerprint"].clone();
    daemon.kill9()?;

    let binary = lab.directory().join("ahead");
    let ahead = format!(
        "#!/bin/sh\nexec unshare --time --monotonic 7200 --boottime 7200 --kill-child {} \"$@\"\n",
        daemon.binary().display()
    );
    fs::write(&binary, ahead)?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    let mut daemon = Daemon::with_binary(&lab, 0, &services(&lab, 4), binary)?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    for _ in 0..3 {
        same_flows(&flows(&lab)?, &before).context("two hours ahead")?;
    }
    let status = daemon.status_json()?;
    ensure!(status["services"][0]["fingerprint"] == table, "{status}");
    daemon.kill9()
}

/// Somebody sets the time of day, far ahead and then back to where a board without a battery begins. All that the daemon times
/// goes on as if nobody had: checks, a drain, the look at a file.
#[test]
fn a_wall_clock_that_is_set_moves_no_verdict_no_drain_and_no_flow() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(3).build()?;
    let clock = WallClock::new(&lab)?;
    let found = lab.directory().join("found.toml");
    find(&found, &lab, 1)?;
    let _servers = LiveServers::start(lab.backends(), PORT)?;
    let mut checked: Vec<_> =
        lab.backends().map(|backend| TcpServer::start(backend, &[CHECKED])).collect::<Result<_>>()?;
    let mut daemon = Daemon::new(&lab, 0, &config(&lab, &found))?;
    clock.give(&mut daemon);
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    healthy(&daemon, "web", 3)?;
    let mut clients = LiveClients::start(lab.client(0), (VIP_V4, PORT).into(), 0..300, 300)?;
    clients.open(300)?;
    clients.pace(600)?;
    let before = web(&daemon)?["fingerprint"].clone();

    let mut drained = BTreeSet::new();
    for (number, (year, to)) in [("2096", 4_000_000_000), ("1970", 86_400)].into_iter().enumerate() {
        let backend = lab.backend(number).label();
        // A drain that begins before the clock is set.
        let (began, lost) = (Instant::now(), clients.report()?.lost.len());
        daemon.cli_checked(["backend", "drain", "web", &backend])?;
        clock.set(to)?;
        let left = web(&daemon)?["backends"][number]["drain_seconds_left"].clone();
        ensure!(left.as_u64().is_some_and(|left| left <= DRAIN.as_secs() + 1), "{left} s are left in {year}");
        clients.wait("connections end with the drain", SOON, |report| report.lost.len() > lost)?;
        let took = began.elapsed();
        ensure!(took >= DRAIN && took < DRAIN + SLACK, "a drain of {DRAIN:?} took {took:?} in {year}");
        drained.insert(backend.clone());

        // Checks see who fails and who comes back, and nobody else.
        checked[number].stop();
        healthy(&daemon, "web", 2)?;
        checked[number] = TcpServer::start(lab.backend(number), &[CHECKED])?;
        healthy(&daemon, "web", 3)?;
        for other in 0..3 {
            let sample = format!(
                "ballast_health_transitions_total{{service=\"web\",backend=\"backend{other}\",to=\"unhealthy\"}}"
            );
            assert_eq!(daemon.metric(&sample)?, f64::from(u8::from(other <= number)), "{sample} in {year}");
        }
        daemon.cli_checked(["backend", "enable", "web", &backend])?;
        // The file is of another year than the clock.
        find(&found, &lab, number + 2)?;
        healthy(&daemon, "found", number + 2)?;
        let log = daemon.log();
        ensure!(log.lines().last().is_some_and(|line| line.starts_with(&format!("[{year}-"))), "{log}");
    }
    daemon.kill9()?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    assert_eq!(web(&daemon)?["fingerprint"], before, "after a start in 1970");
    clients.pace(0)?;
    clock.set_right()?;
    find(&found, &lab, 1)?;
    healthy(&daemon, "found", 1)?;
    assert_eq!(web(&daemon)?["fingerprint"], before, "when the clock is right again");
    let report = clients.exchange()?;
    let mut lost_with = report.lost.iter().map(|loss| loss.backend.clone().unwrap_or_default());
    ensure!(lost_with.all(|backend| drained.contains(&backend)), "{}", report.losses());
    ensure!(!daemon.log().contains("panicked"), "{}", daemon.log());
    daemon.accounts().map(drop)
}

/// `web` with every backend of the lab, and `found` with those of the file.
fn config(lab: &Lab, found: &Path) -> String {
    let check = format!(
        "type = \"tcp\"\nport = {CHECKED}\ninterval = \"300ms\"\ntimeout = \"300ms\"\nrise = 2\nfall = 3"
    );
    let service = |name: &str, port, line: &str| {
        Service::new(name, SocketAddr::new(VIP_V4, port), "tcp", "l2-dsr").health(&check).line(line)
    };
    let web = service("web", PORT, &format!("drain_timeout = \"{DRAIN:?}\""));
    let of_file = service("found", FOUND_PORT, &format!("backends_file = \"{}\"", found.display()));
    web.nodes(lab.backends(), SocketAddr::new(VIP_V4, PORT)).toml() + &of_file.toml()
}

/// Has so many backends be found.
fn find(path: &Path, lab: &Lab, count: usize) -> Result<()> {
    let backends = lab.backends().take(count);
    let text: String = backends
        .map(|backend| format!("[[backend]]\naddress = \"{}:{FOUND_PORT}\"\n", backend.ipv4()))
        .collect();
    let draft = path.with_extension("draft");
    fs::write(&draft, text)?;
    fs::rename(&draft, path).context("put the file in its place")
}

/// Waits until the service has so many backends that are healthy.
fn healthy(daemon: &Daemon, service: &str, count: usize) -> Result<()> {
    try_wait_until(&format!("{count} backends of {service} are healthy"), SOON, || {
        let status = daemon.status_json()?;
        let services = status["services"].as_array().into_iter().flatten();
        let backends =
            services.filter(|one| one["name"] == service).flat_map(|one| one["backends"].as_array());
        Ok(backends.flatten().filter(|backend| backend["health"] == "healthy").count() == count)
    })
}

fn web(daemon: &Daemon) -> Result<Value> {
    let mut status = daemon.status_json()?;
    let services = status["services"].as_array_mut().into_iter().flatten();
    services.map(Value::take).find(|service| service["name"] == "web").context("no service web")
}
