//! Services and backends are added, drained, disabled and removed over the real command line, under connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab, Node, Service, TcpServer, VIP_V4, connect, require_root, try_wait_for};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);
const VIP: SocketAddr = SocketAddr::new(VIP_V4, 80);
const OTHER_VIP: SocketAddr = SocketAddr::new(VIP_V4, 81);

#[test]
fn a_backend_is_added_drained_enabled_and_removed_under_connections() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let servers = serve(&lab)?;
    let mut daemon = start(&lab)?;
    let address = address(lab.backend(1), 80);
    let added = daemon.cli_checked(["backend", "add", "web", "extra", &address])?;
    ensure!(added.starts_with("add backend web/extra\nrevision "), "{added}");
    daemon.cli_checked(["backend", "enable", "web", "extra", "--wait", "--timeout", "5s"])?;
    let mut connections = open(&lab, 40)?;
    let before = [servers[0].clients().len(), servers[1].clients().len()];
    ensure!(before.iter().all(|count| *count > 5), "clients are not spread: {before:?}");

    // Waiting ends before the drain does, since there are connections.
    let drained = daemon.cli(["backend", "drain", "web", "extra", "--wait", "--timeout", "1500ms"])?;
    assert_eq!(drained.status.code(), Some(5), "{}", drained.stderr);
    let _new = open(&lab, 40)?;
    assert_eq!(servers[1].clients().len(), before[1], "a draining backend got new connections");
    talk(&mut connections).context("while it drains")?;
    let left = seconds_left(&daemon)?;
    let begun = Instant::now();

    // Another daemon goes on with the same drain.
    daemon.kill9()?;
    talk(&mut connections).context("without a daemon")?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    talk(&mut connections).context("after the restart")?;
    let rest = seconds_left(&daemon)?;
    ensure!(rest <= left && rest + begun.elapsed().as_secs() + 2 >= left, "{left} s left, then {rest} s");
    let repeated = daemon.cli_checked(["backend", "drain", "web", "extra"])?;
    ensure!(repeated.starts_with("nothing to change"), "{repeated}");

    daemon.cli_checked(["backend", "enable", "web", "extra", "--wait", "--timeout", "5s"])?;
    let again = open(&lab, 40)?;
    ensure!(servers[1].clients().len() > before[1], "an enabled backend gets no connections");
    talk(&mut connections).context("after it came back")?;

    // With nobody left the drain is over long before its time.
    drop((connections, _new, again));
    daemon.cli_checked(["backend", "drain", "web", "extra", "--wait", "--timeout", "30s"])?;
    ensure!(seconds_left(&daemon)? > 0, "the drain took all its time");

    let refused = daemon.cli(["backend", "remove", "web", "declared"])?;
    assert_eq!(refused.status.code(), Some(1));
    ensure!(refused.stderr.contains("config.toml:"), "{}", refused.stderr);
    daemon.cli_checked(["backend", "remove", "web", "extra"])?;
    assert_eq!(daemon.cli(["backend", "remove", "web", "extra"])?.status.code(), Some(1));
    daemon.accounts()?;
    Ok(())
}

#[test]
fn disabling_ends_connections_and_a_reset_brings_new_ones_back() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let servers = serve(&lab)?;
    let daemon = start(&lab)?;
    let mut connections = open(&lab, 5)?;
    assert_eq!(servers[0].clients().len(), 5);
    daemon.cli_checked(["backend", "disable", "web", "declared", "--wait=quiet", "--timeout", "60s"])?;
    ensure!(connections.iter_mut().all(|stream| say(stream, Duration::from_millis(300)).is_err()));
    let shown = daemon.cli_checked(["backend", "list", "web"])?;
    ensure!(shown.contains("disabled"), "{shown}");
    // A reload is not what takes an override back.
    daemon.reload()?;
    assert_eq!(backend(&daemon, "declared")?["admin"], "disabled");
    daemon.cli_checked(["backend", "reset", "web", "declared", "--wait", "--timeout", "5s"])?;
    talk(&mut open(&lab, 5)?)
}

