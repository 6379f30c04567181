//! A start that is killed, or whose calls fail.

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Call, Fault, require_root, wait_until};

use crate::points;
use crate::refusals::ERRORS;
use crate::scene::{SOON, Scene};

#[test]
fn a_start_that_is_killed_at_any_call_leaves_what_there_was_and_the_next_one_goes_on() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new()?;
    let calls = calls_of_a_start(&mut scene)?;
    for (number, at) in points(calls, 3).enumerate() {
        if number % 10 == 9 {
            // Flows that were begun and never went on fill the flow table, and are young again after each start.
            scene.start_afresh()?;
        }
        scene.stop()?;
        // Edited meanwhile: what the start is to change, it may have changed or not.
        scene.write(number % 2)?;
        scene.launch_armed(Call::Bpf, at, Fault::Kill)?;
        let what = format!("killed at bpf call {at} of {calls}");
        scene.dead().context(what.clone())?;
        scene.is_old_or_new().context(what.clone())?;
        scene.restart(number % 2).context(what)?;
    }
    scene.restarts_were_quick()
}

#[test]
fn a_start_whose_call_fails_says_so_or_does_without_and_what_there_was_goes_on() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new()?;
    let calls = calls_of_a_start(&mut scene)?;
    let mut refused = 0;
    for (number, at) in points(calls, 4).enumerate() {
        let (name, errno, _) = ERRORS[number % ERRORS.len()];
        let what = format!("{name} at bpf call {at} of {calls}");
        scene.stop()?;
        std::fs::write(&scene.daemon.files().log, "")?;
        scene.launch_armed(Call::Bpf, at, Fault::Errno(errno))?;
        let ended = scene.daemon.wait_ready(SOON).is_err();
        ensure!(scene.calls.struck().is_some(), "{what}: the call never came");
        scene.no_panic().context(what.clone())?;
        if ended {
            refused += 1;
            let code = scene.daemon.wait_exit(SOON)?.code();
            let log = scene.daemon.log();
            // Where the loader makes up for a failure, it says what came of that.
            let told = log.lines().any(|line| line.starts_with("error: "));
            ensure!(code == Some(1) && told, "{what}: exit code {code:?}: {log}");
            scene.is(0).context(what.clone())?;
            scene.restart(0).context(what)?;
        } else {
            scene.is(0).context(what)?;
        }
    }
    ensure!(refused > 0, "no call was missed");
    Ok(())
}

/// How many bpf calls it takes before the daemon is ready; those who ask it something make it call, too.
fn calls_of_a_start(scene: &mut Scene) -> Result<usize> {
    scene.stop()?;
    std::fs::write(&scene.daemon.files().log, "")?;
    scene.calls = scene.daemon.launch_watched()?;
    wait_until("the daemon says that it is ready", SOON, || scene.daemon.log().contains("ready\n"))?;
    let calls = scene.calls.seen(Call::Bpf);
    ensure!(calls > 0, "a start makes no bpf calls");
    Ok(calls)
}
