//! A member that comes in the middle of a change.

use anyhow::Result;
use lb_tests::lab::{require_root, try_wait_until};

use crate::scene::{CONNECTIONS, SOON, Scene, Wanted};

#[test]
fn a_member_that_joins_in_the_middle_of_a_window_breaks_nothing() -> Result<()> {
    require_root!(Ok(()));
    let mut wanted = Wanted { started: 1, ..Wanted::default() };
    let mut scene = Scene::new(&wanted)?;
    let joined = |scene: &Scene, member: usize| {
        try_wait_until("it has joined", SOON, || {
            scene.members[member].status_json().map(|status| status["peers"]["joining"] == false)
        })
    };
    // Before that nobody leads traffic to it.
    joined(&scene, 0)?;
    let half = usize::from(CONNECTIONS) / 2;
    scene.open(half)?;
    // Connections of the first backends have moved slots, and of these some have not been heard of since.
    wanted.serving = 0..8;
    scene.change(&wanted)?;
    let opened = scene.open(half)?;
    scene.join(1, &wanted)?;
    joined(&scene, 1)?;
    scene.cut_off(0)?;
    scene.lead_to(1)?;
    assert_eq!(scene.exchange()?.alive(), opened);
    Ok(())
}

/// It was there before, and its program went on without it.
#[test]
fn a_daemon_that_restarts_in_a_window_gets_what_it_has_missed() -> Result<()> {
    require_root!(Ok(()));
    let mut wanted = Wanted::default();
    let mut scene = Scene::new(&wanted)?;
    let half = usize::from(CONNECTIONS) / 2;
    scene.open(half)?;
    scene.members[1].kill9()?;
    wanted.serving = 4..8;
    let config = scene.config(0, &wanted);
    scene.members[0].write_config(&config)?;
    scene.members[0].reload()?;
    let opened = scene.open(half)?;
    let config = scene.config(1, &wanted);
    scene.members[1].write_config(&config)?;
    scene.members[1].launch()?;
    scene.members[1].wait_ready(SOON)?;
    scene.wait_up()?;
    scene.exchange()?;
    scene.wait_told(1, opened)?;
    scene.cut_off(0)?;
    scene.lead_to(1)?;
    assert_eq!(scene.exchange()?.alive(), opened);
    Ok(())
}
