//! The real `ballast`, run in a load balancer of the lab.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::calls::{Aim, Call, Calls, Fault};
use super::http::http_get;
use super::node::Node;
use super::process::{ChildGuard, Output};
use super::wait::{try_wait_for, wait_for};
use super::{Lab, Role};

/// Names the binary to test, instead of the one that `cargo build` makes.
const BINARY_VARIABLE: &str = "BALLAST_BIN";
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9640);
/// For what takes a moment at most, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the daemon of one load balancer has its files. All of them go with the lab.
#[derive(Debug, Clone)]
pub struct DaemonFiles {
    pub config: PathBuf,
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    pub log: PathBuf,
    pub pin_dir: PathBuf,
}

impl DaemonFiles {
    /// Makes the directories for load balancer number `index`, or finds them.
    fn of(lab: &Lab, node: &Node) -> Result<Self> {
        let directory = lab.directory().join(node.label());
        let pin_dir = lab.pins().join(node.label());
        for made in [&directory, &pin_dir] {
            fs::create_dir_all(made).with_context(|| format!("make {}", made.display()))?;
        }
        Ok(Self {
            config: directory.join("config.toml"),
            state_dir: directory.join("state"),
            socket: directory.join("control.sock"),
            log: directory.join("log"),
            pin_dir,
        })
    }
}

/// A daemon, running or not. Dropping it kills the process, and prints its log if a test is failing.
#[derive(Debug)]
pub struct Daemon {
    node: Node,
    files: DaemonFiles,
    binary: PathBuf,
    /// Words before the daemon's own command.
    through: Vec<String>,
    process: Option<ChildGuard>,
}

impl Daemon {
    /// Starts `ballast run` with this configuration on load balancer number `index` and waits until it is ready.
    pub fn start(lab: &Lab, index: usize, config: &str) -> Result<Self> {
        let mut daemon = Self::new(lab, index, config)?;
        daemon.launch()?;
        daemon.wait_ready(PATIENCE)?;
        Ok(daemon)
    }

    /// Writes the configuration (see [`Daemon::write_config`]) and starts nothing.
    pub fn new(lab: &Lab, index: usize, config: &str) -> Result<Self> {
        Self::with_binary(lab, index, config, binary()?)
    }

    /// [`Daemon::new`] with another binary than the one under test: an older version, for instance.
    pub fn with_binary(lab: &Lab, index: usize, config: &str, binary: PathBuf) -> Result<Self> {
        let node = lab.balancer(index).clone();
        let files = DaemonFiles::of(lab, &node)?;
        let daemon = Self { files, node, binary, through: Vec::new(), process: None };
        daemon.write_config(config)?;
        Ok(daemon)
    }

