//! "Slow start".

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::lab::{require_root, wait_until};

use crate::scene::Scene;

#[test]
fn slow_start_gives_a_backend_that_comes_back_its_part_in_at_most_five_steps() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(2, 0, &[])?;
    // Whoever is there already has all of its part, and keeps it.
    scene.change(0, &["slow_start = \"4s\""])?;
    scene.expect("healthy", &[0, 1])?;
    scene.kill(&[0])?;
    scene.expect("degraded", &[1])?;
    let began = Instant::now();
    scene.kill(&[])?;
    wait_until("it is back", Duration::from_secs(10), || scene.share(0) > 0.0)?;
    let mut steps = vec![scene.share(0)];
    let mut killed = false;
    while steps.last().is_some_and(|share| *share < 0.499) {
        ensure!(began.elapsed() < Duration::from_secs(12), "{steps:?}");
        let share = scene.share(0);
        if steps.last() != Some(&share) {
            steps.push(share);
        }
        // A restart goes on where it was.
        if !killed && steps.len() == 3 {
            scene.daemon.kill9()?;
            scene.daemon.launch()?;
            scene.daemon.wait_ready(crate::scene::SOON)?;
            ensure!(scene.share(0) >= share, "{steps:?}, and after a restart {}", scene.share(0));
            killed = true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // A tenth beside ten tenths.
    ensure!(steps.len() <= 5 && steps.is_sorted() && (steps[0] - 1.0 / 11.0).abs() < 0.01, "{steps:?}");
    ensure!(began.elapsed() > Duration::from_secs(3), "all of it after {:?}", began.elapsed());
    Ok(())
}
