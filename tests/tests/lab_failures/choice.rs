//! "Too few healthy" and "all unhealthy".

use anyhow::Result;
use lb_tests::lab::require_root;

use crate::scene::Scene;

#[test]
fn all_unhealthy_fail_open_or_drop_and_a_third_or_two_thirds_do_neither() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(3, 0, &[])?;
    scene.expect("healthy", &[0, 1, 2])?;
    scene.kill(&[0])?;
    scene.expect("degraded", &[1, 2])?;
    scene.kill(&[0, 1])?;
    scene.expect("degraded", &[2])?;
    scene.kill(&[0, 1, 2])?;
    scene.expect("panic", &[0, 1, 2])?;
    scene.kill(&[0, 1])?;
    scene.expect("degraded", &[2])?;
    scene.kill(&[])?;
    scene.expect("healthy", &[0, 1, 2])?;
    // The same, where all down means that nobody is to get anything.
    scene.change(0, &["on_all_down = \"drop\""])?;
    scene.kill(&[0, 1, 2])?;
    scene.expect("failing", &[])?;
    scene.kill(&[])?;
    scene.expect("healthy", &[0, 1, 2])
}

#[test]
fn too_few_healthy_panic_at_a_half_with_a_third_two_thirds_and_all_dead() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(3, 0, &["panic_threshold = 0.5", "on_all_down = \"drop\""])?;
    scene.kill(&[0])?;
    scene.expect("degraded", &[1, 2])?;
    scene.kill(&[0, 1])?;
    scene.expect("panic", &[0, 1, 2])?;
    scene.kill(&[0, 1, 2])?;
    scene.expect("failing", &[])?;
    scene.kill(&[0, 1])?;
    scene.expect("panic", &[0, 1, 2])?;
    // Two thirds are more than a tenth above a half.
    scene.kill(&[0])?;
    scene.expect("degraded", &[1, 2])?;
    scene.kill(&[])?;
    scene.expect("healthy", &[0, 1, 2])?;
    scene.change(0, &["panic_threshold = 0.5", "on_panic = \"healthy-only\""])?;
    scene.kill(&[0, 1])?;
    scene.expect("degraded", &[2])
}

#[test]
fn too_few_healthy_call_the_backup_with_a_third_two_thirds_and_all_dead() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(4, 1, &[])?;
    scene.expect("healthy", &[0, 1, 2])?;
    scene.kill(&[0, 1])?;
    scene.expect("degraded", &[2])?;
    scene.kill(&[0, 1, 2])?;
    scene.expect("degraded", &[3])?;
    scene.kill(&[0, 1, 2, 3])?;
    scene.expect("panic", &[0, 1, 2, 3])?;
    scene.kill(&[])?;
    scene.expect("healthy", &[0, 1, 2])?;
    // At a half the backup joins when one of three is left, and is enough.
    scene.change(1, &["panic_threshold = 0.5"])?;
    scene.kill(&[0, 1])?;
    scene.expect("degraded", &[2, 3])?;
    scene.kill(&[0, 1, 2])?;
    scene.expect("panic", &[0, 1, 2, 3])?;
    scene.kill(&[0])?;
    scene.expect("degraded", &[1, 2])
}

#[test]
fn a_restart_goes_on_panicking_between_the_threshold_and_a_tenth_above() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(4, 0, &["panic_threshold = 0.5"])?;
    scene.kill(&[0, 1, 2])?;
    scene.expect("panic", &[0, 1, 2, 3])?;
    // Half of them, which is enough to begin with and not enough to end it.
    scene.kill(&[0, 1])?;
    scene.healthy(2)?;
    scene.expect("panic", &[0, 1, 2, 3])?;
    let before = scene.service()["fingerprint"].clone();
    scene.daemon.kill9()?;
    scene.daemon.launch()?;
    scene.daemon.wait_ready(crate::scene::SOON)?;
    assert_eq!(scene.service()["fingerprint"], before);
    scene.expect("panic", &[0, 1, 2, 3])?;
    scene.kill(&[0])?;
    scene.expect("degraded", &[1, 2, 3])
}
