use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab, TcpServer, require_root, try_wait_for};

use super::{SOON, at, service, wait_verdict};

#[test]
fn checks_for_which_no_descriptor_is_left_are_skipped_and_fail_nobody() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let _server = TcpServer::start(lab.backend(0), &[80])?;
    let daemon =
        Daemon::start(&lab, 0, &at(service("web", 80, "type = \"tcp\""), lab.backend(0), 80).toml())?;
    wait_verdict(&daemon, "web", "backend0", "healthy")?;
    let pid = daemon.process_id().context("the daemon runs")?.to_string();
    let limit = |soft: &str| lab.balancer(0).run("prlimit", ["--pid", &pid, &format!("--nofile={soft}:")]);
    let skipped = || daemon.metric("ballast_health_checks_skipped_total");
    let before = skipped()?;
    // Fewer than are open: no more are to be had. The metrics can't be asked meanwhile either.
    limit("10")?;
    thread::sleep(Duration::from_secs(4));
    limit("1024")?;
    try_wait_for("the daemon can be asked again", SOON, || skipped().map(Some))?;
    let missed = skipped()? - before;
    ensure!(missed >= 3.0, "only {missed} checks were skipped");
    ensure!(!daemon.log().contains("is unhealthy"), "somebody failed for it");
    wait_verdict(&daemon, "web", "backend0", "healthy").map(drop)
}
