//! SIGKILL inside a change.

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Call, Fault, Watchpoint, require_root};

use crate::points;
use crate::scene::Scene;

#[test]
fn a_daemon_killed_at_any_call_of_a_change_leaves_every_flow_on_its_old_or_its_new_backend() -> Result<()> {
    require_root!(Ok(()));
    let (mut scene, mut counts) = (Scene::new()?, Vec::new());
    scene.calls.count();
    scene.change_to(1)?;
    for (call, few) in [(Call::Bpf, 3), (Call::Rename, 1), (Call::Fsync, 1)] {
        let calls = scene.calls.seen(call);
        ensure!(calls > 0, "a change makes no {call:?} calls");
        counts.push((call, calls, few));
    }
    for (call, calls, few) in counts {
        for at in points(calls, few) {
            let what = format!("killed at {call:?} call {at} of {calls}");
            scene.start_afresh()?;
            scene.calls.arm(call, at, Fault::Kill);
            killed_in_a_change(&mut scene).context(what)?;
        }
    }
    scene.restarts_were_quick()
}

/// After every hundredth slot is a point.
#[test]
fn a_daemon_killed_after_any_slot_it_publishes_leaves_every_flow_on_its_old_or_its_new_backend() -> Result<()>
{
    require_root!(Ok(()));
    let mut scene = Scene::new()?;
    let changed = scene.changed_slots.clone();
    let hundreds = changed.len() / 100;
    let (mut kills, mut half_way) = (0, 0);
    for at in points(hundreds, 3).map(|hundred| hundred * 100) {
        scene.start_afresh()?;
        let process = scene.daemon.process_id().context("the daemon runs")?;
        scene.daemon.node().run("prlimit", ["--pid", &process.to_string(), "--core=0"])?;
        let what = format!("killed after changed slot {at} of {}", changed.len());
        let watchpoint = Watchpoint::on_map(process, scene.slots * 8, changed[at]).context(what.clone())?;
        let (moved, all) = killed_in_a_change(&mut scene).context(what)?;
        drop(watchpoint);
        kills += 1;
        half_way += usize::from((1..all).contains(&moved));
    }
    ensure!(half_way + 2 >= kills, "only {half_way} of {kills} kills came between two slots");
    scene.restarts_were_quick()
}

/// A change in which the daemon is to die, and a start. Returns how many clients had been moved, and of how many.
fn killed_in_a_change(scene: &mut Scene) -> Result<(usize, usize)> {
    scene.write(1)?;
    // Whoever asked for it is told nothing, or that it was done.
    let _ = scene.daemon.cli(["reload"])?;
    scene.dead()?;
    let moved = scene.moved()?;
    scene.is_old_or_new().context("without a daemon")?;
    scene.restart(1)?;
    scene.change_to(0)?;
    scene.is(0).context("after the way back")?;
    Ok(moved)
}
