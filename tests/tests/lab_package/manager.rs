//! What a service manager hears of the daemon.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::lab::{Daemon, Lab, Service, TcpServer, VIP_V4, require_root};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::mkfifo;

const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 80;
/// After how much silence the manager would act. The daemon pings three times as often.
const WATCHDOG: Duration = Duration::from_millis(1_500);

/// The manager's end.
pub(super) struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    /// Listens at `path`, for everybody as systemd does.
    pub(super) fn listen(path: PathBuf) -> Result<Self> {
        let socket = UnixDatagram::bind(&path).with_context(|| format!("listen at {}", path.display()))?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        Ok(Self { socket, path })
    }

    /// `NOTIFY_SOCKET=/run/…`
    pub(super) fn variable(&self) -> String {
        format!("NOTIFY_SOCKET={}", self.path.display())
    }

    /// The next message, unless none comes.
    pub(super) fn next(&self, within: Duration) -> Result<Option<String>> {
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1))))?;
        let mut bytes = [0; 4096];
        match self.socket.recv(&mut bytes) {
            Ok(length) => Ok(Some(String::from_utf8(bytes[..length].to_vec())?)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The next message with all of these in it, whatever comes before.
    pub(super) fn wait_for(&self, parts: &[&str]) -> Result<String> {
        let deadline = Instant::now() + SOON;
        let mut others = Vec::new();
        while let Some(message) = self.next(deadline.saturating_duration_since(Instant::now()))? {
            if parts.iter().all(|part| message.contains(part)) {
                return Ok(message);
            }
            others.push(message);
        }
        bail!("no message with {parts:?} in {SOON:?}, but {others:?}")
    }
}

#[test]
fn a_service_manager_is_told_of_start_reload_and_stop_and_how_things_are() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let _server = TcpServer::start(lab.backend(0), &[PORT])?;
    let manager = Manager::listen(lab.directory().join("notify"))?;
    let mut daemon = Daemon::new(&lab, 0, &config(&lab))?;
    daemon.start_through(["env", &manager.variable()]);
    daemon.launch()?;
    let first = manager.next(SOON)?.context("no word")?;
    ensure!(first.starts_with("READY=1\nSTATUS="), "{first:?}");
    daemon.cli_checked(["status", "--ready"]).context("it is not ready when it says so")?;
    manager.wait_for(&["STATUS=1 of 1 backends healthy in 1 service; revision "])?;

    daemon.signal(Signal::SIGHUP)?;
    let before = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let reloading = manager.wait_for(&["RELOADING=1\n", "MONOTONIC_USEC="])?;
    let told = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).context("a time")?;
    let told = Duration::from_micros(told.parse()?);
    ensure!(told.abs_diff(before.into()) < SOON, "{told:?} is not now, {before:?}");
    manager.wait_for(&["READY=1\n", "STATUS=1 of 1"])?;

    daemon.write_config("[[service]]\nnonsense = true\n")?;
    daemon.signal(Signal::SIGHUP)?;
    manager.wait_for(&["RELOADING=1\n"])?;
    manager.wait_for(&["READY=1\n", "STATUS=CONFIGURATION REFUSED"])?;

    ensure!(daemon.sigterm()?.success(), "it did not stop as it should");
    manager.wait_for(&["STOPPING=1\n"])?;
    Ok(())
}

#[test]
fn a_control_task_that_hangs_is_not_pinged_for() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let manager = Manager::listen(lab.directory().join("notify"))?;
    let mut daemon = Daemon::new(&lab, 0, &config(&lab))?;
    let limit = format!("WATCHDOG_USEC={}", WATCHDOG.as_micros());
    daemon.start_through(["env", &manager.variable(), &limit]);
    daemon.launch()?;
    manager.wait_for(&["READY=1"])?;
    for _ in 0..3 {
        manager.wait_for(&["WATCHDOG=1"])?;
    }

    // Whoever writes to a pipe that nobody reads waits, and this is where what is to be kept is written.
    let pipe = daemon.files().state_dir.join("state.toml.new");
    mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let drain = ["backend", "drain", "web", "backend0"];
    let drained = std::thread::scope(|scope| -> Result<_> {
        let hanging = scope.spawn(|| daemon.cli(drain));
        let silent = is_silent(&manager);
        // It is let go whatever was found.
        let reader = release(&pipe);
        silent?;
        manager.wait_for(&["WATCHDOG=1"]).context("after it went on")?;
        drop(reader?);
        hanging.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    // What becomes of a change that goes into a pipe is another matter.
    ensure!(drained.status.code().is_some(), "{drained:?}");
    ensure!(daemon.log().contains("the control task has not moved"), "{}", daemon.log());
    Ok(())
}

/// No ping for as long as the manager would have waited.
fn is_silent(manager: &Manager) -> Result<()> {
    let deadline = Instant::now() + SOON;
    let mut since = Instant::now();
    while since.elapsed() < WATCHDOG {
        if manager.next(Duration::from_millis(100))?.is_some_and(|message| message.contains("WATCHDOG=1")) {
            since = Instant::now();
            ensure!(since < deadline, "it pings although its control task hangs");
        }
    }
    Ok(())
}

/// Reads the pipe from now on, so that nobody who writes to it waits.
fn release(pipe: &Path) -> Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    options.open(pipe).context("open the pipe")
}

fn config(lab: &Lab) -> String {
    let vip = SocketAddr::new(VIP_V4, PORT);
    let quick = "type = \"tcp\"\ninterval = \"500ms\"\ntimeout = \"500ms\"\n";
    Service::new("web", vip, "tcp", "l2-dsr").health(quick).nodes(lab.backends(), vip).toml()
}
