//! Live connections through every change of the backends: none of them breaks.

use std::net::SocketAddr;
use std::time::SystemTime;

use anyhow::{Context, Result};
use lb_tests::lab::{Daemon, Deliveries, Service, VIP_V4, VIP_V6, require_root, try_wait_until, wait_until};

use crate::scene::{DRAINED, PORT, SECOND, SOON, Scene, is_syn};

#[test]
fn twenty_backends_are_replaced_one_by_one_under_20k_connections_and_none_breaks() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(40, 0..20, &[], 20_000)?;
    let before = scene.clients.open(20_000)?;
    assert_eq!((before.alive(), before.open.len()), (20_000, 20), "{}", before.losses());
    scene.clients.pace(4_000)?;
    scene.clients.visit(300)?;
    for replaced in 0..20 {
        let name = format!("backend{replaced}");
        let deliveries = Deliveries::watch([scene.lab.backend(replaced)], scene.to)?;
        wait_until("clients come before the change", SOON, || deliveries.has(is_syn))?;
        scene.daemon.cli_checked(["backend", "drain", "web", &name])?;
        let drained = SystemTime::now() + DRAINED;
        scene.visits(100, drained)?;
        let opened = deliveries.stop()?.into_iter().filter(is_syn);
        let (late, before): (Vec<_>, Vec<_>) = opened.partition(|delivery| delivery.time > drained);
        assert!(!before.is_empty(), "{name} was in use");
        assert!(late.is_empty(), "{name} got {} new flows late: {:?}", late.len(), late.first());
        scene.change(replaced + 1..replaced + 21, &[])?;
        let report = scene.clients.report()?;
        assert_eq!(report.losses(), "", "after {} replacements", replaced + 1);
    }
    scene.visits(500, SystemTime::now())?;
    scene.clients.visit(0)?;
    scene.clients.pace(0)?;
    let after = scene.clients.exchange()?;
    assert_eq!((after.losses().as_str(), &after.open), ("", &before.open));
    let served = scene.servers.served()?;
    assert!((20..40).all(|new| served[&format!("backend{new}")].accepted > 0), "{served:?}");
    assert!((0..20).all(|old| {
        let name = format!("backend{old}");
        served[&name].open == before.open[&name]
    }));
    scene.daemon.accounts().map(drop)
}

#[test]
fn ten_backends_become_fifty_and_ten_again_and_no_connection_breaks() -> Result<()> {
    require_root!(Ok(()));
    let by_tuple: &[_] = &["algorithm = \"flow-hash\""];
    for (vip, lines) in [(VIP_V4, &[][..]), (VIP_V6, by_tuple)] {
        let mut scene = Scene::at(vip, 50, 0..10, lines, 8_000)?;
        let at_ten = scene.clients.open(4_000)?;
        scene.clients.pace(4_000)?;
        scene.change(0..50, lines)?;
        let at_fifty = scene.clients.open(4_000)?;
        assert_eq!(
            (at_fifty.losses().as_str(), at_fifty.open.len()),
            ("", 50),
            "new connections go to all of them"
        );
        scene.change(0..10, lines)?;
        let after = scene.clients.exchange()?;
        assert_eq!((after.losses().as_str(), &after.open), ("", &at_fifty.open));
        assert!(at_ten.open.iter().all(|(name, count)| after.open[name] >= *count));
        let again = scene.clients.open(1_000)?;
        let grown =
            again.open.iter().filter(|(name, count)| **count > after.open[*name]).map(|(name, _)| name);
        let grown: Vec<_> = grown.collect();
        assert!(grown.len() == 10 && grown.iter().all(|name| name.len() == "backend0".len()), "{grown:?}");
    }
    Ok(())
}

/// The counterpart: it is tracking that keeps them, and it can be turned off.
#[test]
fn without_tracking_a_change_breaks_connections() -> Result<()> {
    require_root!(Ok(()));
    let never = ["tracking = \"never\""];
    let mut scene = Scene::new(8, 0..4, &never, 2_000)?;
    assert_eq!(scene.clients.open(2_000)?.losses(), "");
    scene.change(4..8, &never)?;
    let report = scene.clients.exchange()?;
    assert_eq!(report.broken(), 2_000, "all backends were replaced");
    assert_eq!(report.failed(), 0);
    Ok(())
}