    /// The binary under test, where everybody who may enter the lab's directory may run it.
    pub fn binary_for_everybody(lab: &Lab) -> Result<PathBuf> {
        let path = lab.directory().join("ballast");
        fs::copy(binary()?, &path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// Another daemon with the same files and a log of its own, not started: one that is to be refused.
    #[must_use]
    pub fn rival(&self) -> Self {
        let files = DaemonFiles { log: self.files.log.with_extension("rival"), ..self.files.clone() };
        Self {
            node: self.node.clone(),
            files,
            binary: self.binary.clone(),
            through: self.through.clone(),
            process: None,
        }
    }

    /// From now on the daemon is started by another program, which becomes it: `setpriv`, for instance, with its options.
    pub fn start_through<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        self.through = words.into_iter().map(str::to_owned).collect();
    }

    /// Replaces the configuration file.
    ///
    /// `{interfaces}`, `{pin_dir}`, `{state_dir}` and `{socket}` stand for this load balancer's; without a `[daemon]`
    /// section in the text, one with these is put before it.
    pub fn write_config(&self, config: &str) -> Result<()> {
        let own = "[daemon]\ninterfaces = {interfaces}\nstate_dir = \"{state_dir}\"\npin_dir = \"{pin_dir}\"\n\
                   socket = \"{socket}\"\n\n";
        let has_own = config.lines().any(|line| line.trim() == "[daemon]");
        let text = if has_own { config.to_owned() } else { format!("{own}{config}") };
        fs::write(&self.files.config, self.fill_in(&text))
            .with_context(|| format!("write {}", self.files.config.display()))
    }

    /// Starts the process and does not wait.
    pub fn launch(&mut self) -> Result<()> {
        let mut command = self.run_command()?;
        self.process = Some(self.node.spawn(&mut command)?);
        Ok(())
    }

    /// [`Daemon::launch`] of a process whose system calls are counted and can be struck.
    pub fn launch_watched(&mut self) -> Result<Calls> {
        self.launch_with(None)
    }

    /// [`Daemon::launch_watched`], armed as by [`Calls::arm`] before its first call.
    pub fn launch_armed(&mut self, call: Call, at: usize, fault: Fault) -> Result<Calls> {
        self.launch_with(Some(Aim { call, at, fault }))
    }

    fn launch_with(&mut self, aim: Option<Aim>) -> Result<Calls> {
        let mut command = self.run_command()?;
        let prepared = Calls::prepare(&mut command)?;
        let process = self.process.insert(self.node.spawn(&mut command)?);
        prepared.follow(process.id(), aim)
    }

    fn run_command(&mut self) -> Result<Command> {
        if self.is_running()? {
            bail!("the daemon on {} runs already", self.node.label());
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.files.log)
            .context("open the daemon's log")?;
        let mut command = self.command_through(&self.through);
        command.args(["run", "--config"]).arg(&self.files.config);
        command.stdin(Stdio::null()).stdout(log.try_clone().context("share the log")?).stderr(log);
        Ok(command)
    }

    /// Waits until `ballast status --ready` says so. Fails at once if the process ends.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<()> {
        let ready = wait_for("the daemon is ready", timeout, || match self.poll_ready() {
            Ok(false) => None,
            Ok(true) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        });
        let ready = ready.and_then(|ready| ready);
        ready.with_context(|| format!("log of the daemon on {}:\n{}", self.node.label(), self.log()))
    }

