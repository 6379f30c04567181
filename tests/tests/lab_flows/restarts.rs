//! The daemon is killed, restarted or stopped inside a change.

use std::time::SystemTime;

use anyhow::{Context, Result};
use lb_tests::lab::{require_root, wait_until};
use nix::sys::signal::Signal;

use crate::scene::{SECOND, SOON, Scene};

#[test]
fn connections_survive_a_daemon_that_is_killed_restarted_or_stopped_inside_a_change() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(20, 0..4, &[], 4_000)?;
    let before = scene.clients.open(4_000)?;
    scene.clients.pace(4_000)?;

    scene.change(4..8, &[])?;
    scene.daemon.kill9()?;
    scene.messages(5_000).context("without a daemon")?;
    scene.daemon.launch()?;
    scene.daemon.wait_ready(SOON)?;
    scene.change(8..12, &[]).context("after a kill")?;
    assert_eq!(scene.messages(5_000)?.losses(), "");

    assert!(scene.daemon.sigterm()?.success());
    scene.daemon.launch()?;
    scene.daemon.wait_ready(SOON)?;
    scene.change(12..16, &[]).context("after a restart")?;
    assert_eq!(scene.messages(5_000)?.losses(), "");

    // Longer than the scan may be away before it begins everything anew.
    scene.daemon.signal(Signal::SIGSTOP)?;
    let stopped = SystemTime::now();
    wait_until("six seconds of traffic without a daemon", 10 * SECOND, || {
        stopped.elapsed().is_ok_and(|elapsed| elapsed > 6 * SECOND)
    })?;
    scene.daemon.signal(Signal::SIGCONT)?;
    scene.change(16..20, &[]).context("after a stop")?;
    assert_eq!(scene.messages(5_000)?.losses(), "");

    let after = scene.clients.exchange()?;
    assert_eq!((after.losses().as_str(), &after.open), ("", &before.open));
    Ok(())
}

/// While the daemon is stopped only traffic moves the coarse clock, and this much hardly does: what was seen just now
/// looks old when the clock jumps.
#[test]
fn a_daemon_that_slept_longer_than_the_idle_timeout_forgets_no_connection() -> Result<()> {
    require_root!(Ok(()));
    let short = ["flow_idle_timeout = \"2s\""];
    let mut scene = Scene::new(8, 0..4, &short, 20)?;
    let before = scene.clients.open(20)?;
    scene.clients.pace(20)?;
    scene.change(4..8, &short)?;
    // Every connection was seen after the change.
    assert_eq!(scene.messages(40)?.losses(), "");
    for _ in 0..2 {
        scene.daemon.signal(Signal::SIGSTOP)?;
        assert_eq!(scene.messages(140)?.losses(), "", "while it sleeps");
        scene.daemon.signal(Signal::SIGCONT)?;
        assert_eq!(scene.messages(60)?.losses(), "", "after it slept");
    }
    let after = scene.clients.exchange()?;
    assert_eq!((after.losses().as_str(), &after.open), ("", &before.open));
    Ok(())
}
