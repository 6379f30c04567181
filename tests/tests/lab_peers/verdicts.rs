//! Members that see their backends differently for a while.

use anyhow::{Result, ensure};
use lb_tests::lab::{let_pass, require_root, try_all, try_wait_until};

use crate::scene::{SECOND, SOON, Scene, Wanted, number, peer};

/// Longer than flows may be silent, so that windows end while verdicts differ.
#[test]
fn members_whose_tables_differ_for_a_while_break_nothing() -> Result<()> {
    require_root!(Ok(()));
    let wanted = Wanted { lines: vec!["flow_idle_timeout = \"2s\""], ..Wanted::default() };
    let mut scene = Scene::new(&wanted)?;
    scene.clients.pace(900)?;
    scene.open(300)?;
    // The second thinks that one less is there; the first knows nothing of it.
    scene.members[1].cli_checked(["backend", "drain", "web", "backend0"])?;
    scene.open(300)?;
    try_wait_until("slots are tracked on both", SOON, || {
        try_all(&scene.members, |member| Ok(number(&member.status_json()?["tracked_slots"]) > 0))
    })?;
    // Windows and what keeps slots tracked after them would have ended.
    let_pass(8 * SECOND);
    assert_eq!(peer(&scene.members[0])?["tables_equal"], false);
    scene.open(300)?;
    // Of each flow that is tracked the first member tells; some are in slots that are the same.
    let entries = |member: usize| {
        Ok::<_, anyhow::Error>(number(&scene.members[member].status_json()?["flow_table"]["entries"]))
    };
    try_wait_until("both have the same flows", SOON, || {
        let [first, second] = [entries(0)?, entries(1)?];
        ensure!(first > 0 && first == second, "they have {first} and {second}");
        Ok(true)
    })?;
    for member in [1, 0, 1] {
        scene.lead_to(member)?;
        scene.exchange()?;
    }
    // And when they agree again.
    scene.members[1].cli_checked(["backend", "reset", "web", "backend0"])?;
    try_wait_until("they agree", SOON, || peer(&scene.members[0]).map(|peer| peer["tables_equal"] == true))?;
    for member in [0, 1] {
        scene.lead_to(member)?;
        scene.exchange()?;
    }
    Ok(())
}
