//! What clients of the control socket can do to the daemon, and what not.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use lb_tests::lab::{Daemon, Lab, Service, VIP_V4, require_root};

use super::messages::{Manner, Message};

const PORT: u16 = 80;
/// Threads that send messages; a core is left to the daemon and whoever asks it.
const SENDERS: u64 = 2;

#[test]
fn malformed_messages_harm_nobody() -> Result<()> {
    require_root!(Ok(()));
    let answers = flood(10_000)?;
    let median = answers[answers.len() / 2];
    // On a machine that is busy with other tests.
    ensure!(median < Duration::from_millis(500), "the command line takes {median:?}");
    Ok(())
}

#[test]
#[ignore = "long: a million malformed messages"]
fn a_million_malformed_messages_harm_nobody_and_keep_nobody_waiting() -> Result<()> {
    require_root!(Ok(()));
    let answers = flood(1_000_000)?;
    let (count, slowest) = (answers.len(), answers[answers.len() - 1]);
    eprintln!("{count} commands: median {:?}, slowest {slowest:?}", answers[count / 2]);
    ensure!(slowest < Duration::from_millis(100), "the command line takes {slowest:?}");
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
    // The first to come were told why they had to go.
    let mut said = String::new();
    idle[0].set_read_timeout(Some(Duration::from_secs(5)))?;
    idle[0].read_to_string(&mut said)?;
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

/// Sends as many malformed messages while the command line asks, and returns how long each command took, in order.
fn flood(count: u64) -> Result<Vec<Duration>> {
    let (_lab, mut daemon) = start()?;
    let pid = daemon.process_id().context("it runs")?;
    let before =
        (daemon.cli_checked(["service", "list", "-o", "json"])?, daemon.status_json()?["revision"].clone());
    let socket = daemon.files().socket.clone();
    send(&socket, 0, &AtomicU64::new(1_000))?;
    let (memory, files) = (memory(pid)?, descriptors(pid)?);

    let left = AtomicU64::new(count);
    let over = AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        let senders: Vec<_> = (1..=SENDERS)
            .map(|seed| (seed, &left, &socket))
            .map(|(seed, left, socket)| scope.spawn(move || send(socket, seed, left)))
            .collect();
        let asking = scope.spawn(|| {
            let mut answers = Vec::new();
            while !over.load(Relaxed) {
                let started = Instant::now();
                daemon.cli_checked(["status", "--ready"])?;
                answers.push(started.elapsed());
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok::<_, anyhow::Error>(answers)
        });
        let sent: Result<Vec<()>> = senders.into_iter().map(joined).collect();
        over.store(true, Relaxed);
        let answers = joined(asking);
        sent.and(answers)
    });
    let mut answers = answers.with_context(|| format!("log:\n{}", daemon.log()))?;
    answers.sort();

    ensure!(daemon.is_running()?, "the daemon is gone");
    ensure!(!daemon.log().contains("panicked"), "a panic:\n{}", daemon.log());
    ensure!(
        !daemon.log().contains("going on with what is known"),
        "they get into each other's way:\n{}",
        daemon.log()
    );
    let after =
        (daemon.cli_checked(["service", "list", "-o", "json"])?, daemon.status_json()?["revision"].clone());
    assert_eq!(after, before, "something was changed");
    let grown = self::memory(pid)?.saturating_sub(memory);
    ensure!(grown <= 32 << 10, "{grown} KiB more than before");
    let files = descriptors(pid)?.saturating_sub(files);
    ensure!(files <= 8, "{files} descriptors more than before");
    Ok(answers)
}

/// Sends messages until `left` are none.
fn send(socket: &Path, seed: u64, left: &AtomicU64) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
        let message = Message::random(&mut rng);
        let answer = exchange(socket, &message)?;
        // Whoever speaks HTTP/1.0 is answered in kind.
        let status = answer.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
        // Neither a panic nor anything else that is the daemon's fault. It may say nothing to who leaves early.
        let is_fine = status.map_or(answer.is_empty(), |status| status != b"500");
        ensure!(is_fine, "{message:?} is answered by {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

fn exchange(socket: &Path, message: &Message) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).context("nobody accepts")?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let mut answer = Vec::new();
    // It may hang up before it has read everything.
    let mut sent = stream.write_all(&message.bytes);
    match message.manner {
        Manner::Waits | Manner::ClosesHalf => {}
        Manner::Leaves => return Ok(answer),
        Manner::GoesOn => {
            let last = &message.bytes[message.bytes.len().saturating_sub(1024)..];
            for _ in 0..1024 {
                if sent.is_err() {
                    break;
                }
                sent = stream.write_all(last);
            }
            ensure!(sent.is_err(), "a MiB was taken");
        }
    }
    if message.manner == Manner::Waits {
        // Of what was cut by accident the server waits for the rest.
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        match stream.read_to_end(&mut answer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => return Ok(answer),
        }
    }
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let _ = stream.shutdown(Shutdown::Write);
    match stream.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(error).with_context(|| format!("no end of an answer to {message:?}"))
        }
        _ => Ok(answer),
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn start() -> Result<(Lab, Daemon)> {
    let lab = Lab::builder().backends(1).build()?;
    let daemon = Daemon::start(&lab, 0, &config(&lab))?;
    Ok((lab, daemon))
}

fn config(lab: &Lab) -> String {
    let vip = SocketAddr::new(VIP_V4, PORT);
    Service::new("web", vip, "tcp", "l2-dsr").nodes(lab.backends(), vip).toml()
}

/// KiB of memory that it has.
fn memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