    /// Runs a `ballast` command against this daemon, whatever its exit status.
    pub fn cli<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        let mut command = self.command();
        command.args(args);
        self.node.output(&mut command)
    }

    /// [`Daemon::cli`] through another program, as in [`Daemon::start_through`].
    pub fn cli_through<'a>(
        &self,
        words: impl IntoIterator<Item = &'a str>,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Result<Output> {
        let words: Vec<_> = words.into_iter().map(str::to_owned).collect();
        let mut command = self.command_through(&words);
        command.args(args);
        self.node.output(&mut command)
    }

    /// Runs a `ballast` command that must succeed, and returns what it printed.
    pub fn cli_checked<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
        let args: Vec<_> = args.into_iter().collect();
        let output = self.cli(args.iter().copied())?;
        if !output.status.success() {
            bail!("`ballast {}` failed ({}): {}", args.join(" "), output.status, output.stderr);
        }
        Ok(output.stdout)
    }

    /// `ballast status -o json`
    pub fn status_json(&self) -> Result<Value> {
        let printed = self.cli_checked(["status", "-o", "json"])?;
        serde_json::from_str(&printed).with_context(|| format!("`ballast status -o json` printed {printed}"))
    }

    /// `ballast fleet status -o json`
    pub fn fleet_status(&self) -> Result<Value> {
        let printed = self.cli_checked(["fleet", "status", "-o", "json"])?;
        serde_json::from_str(&printed)
            .with_context(|| format!("`ballast fleet status -o json` printed {printed}"))
    }

    /// `ballast fleet import` of the services of a text, into the fleet of this daemon's configuration.
    pub fn import(&self, services: &str, options: &[&str]) -> Result<String> {
        let (file, config) = (self.files().config.with_extension("services"), self.files().config.display());
        fs::write(&file, services).with_context(|| format!("write {}", file.display()))?;
        let (file, config) = (file.display().to_string(), config.to_string());
        let words = ["fleet", "import", &file, "--config", &config];
        self.cli_checked(words.into_iter().chain(options.iter().copied()))
    }

    /// The same in an etcd that has just begun, which may take its time.
    pub fn found_fleet(&self, services: &str) -> Result<()> {
        let imported = || self.import(services, &[]).map(Some);
        try_wait_for("the services are in etcd", PATIENCE, imported).map(drop)
    }

    /// `ballast reload`
    pub fn reload(&self) -> Result<()> {
        self.cli_checked(["reload"]).map(drop)
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> Result<String> {
        let reply = http_get(&self.node, None, METRICS.into(), "/metrics", PATIENCE)?;
        if reply.status != 200 {
            bail!("/metrics answers {}: {}", reply.status, reply.body);
        }
        Ok(reply.body)
    }

    /// The value of one sample of `/metrics`, named as it stands there: `ballast_packets_total{verdict="tx"}`.
    pub fn metric(&self, sample: &str) -> Result<f64> {
        let text = self.metrics()?;
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        let value = value.with_context(|| format!("no {sample} in /metrics"))?;
        value.trim().parse().with_context(|| format!("{sample} is {value:?}"))
    }

    /// Ends it with no chance to do anything about it.
    pub fn kill9(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the daemon is not running")?;
        process.signal(Signal::SIGKILL)?;
        process.wait(PATIENCE).map(drop)
    }

    /// Asks it to end and waits until it has.
    pub fn sigterm(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the daemon is not running")?;
        process.signal(Signal::SIGTERM)?;
        process.wait(PATIENCE)
    }

    /// Sends a signal, for instance SIGHUP or SIGSTOP.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.as_mut().context("the daemon is not running")?.signal(signal)
    }

    /// Waits until the process ends by itself: one that is expected to refuse to run.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.process.as_mut().context("the daemon was not launched")?.wait(timeout)
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(match &mut self.process {
            Some(process) => process.exit_status()?.is_none(),
            None => false,
        })
    }

    /// The number of the process, if there is one.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(ChildGuard::id)
    }

    /// What it has written to stdout and stderr so far, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.files.log).unwrap_or_else(|error| format!("({error})"))
    }

    /// Where its files are.
    #[must_use]
    pub fn files(&self) -> &DaemonFiles {
        &self.files
    }

    /// The program that is tested.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The load balancer that it runs on.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Lets the process live on after this process, for a lab that is kept.
    pub fn leave_running(mut self) {
        if let Some(process) = self.process.take() {
            std::mem::forget(process);
        }
    }

    fn poll_ready(&mut self) -> Result<bool> {
        if !self.is_running()? {
            bail!("the daemon ended before it was ready");
        }
        Ok(self.cli(["status", "--ready"])?.status.success())
    }

    fn command(&self) -> Command {
        self.command_through(&[])
    }

    fn command_through(&self, words: &[String]) -> Command {
        let binary = self.binary.as_os_str();
        let mut words = words.iter().map(OsStr::new).chain([binary]);
        let mut command = Command::new(words.next().unwrap_or(binary));
        command.args(words).env("BALLAST_SOCKET", &self.files.socket).env("NO_COLOR", "1");
        command
    }

    fn fill_in(&self, text: &str) -> String {
        debug_assert_eq!(self.node.role(), Role::Balancer);
        let interfaces: Vec<_> =
            self.node.legs().iter().map(|leg| format!("\"{}\"", leg.interface)).collect();
        let path = |path: &Path| path.display().to_string();
        text.replace("{interfaces}", &format!("[{}]", interfaces.join(", ")))
            .replace("{state_dir}", &path(&self.files.state_dir))
            .replace("{pin_dir}", &path(&self.files.pin_dir))
            .replace("{socket}", &path(&self.files.socket))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The guard kills the process; its log is complete then.
        self.process = None;
        if thread::panicking() {
            eprintln!("--- log of the daemon on {}\n{}---", self.node.label(), self.log());
        }
    }
}

/// The `ballast` under test.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os(BINARY_VARIABLE) {
        return Ok(path.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let path = target.join("debug/ballast");
    if !path.exists() {
        bail!(
            "no {}: run `cargo build -p lb-userspace`, or name the binary in {BINARY_VARIABLE}",
            path.display()
        );
    }
    Ok(path)
}
