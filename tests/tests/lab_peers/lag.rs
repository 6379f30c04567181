//! How long it takes until the other knows of a flow.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::lab::require_root;

use crate::scene::{SOON, Scene, Wanted};

/// As the metrics have it: to ask for them takes no process, so that what is measured is not the machine.
fn received(scene: &Scene) -> Result<f64> {
    let peer = scene.address(0);
    scene.members[1].metric(&format!("ballast_peers_flows_total{{peer=\"{peer}\",direction=\"received\"}}"))
}

/// Looks at all flows need 0.29 s for half of them; what is told at once has taken 10 ms. On a machine that is busy with something else a
/// third of them is enough to tell the two apart.
#[test]
fn a_flow_is_told_when_it_is_confirmed_and_not_by_the_next_look_at_all() -> Result<()> {
    require_root!(Ok(()));
    let mut wanted = Wanted { connections: 60, ..Wanted::default() };
    let mut scene = Scene::new(&wanted)?;
    wanted.serving = 4..8;
    scene.change(&wanted)?;
    let mut lags = Vec::new();
    for _ in 0..25 {
        let (before, began) = (received(&scene)?, Instant::now());
        scene.open(1)?;
        while received(&scene)? == before {
            ensure!(began.elapsed() < SOON, "it is not told");
        }
        lags.push(began.elapsed());
    }
    lags.sort_unstable();
    println!("from its opening: {:?} to {:?}, half of them within {:?}", lags[0], lags[24], lags[12]);
    ensure!(lags[8] < Duration::from_millis(180), "{lags:?}");
    Ok(())
}
