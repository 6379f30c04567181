//! What replication costs: nothing while nothing changes, and little while something does.

use std::time::Instant;

use anyhow::Result;
use lb_tests::lab::{Daemon, let_pass, require_root, try_all, try_wait_until};

use crate::scene::{SECOND, SOON, Scene, Wanted, number, peer};

/// Datagrams sent so far, hellos aside, and flows in them.
fn sent(member: &Daemon) -> Result<(u64, u64)> {
    let peer = peer(member)?;
    let kinds = ["slots", "flows", "ack", "complete"];
    Ok((kinds.iter().map(|kind| number(&peer["datagrams_sent"][kind])).sum(), number(&peer["flows_sent"])))
}

fn tracked(scene: &Scene) -> Result<Vec<u64>> {
    let of = |member: &Daemon| Ok(number(&member.status_json()?["tracked_slots"]));
    scene.members.iter().map(of).collect()
}

#[test]
fn in_steady_state_nothing_is_sent_and_in_a_change_each_flow_once_in_its_idle_timeout() -> Result<()> {
    require_root!(Ok(()));
    let mut wanted = Wanted { lines: vec!["flow_idle_timeout = \"2s\""], ..Wanted::default() };
    let mut scene = Scene::new(&wanted)?;
    let flows = scene.open(400)?;
    scene.clients.pace(800)?;
    try_wait_until("each has told the other all, and nothing is tracked", 3 * SOON, || {
        let is_done = |member: &Daemon| {
            let peer = peer(member)?;
            let complete = number(&peer["datagrams_sent"]["complete"]);
            Ok(complete > 0 && peer["pending"] == 0)
        };
        Ok(try_all(&scene.members, is_done)? && tracked(&scene)? == [0, 0])
    })?;
    let before = [sent(&scene.members[0])?, sent(&scene.members[1])?];
    let quiet = Instant::now();
    let hellos = number(&peer(&scene.members[0])?["datagrams_sent"]["hello"]);
    let_pass(3 * SECOND);
    assert_eq!([sent(&scene.members[0])?, sent(&scene.members[1])?], before, "it is not quiet");
    let hellos = number(&peer(&scene.members[0])?["datagrams_sent"]["hello"]) - hellos;
    let most = quiet.elapsed().as_secs() + 2;
    assert!((2..=most).contains(&hellos), "{hellos} hellos in {:?}", quiet.elapsed());

    let began = Instant::now();
    wanted.serving = 4..8;
    scene.change(&wanted)?;
    scene.exchange()?;
    let_pass(5 * SECOND);
    let told = sent(&scene.members[0])?.1;
    // The first, and one in each idle timeout after it.
    let most = flows * (1 + began.elapsed().as_secs() / 2);
    assert!((flows * 2..=most).contains(&told), "{told} records of {flows} flows, at most {most}");
    assert_eq!(sent(&scene.members[1])?.1, 0, "who has seen no packet has nothing to tell");

    Ok(())
}
