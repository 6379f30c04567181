//! A state directory that takes nothing more.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab, Service, UdpServer, UdpTraffic, VIP_V4, require_root};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 53;

#[test]
fn a_state_directory_that_is_full_or_read_only_refuses_what_has_to_be_kept_and_loses_nothing() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let _servers: Vec<_> =
        lab.backends().map(|node| UdpServer::start(node, &[PORT])).collect::<Result<_>>()?;
    let vip = SocketAddr::new(VIP_V4, PORT);
    let config = |grace: u32| {
        let service =
            Service::new("web", vip, "udp", "l2-dsr").line(&format!("unhealthy_grace = \"{grace}s\""));
        service.nodes(lab.backends(), vip).toml()
    };
    let mut daemon = Daemon::start(&lab, 0, &config(1))?;
    daemon.cli_checked(["backend", "set", "web", "backend0", "--weight", "3"])?;
    assert_nothing_lost(&lab)?;
    let kept = fs::read(daemon.files().state_dir.join("state.toml"))?;

    let state = daemon.files().state_dir.display().to_string();
    let full = lab.directory().join("full");
    fs::create_dir(&full)?;
    let full = full.display();
    // What the daemon finds in the place of its directory, in a mount namespace that ends with it.
    let scenes = [
        (
            format!(
                "mount -t tmpfs -o size=64k,mode=700 tmpfs {full} && cp -a {state}/. {full}/ && mount --bind {full} {state}"
            ),
            "No space left",
        ),
        (
            format!("mount --bind {state} {state} && mount -o remount,bind,ro {state}"),
            "Read-only file system",
        ),
    ];
    for (number, (scene, why)) in scenes.iter().enumerate() {
        ensure!(daemon.sigterm()?.success(), "{why}: it did not stop as it should");
        let script = format!("{scene} && exec \"$@\"");
        daemon.start_through(["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        daemon.launch()?;
        daemon.wait_ready(SOON)?;
        let pid = daemon.process_id().context("it runs")?;
        let seen = Path::new(&format!("/proc/{pid}/root")).join(state.trim_start_matches('/'));
        let filler = seen.join("filler");
        if number == 0 {
            // Until there is no room left.
            ensure!(fs::write(&filler, vec![0; 1 << 20]).is_err());
        }
        let before = (revision(&daemon)?, daemon.cli_checked(["service", "list", "-o", "json"])?);
        for change in [
            &["service", "add", "made", "203.0.113.77:80"][..],
            &["backend", "set", "web", "backend0", "--weight", "9"],
            &["backend", "drain", "web", "backend1"],
        ] {
            let refused = daemon.cli(change.iter().copied())?;
            assert_eq!(refused.status.code(), Some(1), "{why}: {refused:?}");
            ensure!(
                refused.stderr.contains("can't be kept") && refused.stderr.contains(why),
                "{why}: {refused:?}"
            );
            ensure!(refused.stderr.contains("state.toml"), "{why}: {refused:?}");
        }
        let after = (revision(&daemon)?, daemon.cli_checked(["service", "list", "-o", "json"])?);
        assert_eq!(after, before, "{why}");
        assert_eq!(weight(&daemon)?, 3, "{why}: what was kept counts");
        assert_eq!(fs::read(seen.join("state.toml"))?, kept, "{why}");
        // What the file says needs no room, but a start that finds the file wrong would not know it.
        daemon.write_config(&config(number as u32 + 2))?;
        let reloaded = daemon.cli(["reload"])?;
        ensure!(reloaded.status.success(), "{why}: {reloaded:?}");
        ensure!(
            reloaded.stderr.contains("applied.toml") && reloaded.stderr.contains(why),
            "{why}: {reloaded:?}"
        );
        assert_nothing_lost(&lab).with_context(|| why.to_string())?;
        if number == 0 {
            fs::remove_file(&filler)?;
            daemon.cli_checked(["service", "add", "made", "203.0.113.77:80"])?;
            daemon.cli_checked(["service", "remove", "made"])?;
            daemon.reload()?;
        }
    }
    Ok(())
}

fn revision(daemon: &Daemon) -> Result<Value> {
    Ok(daemon.status_json()?["revision"].clone())
}

fn weight(daemon: &Daemon) -> Result<i64> {
    let listed: Value = serde_json::from_str(&daemon.cli_checked(["backend", "list", "web", "-o", "json"])?)?;
    listed[0]["weight"].as_i64().context("a weight")
}

fn assert_nothing_lost(lab: &Lab) -> Result<()> {
    let sources = (0..32).map(|number| lab.client(0).source_port(number, 4000, VIP_V4));
    let report =
        UdpTraffic::new(sources, SocketAddr::new(VIP_V4, PORT)).rate(1_000).run(lab.client(0), 500)?;
    ensure!(report.lost.is_empty() && report.refused == 0, "{report:?}");
    Ok(())
}
