//! A change that is written down before it is made: a service of a thousand backends, asked for over the API.

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Call, Fault, Output, VIP_V4, require_root};
use serde_json::{Value, json};

use crate::points;
use crate::refusals::ERRORS;
use crate::scene::{MADE_PORT, Scene, address};

#[test]
fn a_daemon_killed_while_a_change_is_written_down_has_made_all_of_it_or_nothing() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new()?;
    scene.calls.count();
    let answer = make(&scene)?;
    let calls = [Call::Fsync, Call::Rename, Call::Bpf].map(|call| (call, scene.calls.seen(call)));
    ensure!(scene.is_made()?, "it is not made: {}", answer.stdout);
    scene.daemon.cli_checked(["service", "remove", "made"])?;
    let mut made = 0;
    for (call, calls) in calls {
        ensure!(calls > 0, "it makes no {call:?} calls");
        let few = if call == Call::Bpf { 1 } else { calls };
        for at in points(calls, few) {
            let what = format!("killed at {call:?} call {at} of {calls}");
            scene.calls.arm(call, at, Fault::Kill);
            make(&scene)?;
            scene.dead().context(what.clone())?;
            scene.is(0).context(what.clone())?;
            ensure!(!scene.is_made()?, "{what}: packets go to what was not yet published");
            scene.restart(0).context(what.clone())?;
            let status = scene.daemon.status_json()?;
            ensure!(status["state_error"].is_null(), "{what}: {}", status["state_error"]);
            let kept = is_listed(&status);
            ensure!(scene.is_made()? == kept, "{what}: listed {kept}");
            made += usize::from(kept);
            if kept {
                scene.daemon.cli_checked(["service", "remove", "made"])?;
            }
            ensure!(!scene.is_made()?, "{what}: removed");
        }
    }
    ensure!(made > 0, "nothing was ever kept");
    Ok(())
}

#[test]
fn a_change_that_can_not_be_written_down_is_refused_and_nothing_changes() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new()?;
    for call in [Call::Fsync, Call::Rename] {
        for (name, errno, text) in ERRORS {
            // Whoever waits for the disk tries again by himself.
            if (call, errno) == (Call::Fsync, libc::EINTR) {
                continue;
            }
            let what = format!("{name} at the first {call:?}");
            scene.calls.arm(call, 0, Fault::Errno(errno));
            let answer = make(&scene)?;
            ensure!(scene.calls.struck().is_some(), "{what}: the call never came");
            scene.calls.count();
            let told = answer.stdout.contains(text) && answer.stdout.contains("\"store\"");
            ensure!(told, "{what}: {}", answer.stdout);
            scene.no_panic()?;
            scene.is(0).context(what.clone())?;
            ensure!(!scene.is_made()? && !is_listed(&scene.daemon.status_json()?), "{what}");
        }
    }
    make(&scene)?;
    ensure!(scene.is_made()?, "the same change again");
    scene.daemon.kill9()?;
    scene.restart(0)?;
    ensure!(scene.is_made()?, "after a restart");
    Ok(())
}

/// Asks for the service. Where the daemon dies the answer is empty.
fn make(scene: &Scene) -> Result<Output> {
    let backend = |number| {
        let address = format!("{}:{MADE_PORT}", address(number, VIP_V4));
        json!({"name": format!("m{number}"), "address": address})
    };
    let backends: Vec<_> = (0..1_000).map(backend).collect();
    let address = format!("{VIP_V4}:{MADE_PORT}");
    let service = json!({
        "name": "made", "address": address, "forwarding": "ipip", "health": {"type": "none"}, "backend": backends,
    });
    let body = scene.daemon.files().state_dir.with_file_name("made.json");
    std::fs::write(&body, service.to_string())?;
    let socket = scene.daemon.files().socket.display().to_string();
    let body = format!("@{}", body.display());
    let arguments =
        ["-s", "--unix-socket", &socket, "-X", "POST", "-d", &body, "http://localhost/v1/services"];
    scene.daemon.node().try_run("curl", arguments)
}

fn is_listed(status: &Value) -> bool {
    status["services"].as_array().into_iter().flatten().any(|service| service["name"] == "made")
}
