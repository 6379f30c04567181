//! A clock that jumps, as it does while a host sleeps.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab, require_root};

use crate::scene::{SOON, flows, same_flows, serve, services};

/// Nothing that the daemon decides depends on what time of day it is; a host's other clocks go forwards only.
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
