//! Calls that fail inside a change.

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Call, Fault, require_root, wait_until};

use crate::points;
use crate::scene::{SOON, Scene};

pub(crate) const ERRORS: [(&str, i32, &str); 4] = [
    ("ENOMEM", libc::ENOMEM, "Cannot allocate memory"),
    ("EPERM", libc::EPERM, "Operation not permitted"),
    ("EINTR", libc::EINTR, "Interrupted system call"),
    ("ENOSPC", libc::ENOSPC, "No space left on device"),
];

#[test]
fn a_call_that_fails_inside_a_change_is_told_and_the_old_state_goes_on() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new()?;
    scene.calls.count();
    scene.change_to(1)?;
    let calls = scene.calls.seen(Call::MapUpdate);
    for at in points(calls, 2) {
        scene.start_afresh()?;
        for (name, errno, text) in ERRORS {
            let what = format!("{name} at map update {at} of {calls}");
            scene.calls.arm(Call::MapUpdate, at, Fault::Errno(errno));
            failed_in_a_change(&mut scene, text).context(what)?;
        }
        scene.change_to(1).context("the same change again")?;
        scene.is(1).context("the same change again")?;
    }
    Ok(())
}

/// The daemon looks after flows all the time.
#[test]
fn a_call_that_fails_between_changes_stops_nothing() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new()?;
    for (number, (name, errno, _)) in ERRORS.into_iter().enumerate() {
        scene.calls.arm(Call::Bpf, 0, Fault::Errno(errno));
        wait_until("a call is made", SOON, || scene.calls.struck().is_some())?;
        scene.no_panic()?;
        let shape = (number + 1) % 2;
        scene.change_to(shape).context(name)?;
        scene.is(shape).context(name)?;
    }
    Ok(())
}

fn failed_in_a_change(scene: &mut Scene, text: &str) -> Result<()> {
    scene.write(1)?;
    let told = scene.daemon.cli(["reload"])?;
    let struck = scene.calls.struck();
    scene.calls.count();
    ensure!(struck.is_some(), "the call never came");
    ensure!(told.status.code() == Some(1), "exit code {:?}: {}", told.status.code(), told.stderr);
    ensure!(told.stderr.contains(text), "{text:?} is missing in {}", told.stderr);
    scene.is(0).context("after it failed")?;
    scene.no_panic()
}
