//! How long it takes until the other knows of a flow.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::lab::{Daemon, require_root};

use crate::scene::{SOON, Scene, Wanted, number, peer};

fn received(member: &Daemon) -> Result<u64> {
    Ok(number(&peer(member)?["flows_received"]))
}

/// A look at all flows, each quarter of a second, would take longer for most of them.
#[test]
fn a_flow_is_told_when_it_is_confirmed_and_not_by_the_next_look_at_all() -> Result<()> {
    require_root!(Ok(()));
    let mut wanted = Wanted { connections: 60, ..Wanted::default() };
    let mut scene = Scene::new(&wanted)?;
    wanted.serving = 4..8;
    scene.change(&wanted)?;
    let mut lags = Vec::new();
    for _ in 0..25 {
        let (before, began) = (received(&scene.members[1])?, Instant::now());
        scene.open(1)?;
        while received(&scene.members[1])? == before {
            ensure!(began.elapsed() < SOON, "it is not told");
        }
        lags.push(began.elapsed());
    }
    lags.sort_unstable();
    println!("from its opening: {:?} to {:?}, half of them within {:?}", lags[0], lags[24], lags[12]);
    ensure!(lags[12] < Duration::from_millis(120), "{lags:?}");
    Ok(())
}
