//! "One backend unhealthy" and "flapping": how long it takes.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Behaviour, Daemon, HttpServer, Lab, Service, VIP_V4, require_root, wait_for};

use crate::scene::SOON;

const INTERVAL: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_millis(200);
const RISE: u32 = 2;
const FALL: u32 = 3;
/// What the promise allows beyond the checks themselves.
const SLACK: Duration = Duration::from_millis(100);

#[test]
fn flapping_is_told_in_time_each_way_and_held_down_for_longer_each_time() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let to = (VIP_V4, 80).into();
    let mut servers =
        lab.backends().map(|node| HttpServer::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let check = format!(
        "type = \"http\"\npath = \"/healthz\"\ninterval = \"{INTERVAL:?}\"\ntimeout = \"{TIMEOUT:?}\"\n\
         rise = {RISE}\nfall = {FALL}"
    );
    let service = Service::new("web", to, "tcp", "l2-dsr").health(&check).nodes(lab.backends(), to);
    let daemon = Daemon::start(&lab, 0, &service.toml())?;
    told(&daemon, "healthy", SystemTime::UNIX_EPOCH)?;
    let fall = INTERVAL * FALL + TIMEOUT;
    // The first fall holds nothing down, the next ones for 1 and 2 s.
    for hold_down in [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2)] {
        let server = servers.first_mut().context("a server")?;
        let silent = SystemTime::now();
        server.set(Behaviour::Hang)?;
        let fell = told(&daemon, "unhealthy", silent)?;
        let took = fell.duration_since(silent)?;
        ensure!(took <= fall + slack(), "silence is told after {took:?}, not {fall:?}");
        let server = servers.first_mut().context("a server")?;
        let back = SystemTime::now();
        server.set(Behaviour::Serve)?;
        let rose = told(&daemon, "healthy", back)?;
        let held = rose.duration_since(fell)?;
        ensure!(held >= hold_down, "held down for {held:?} instead of {hold_down:?}");
        // Whatever was held down comes back with the first check after that.
        let rise = INTERVAL * RISE + TIMEOUT;
        let took = rose.duration_since(back.max(fell + hold_down))?;
        ensure!(took <= rise + slack(), "it was back for {took:?}, not {rise:?}");
    }
    Ok(())
}

/// On a machine that is busy with other tests everything is later.
fn slack() -> Duration {
    if std::env::var_os("BALLAST_LONG").is_some() { SLACK } else { SLACK + Duration::from_secs(2) }
}

/// When the daemon found `backend0` to be so, by its own log.
fn told(daemon: &Daemon, health: &str, since: SystemTime) -> Result<SystemTime> {
    let what = format!("backend web/backend0 is {health}:");
    wait_for(&what, SOON, || {
        let log = daemon.log();
        let line = log.lines().rev().find(|line| line.contains(&what))?;
        // `[2026-11-27T14:41:00.123Z INFO  ballast::health::scheduler] ...`
        let time = line.trim_start_matches('[').split_whitespace().next()?;
        let time = humantime::parse_rfc3339(time).ok()?;
        // The log has milliseconds.
        (time + Duration::from_millis(1) > since).then_some(time)
    })
}
