//! Members of etcd die, a majority of them is lost, a load balancer is cut off: nobody who is served notices.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{HttpLoad, HttpLoadSettings, VIP_V4, require_root};

use crate::scene::{PORT, SOON, Scene};

/// What is promised of an idle machine, and what a busy one is given.
fn at_most(promised: Duration) -> Duration {
    if std::env::var_os("BALLAST_LONG").is_some() { promised } else { promised * 5 }
}

const CHANGE: Duration = Duration::from_secs(1);
const HEALING: Duration = Duration::from_secs(5);

#[test]
fn a_change_is_live_everywhere_and_no_loss_of_etcd_stops_a_request() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(3, 3)?;
    let to = SocketAddr::new(VIP_V4, PORT);
    let load =
        HttpLoad::start(scene.lab.client(0), to, HttpLoadSettings { threads: 2, ..Default::default() })?;
    scene.wait_alike(&["active", "active", "active"])?;
    for member in 0..3 {
        let all_well = |fleet: &serde_json::Value| {
            let members = fleet["members"].as_array().map_or(&[][..], Vec::as_slice);
            members.len() == 3 && members.iter().all(|one| one["marks"].as_array().is_some_and(Vec::is_empty))
        };
        scene.wait_fleet(member, "three members are well", all_well)?;
    }

    // A change on one is live on all.
    scene.daemons[0].cli_checked(["backend", "drain", "web", "backend0"])?;
    let took = scene.wait_alike(&["draining", "active", "active"])?;
    println!("live on all members {} ms after the command", took.as_millis());
    ensure!(took < at_most(CHANGE), "it took {took:?}");
    let origin = scene.daemons[1].status_json()?["services"][0]["origin"]["kind"].clone();
    assert_eq!(origin, "fleet");

    // Two at the same moment, of different objects: both hold.
    thread::scope(|scope| {
        let change = |member: usize, backend: &'static str, weight: &'static str| {
            let daemon = &scene.daemons[member];
            scope.spawn(move || daemon.cli_checked(["backend", "set", "web", backend, "--weight", weight]))
        };
        let both = [change(1, "backend1", "3"), change(2, "backend2", "5")];
        both.into_iter().try_for_each(|one| one.join().expect("no panic").map(drop))
    })?;
    scene.wait_alike(&["draining", "active", "active"])?;
    let weights = scene.daemons[0].status_json()?;
    let weight = |number: usize| weights["services"][0]["backends"][number]["weight"].as_u64();
    assert_eq!((weight(1), weight(2)), (Some(3), Some(5)));

    // The leader dies.
    let leader = scene.etcd.leader()?;
    scene.etcd.kill(leader)?;
    scene.insist(1, &["backend", "enable", "web", "backend0"])?;
    scene.wait_alike(&["active", "active", "active"])?;

    // So does the majority: nothing can be changed, everything goes on, and a restart does, too.
    let another = scene.etcd.alive()[0];
    scene.etcd.kill(another)?;
    for member in 0..3 {
        let said = scene.refused(member, &["backend", "drain", "web", "backend1"])?;
        ensure!(said.contains("nothing changed") && said.contains("etcd"), "{said}");
        scene.wait_connected(member, false)?;
        assert_eq!(scene.daemons[member].metric("ballast_fleet_connected")?, 0.0);
    }
    let shown = scene.daemons[1].cli_checked(["status", "--ready"])?;
    ensure!(shown.contains("CUT OFF FROM THE FLEET"), "{shown}");
    let before = scene.daemons[2].status_json()?["services"][0]["fingerprint"].clone();
    scene.daemons[2].kill9()?;
    scene.daemons[2].launch()?;
    scene.daemons[2].wait_ready(SOON)?;
    assert_eq!(scene.daemons[2].status_json()?["services"][0]["fingerprint"], before);

    // It comes back.
    scene.etcd.revive()?;
    scene.etcd.leader()?;
    let healed = std::time::Instant::now();
    for member in 0..3 {
        scene.wait_connected(member, true)?;
    }
    println!("all members are connected {} ms after etcd has a leader", healed.elapsed().as_millis());
    ensure!(healed.elapsed() < at_most(HEALING), "it took {:?}", healed.elapsed());
    scene.insist(2, &["backend", "drain", "web", "backend2"])?;
    scene.wait_alike(&["active", "active", "draining"])?;

    cut_off_one(&scene)?;

    let samples = load.stop();
    let failed: Vec<_> = samples.iter().filter_map(|one| one.outcome.as_ref().err()).collect();
    println!("{} requests, {} failed", samples.len(), failed.len());
    ensure!(
        samples.len() > 100 && failed.is_empty(),
        "{} of {} failed: {failed:?}",
        failed.len(),
        samples.len()
    );
    scene.daemons[0].accounts().map(drop)
}

/// The load balancer that serves the client loses sight of etcd, whose history is forgotten meanwhile.
fn cut_off_one(scene: &Scene) -> Result<()> {
    scene.etcd.ways(scene.lab.balancer(0), "add")?;
    scene.wait_connected(0, false)?;
    let said = scene.refused(0, &["backend", "drain", "web", "backend1"])?;
    ensure!(said.contains("nothing changed"), "{said}");
    scene.daemons[1].cli_checked(["backend", "enable", "web", "backend2"])?;
    scene.daemons[2].cli_checked(["backend", "drain", "web", "backend1"])?;
    scene.etcd.compact()?;
    let gone = |fleet: &serde_json::Value| fleet["members"].as_array().is_some_and(|all| all.len() == 2);
    scene.wait_fleet(1, "the one that is cut off is gone", gone)?;
    let there = scene.daemons[0].fleet_status()?;
    ensure!(there["trouble"].as_str().is_some_and(|why| why.contains("cut off")), "{there}");
    let old = scene.daemons[0].status_json()?;
    let admin = old["services"][0]["backends"][1]["admin"].as_str().context("no admin")?;
    assert_eq!(admin, "active");
    scene.etcd.ways(scene.lab.balancer(0), "del")?;
    let took = scene.wait_alike(&["active", "draining", "active"])?;
    println!("a member that was cut off is like the others {} ms after it is not any more", took.as_millis());
    ensure!(took < at_most(HEALING), "it took {took:?}");
    Ok(())
}