#[test]
fn a_backend_with_a_new_address_gets_new_connections_there_and_keeps_the_old_ones() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(3, 0..2, &[], 3_000)?;
    let before = scene.clients.open(2_000)?;
    scene.clients.pace(2_000)?;
    scene.clients.visit(300)?;
    let deliveries = Deliveries::watch([scene.lab.backend(0)], scene.to)?;
    // backend0 is where backend2 was.
    let service = Service::new("web", scene.to, "tcp", "l2-dsr").nodes([scene.lab.backend(1)], scene.to);
    let elsewhere = SocketAddr::new(scene.lab.backend(2).address(scene.to.ip()), PORT);
    scene.daemon.write_config(&service.backend("backend0", elsewhere, 1).toml())?;
    scene.daemon.reload()?;
    let drained = SystemTime::now() + DRAINED;
    scene.visits(300, drained)?;
    let late = deliveries.stop()?;
    let late = late.iter().find(|one| is_syn(one) && one.time > drained);
    assert_eq!(late, None, "a new flow at the old address");
    scene.clients.visit(0)?;
    let after = scene.clients.open(1_000)?;
    assert_eq!(after.losses(), "");
    assert_eq!(after.open["backend0"], before.open["backend0"]);
    assert!(after.open["backend2"] > 400, "{:?}", after.open);
    Ok(())
}

#[test]
fn after_the_last_change_has_aged_out_nothing_is_tracked() -> Result<()> {
    require_root!(Ok(()));
    let short = ["flow_idle_timeout = \"2s\""];
    let mut scene = Scene::new(8, 0..4, &short, 2_000)?;
    let before = scene.clients.open(2_000)?;
    // Every connection has a message a second.
    scene.clients.pace(2_000)?;
    assert_eq!(tracked(&scene.daemon)?, [0.0; 2]);
    for serving in [1..8, 0..8, 0..4] {
        scene.change(serving, &short)?;
    }
    try_wait_until("slots are tracked", 3 * SECOND, || {
        tracked(&scene.daemon).map(|counts| counts.iter().all(|count| *count > 0.0))
    })?;
    try_wait_until("nothing is tracked", 20 * SECOND, || {
        tracked(&scene.daemon).map(|counts| counts == [0.0; 2])
    })?;
    // And it is no entry that keeps them where they are: there is none.
    try_wait_until("no flow has an entry", 5 * SECOND, || {
        scene.daemon.metric("ballast_flow_table_entries").map(|entries| entries == 0.0)
    })?;
    assert_eq!(scene.messages(4_000)?.losses(), "");
    let report = scene.clients.report()?;
    assert_eq!((report.losses().as_str(), &report.open), ("", &before.open));
    Ok(())
}

#[test]
fn connections_that_outlive_the_window_of_a_change_keep_their_slots_tracked_until_they_end() -> Result<()> {
    require_root!(Ok(()));
    let short = ["flow_idle_timeout = \"2s\""];
    let mut scene = Scene::new(8, 0..4, &short, 500)?;
    let before = scene.clients.open(500)?;
    scene.clients.pace(500)?;
    scene.change(4..8, &short)?;
    // Three times as long as the idle timeout.
    assert_eq!(scene.messages(3_000)?.losses(), "");
    let report = scene.clients.exchange()?;
    assert_eq!((report.losses().as_str(), &report.open), ("", &before.open));
    assert!(tracked(&scene.daemon)?.iter().all(|count| *count > 0.0));
    scene.clients.close(before.open.keys().map(String::as_str))?;
    try_wait_until("nothing is tracked", 20 * SECOND, || {
        tracked(&scene.daemon).map(|counts| counts == [0.0; 2])
    })
}

/// Tracked slots, as the metrics and the status have it.
fn tracked(daemon: &Daemon) -> Result<[f64; 2]> {
    let status = daemon.status_json()?["tracked_slots"].as_f64().context("a number in status")?;
    Ok([daemon.metric("ballast_tracked_slots")?, status])
}
