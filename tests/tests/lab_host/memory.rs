//! What a daemon remembers, and what becomes of it.

use std::fs;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab, require_root};
use serde_json::Value;

use crate::scene::{PORT, SOON, flows, same_flows, serve, services, traffic};

#[test]
fn a_state_file_that_is_torn_in_the_middle_of_a_drain_loses_the_drain_and_no_flow() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(3).build()?;
    let _servers = serve(&lab)?;
    let mut daemon = Daemon::start(&lab, 0, &services(&lab, 3))?;
    let before = flows(&lab)?;
    let run = traffic(&lab, lb_tests::lab::VIP_V4).start(lab.client(0))?;
    daemon.cli_checked(["backend", "drain", "udp4", "backend0"])?;
    ensure!(share(&daemon, "backend0")? == 0.0);
    daemon.kill9()?;
    let file = daemon.files().state_dir.join("state.toml");
    let text = fs::read(&file)?;
    fs::write(&file, &text[..text.len() / 2])?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    let status = daemon.status_json()?;
    let error = status["state_error"].as_str().unwrap_or_default();
    ensure!(error.contains("makes no sense and was set aside as"), "{error}");
    ensure!(file.with_file_name("state.toml.bad").exists(), "it is not there");
    ensure!(share(&daemon, "backend0")? > 0.0, "the drain is forgotten, as was told");
    let report = run.finish()?;
    ensure!((report.lost.len(), report.refused) == (0, 0), "{} of {} lost", report.lost.len(), report.sent);
    ensure!(report.by_flow.iter().all(|backends| backends.len() == 1), "a flow was moved");
    same_flows(&flows(&lab)?, &before)?;
    // It can be drained again, and that is kept.
    daemon.cli_checked(["backend", "drain", "udp4", "backend0"])?;
    daemon.kill9()?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    ensure!(share(&daemon, "backend0")? == 0.0 && daemon.status_json()?["state_error"].is_null());
    Ok(())
}

#[test]
fn a_backend_that_was_removed_does_not_come_back_after_a_restart_and_a_reload() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(3).build()?;
    let _servers = serve(&lab)?;
    let mut daemon = Daemon::start(&lab, 0, &services(&lab, 2))?;
    let third = format!("{}:{PORT}", lab.backend(2).ipv4());
    daemon.cli_checked(["backend", "add", "udp4", "third", &third])?;
    // One that was added and one that was declared.
    daemon.cli_checked(["backend", "remove", "udp4", "third"])?;
    daemon.write_config(&services(&lab, 1))?;
    daemon.reload()?;
    for round in 0..2 {
        ensure!(names(&daemon)? == ["backend0"], "{:?}", names(&daemon)?);
        daemon.kill9()?;
        daemon.launch()?;
        daemon.wait_ready(SOON)?;
        ensure!(names(&daemon)? == ["backend0"], "round {round}: {:?}", names(&daemon)?);
        daemon.reload().context("a reload")?;
    }
    ensure!(names(&daemon)? == ["backend0"]);
    ensure!(share(&daemon, "backend0")? == 1.0);
    Ok(())
}

fn backends(daemon: &Daemon) -> Result<Vec<Value>> {
    let status = daemon.status_json()?;
    status["services"][0]["backends"].as_array().cloned().context("no backends")
}

fn names(daemon: &Daemon) -> Result<Vec<String>> {
    Ok(backends(daemon)?.iter().filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect())
}

fn share(daemon: &Daemon, name: &str) -> Result<f64> {
    let all = backends(daemon)?;
    let found = all.iter().find(|one| one["name"] == name).with_context(|| format!("no {name}"))?;
    found["share"].as_f64().context("no share")
}