#[test]
fn a_service_made_over_the_command_line_outlives_the_daemon_until_it_is_removed() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let _servers = serve(&lab)?;
    let mut daemon = start(&lab)?;
    let (vip, at) = (OTHER_VIP.to_string(), address(lab.backend(1), 81));
    daemon.cli_checked(["service", "add", "own", &vip, "--forwarding", "l2-dsr", "--health-type", "none"])?;
    daemon.cli_checked(["backend", "add", "own", "one", &at, "--weight", "7"])?;
    try_wait_for("the service answers", SOON, || reach(&lab, OTHER_VIP).map(Some))?;
    for kill in [true, false] {
        if kill {
            daemon.kill9()?;
        } else {
            assert!(daemon.sigterm()?.success());
        }
        daemon.launch()?;
        daemon.wait_ready(SOON)?;
        reach(&lab, OTHER_VIP)?;
    }
    let status = daemon.status_json()?;
    assert_eq!(
        (&status["services"][0]["name"], &status["services"][0]["origin"]["kind"]),
        (&"own".into(), &"cli".into())
    );
    assert_eq!(status["services"][0]["backends"][0]["weight"], 7);

    // A state file that makes no sense is told of; the one before it stands in, and what the file declares goes on.
    assert!(daemon.sigterm()?.success());
    let file = daemon.files().state_dir.join("state.toml");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, &text[..text.len() / 2])?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    let status = daemon.status_json()?;
    ensure!(status["state_error"].as_str().is_some_and(|error| error.contains("state.toml.bad")), "{status}");
    ensure!(status["state_error"].as_str().is_some_and(|error| error.contains("state.toml.old")), "{status}");
    // All but the last change, which added the backend.
    assert_eq!(status["services"][0]["name"], "own");
    assert_eq!(status["services"][0]["backends"].as_array().map(Vec::len), Some(0));
    reach(&lab, VIP)?;

    daemon.cli_checked(["service", "add", "own", &vip, "--forwarding", "l2-dsr", "--health-type", "none"])?;
    daemon.cli_checked(["service", "remove", "own"])?;
    assert_eq!(daemon.status_json()?["services"].as_array().map(Vec::len), Some(1));
    Ok(())
}

/// A daemon that declares "web" with its backend "declared" at the lab's first.
fn start(lab: &Lab) -> Result<Daemon> {
    let service = Service::new("web", VIP, "tcp", "l2-dsr")
        .line("algorithm = \"flow-hash\"")
        .line("flow_idle_timeout = \"2s\"")
        .backend("declared", SocketAddr::new(lab.backend(0).address(VIP_V4), 80), 1);
    Daemon::start(lab, 0, &service.toml())
}

fn serve(lab: &Lab) -> Result<Vec<TcpServer>> {
    lab.backends().map(|backend| TcpServer::start(backend, &[80, 81])).collect()
}

fn address(backend: &Node, port: u16) -> String {
    SocketAddr::new(backend.address(VIP_V4), port).to_string()
}

fn open(lab: &Lab, count: usize) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| {
            let mut stream = connect(lab.client(0), None, VIP, SOON)?;
            say(&mut stream, SOON)?;
            Ok(stream)
        })
        .collect()
}

fn reach(lab: &Lab, vip: SocketAddr) -> Result<()> {
    say(&mut connect(lab.client(0), None, vip, Duration::from_millis(500))?, SOON)
}

/// A byte there and back on each of them.
fn talk(connections: &mut [TcpStream]) -> Result<()> {
    connections.iter_mut().try_for_each(|stream| say(stream, SOON))
}

fn say(stream: &mut TcpStream, patience: Duration) -> Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0]).with_context(|| {
        format!("from {}", stream.local_addr().map_or_else(|e| e.to_string(), |a| a.to_string()))
    })
}

fn backend(daemon: &Daemon, name: &str) -> Result<Value> {
    let printed = daemon.cli_checked(["backend", "list", "web", "-o", "json"])?;
    let all: Vec<Value> = serde_json::from_str(&printed)?;
    all.into_iter().find(|backend| backend["name"] == name).with_context(|| format!("no {name} in {printed}"))
}

fn seconds_left(daemon: &Daemon) -> Result<u64> {
    backend(daemon, "extra")?["drain_seconds_left"].as_u64().context("it does not drain")
}
