//! Malformed messages by the thousand, and how the daemon takes them.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

use super::api;
use super::messages::{Manner, Message};

/// Threads that send messages: most wait for an answer, or for the daemon to wait for them.
const SENDERS: u64 = 12;
/// KiB that the daemon may have more than before.
const MEMORY: u64 = 32 << 10;

/// How a daemon took malformed messages.
pub(super) struct Flood {
    pub(super) took: Duration,
    /// How long each command took that was given meanwhile, in order.
    pub(super) answers: Vec<Duration>,
    /// KiB that the daemon had more than before, at each of those commands.
    pub(super) memory: Vec<u64>,
}

impl Flood {
    /// In which so great a part of the commands was answered.
    pub(super) fn answered_within(&self, part: f64) -> Duration {
        let last = self.answers.len() - 1;
        self.answers[(last as f64 * part) as usize]
    }
}

/// Sends as many malformed messages while the command line asks.
pub(super) fn flood(count: u64) -> Result<Flood> {
    let (_lab, mut daemon) = api::start()?;
    let pid = daemon.process_id().context("it runs")?;
    let before =
        (daemon.cli_checked(["service", "list", "-o", "json"])?, daemon.status_json()?["revision"].clone());
    let socket = daemon.files().socket.clone();
    send(&socket, 0, &AtomicU64::new(1_000))?;
    let (base, files) = (memory(pid)?, descriptors(pid)?);

    let left = AtomicU64::new(count);
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let outcome = std::thread::scope(|scope| {
        let senders: Vec<_> = (1..=SENDERS)
            .map(|seed| (seed, &left, &socket))
            .map(|(seed, left, socket)| {
                scope.spawn(move || {
                    give_way()?;
                    send(socket, seed, left)
                })
            })
            .collect();
        let asking = scope.spawn(|| {
            let mut seen = Vec::new();
            while !over.load(Relaxed) {
                let started = Instant::now();
                daemon.cli_checked(["status", "--ready"])?;
                seen.push((started.elapsed(), memory(pid)?.saturating_sub(base)));
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok::<_, anyhow::Error>(seen)
        });
        let sent: Result<Vec<()>> = senders.into_iter().map(joined).collect();
        over.store(true, Relaxed);
        let seen = joined(asking);
        sent.and(seen)
    });
    let took = began.elapsed();
    let (mut answers, memory): (Vec<_>, Vec<_>) =
        outcome.with_context(|| format!("log:\n{}", daemon.log()))?.into_iter().unzip();
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
    let grown = memory.iter().max().context("nobody asked")?;
    ensure!(*grown <= MEMORY, "{grown} KiB more than before");
    let files = descriptors(pid)?.saturating_sub(files);
    ensure!(files <= 8, "{files} descriptors more than before");
    Ok(Flood { took, answers, memory })
}

/// Lets others run first: whoever sends so much elsewhere does not share the processors of the command line.
fn give_way() -> Result<()> {
    // SAFETY: it takes a number and touches no memory. On Linux it is of the calling thread alone.
    let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) } != 0;
    ensure!(!failed, "can't lower a priority: {}", std::io::Error::last_os_error());
    Ok(())
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

/// KiB of memory that it has.
fn memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
