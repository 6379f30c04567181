//! What clients of the control socket can do to the daemon, and what not.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab, Service, VIP_V4, require_root};

use super::flood::flood;

const PORT: u16 = 80;
/// KiB that it may have more in the second half of all messages than in the first: what leaks grows on and on.
const LEAK: u64 = 4 << 10;

#[test]
fn malformed_messages_harm_nobody() -> Result<()> {
    require_root!(Ok(()));
    let flood = flood(10_000)?;
    let median = flood.answered_within(0.5);
    // On a machine that is busy with other tests.
    ensure!(median < Duration::from_millis(500), "the command line takes {median:?}");
    Ok(())
}

#[test]
#[ignore = "long: a million malformed messages"]
fn a_million_malformed_messages_harm_nobody_and_keep_nobody_waiting() -> Result<()> {
    require_root!(Ok(()));
    let flood = flood(1_000_000)?;
    let [median, most, slowest] = [0.5, 0.99, 1.0].map(|part| flood.answered_within(part));
    eprintln!(
        "took {:?}; {} commands: median {median:?}, 99 % {most:?}, slowest {slowest:?}",
        flood.took,
        flood.answers.len()
    );
    let curve: Vec<_> = flood.memory.iter().step_by((flood.memory.len() / 20).max(1)).collect();
    eprintln!("KiB more than before: {curve:?}");
    ensure!(slowest < Duration::from_millis(100), "the command line takes {slowest:?}");
    let (first, second) = flood.memory.split_at(flood.memory.len() / 2);
    let grown = second
        .iter()
        .max()
        .context("a second half")?
        .saturating_sub(*first.iter().max().context("a first half")?);
    ensure!(grown <= LEAK, "{grown} KiB more in the second half: {curve:?}");
    Ok(())
}

#[test]
fn clients_that_dawdle_keep_nobody_waiting() -> Result<()> {
    require_root!(Ok(()));
    let (_lab, daemon) = start()?;
    let socket = &daemon.files().socket;
    let mut idle = Vec::new();
    // Many more than are served at a time, and each has begun.
    for number in 0..300 {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"GET /v1/status HTT")?;
        idle.push(stream);
        if number % 100 == 99 {
            let started = Instant::now();
            daemon.cli_checked(["status"])?;
            ensure!(started.elapsed() < Duration::from_secs(3), "it took {:?}", started.elapsed());
        }
    }
    // The first to come were told why they had to go. What of theirs was not read yet makes the end a reset.
    let mut said = Vec::new();
    idle[0].set_read_timeout(Some(Duration::from_secs(5)))?;
    match idle[0].read_to_end(&mut said) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        read => drop(read?),
    }
    let said = String::from_utf8(said)?;
    ensure!(said.starts_with("HTTP/1.1 408 ") && said.contains("\"kind\":\"timeout\""), "{said}");
    Ok(())
}

#[test]
fn whoever_the_socket_does_not_let_in_is_told_so_where_its_mode_was_widened() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let daemon = Daemon::with_binary(&lab, 0, &config(&lab), Daemon::binary_for_everybody(&lab)?)?;
    let mut daemon = daemon;
    daemon.launch()?;
    daemon.wait_ready(Duration::from_secs(20))?;
    let socket = daemon.files().socket.clone();
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    assert_eq!(fs::metadata(&socket)?.permissions().mode() & 0o777, 0o660);
    mode(lab.directory(), 0o755)?;
    let run = |user: &[&str], args: [&str; 2]| {
        daemon.cli_through(["setpriv", "--reuid=64002", "--regid=64002"].iter().chain(user).copied(), args)
    };
    let stranger = ["--clear-groups"];
    assert_eq!(run(&stranger, ["status", "--ready"])?.status.code(), Some(3), "the socket's mode");
    mode(&socket, 0o666)?;
    for args in [["status", "--ready"], ["service", "list"]] {
        let refused = run(&stranger, args)?;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        ensure!(refused.stderr.contains("only root, the daemon's own user and members"), "{refused:?}");
    }
    // A member of its group, by the group it has now and not by any database.
    mode(&socket, 0o660)?;
    let member = run(&["--groups=0"], ["status", "--ready"])?;
    ensure!(member.status.success(), "{member:?}");
    Ok(())
}

pub(super) fn start() -> Result<(Lab, Daemon)> {
    let lab = Lab::builder().backends(1).build()?;
    let daemon = Daemon::start(&lab, 0, &config(&lab))?;
    Ok((lab, daemon))
}

fn config(lab: &Lab) -> String {
    let vip = SocketAddr::new(VIP_V4, PORT);
    Service::new("web", vip, "tcp", "l2-dsr").nodes(lab.backends(), vip).toml()
}
