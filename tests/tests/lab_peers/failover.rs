//! One member dies while backends are being replaced.

use anyhow::Result;
use lb_tests::lab::{VIP_V4, VIP_V6, require_root};

use crate::scene::{Scene, Wanted};

/// Connections from before a change, from after it and from after another, all of them living, and then the member that has seen
/// them is gone. Returns how many there were, and how many broke.
fn fail_over(wanted: &Wanted) -> Result<(u64, usize)> {
    let mut wanted = wanted.clone();
    let mut scene = Scene::new(&wanted)?;
    scene.open(500)?;
    for serving in [4..8, 2..6] {
        wanted.serving = serving;
        scene.change(&wanted)?;
        scene.open(500)?;
    }
    let alive = scene.exchange()?.alive();
    if wanted.replicates {
        scene.wait_told(1, alive)?;
    }
    scene.cut_off(0)?;
    scene.lead_to(1)?;
    let report = scene.clients.exchange()?;
    assert_eq!(report.failed(), 0, "{}", report.losses());
    Ok((alive, report.broken()))
}

#[test]
fn a_member_that_dies_while_backends_are_replaced_takes_no_connection_with_it() -> Result<()> {
    require_root!(Ok(()));
    for (vip, lines) in [(VIP_V4, vec![]), (VIP_V6, vec!["algorithm = \"flow-hash\""])] {
        let (alive, broken) = fail_over(&Wanted { vip, lines, ..Wanted::default() })?;
        assert_eq!((alive, broken), (1500, 0), "{vip}");
    }
    Ok(())
}

/// Nothing in a table says where these go.
#[test]
fn connections_that_least_connections_has_placed_survive_as_well() -> Result<()> {
    require_root!(Ok(()));
    let lines = vec!["algorithm = \"least-connections\""];
    assert_eq!(fail_over(&Wanted { lines, ..Wanted::default() })?, (1500, 0));
    Ok(())
}

/// The counterpart, and the number that the documentation tells.
#[test]
fn without_replication_a_member_that_dies_in_a_change_breaks_connections() -> Result<()> {
    require_root!(Ok(()));
    let (alive, broken) = fail_over(&Wanted { replicates: false, ..Wanted::default() })?;
    println!("without replication {broken} of {alive} connections broke");
    assert!(broken > 400, "{broken} of {alive}");
    Ok(())
}
