//! One network namespace: a place to run commands, processes and closures in.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use super::process::{self, ChildGuard, Output};

/// Where `ip netns` keeps its names.
pub(super) const NETNS_DIR: &str = "/run/netns";

/// A named network namespace. Clones name the same one; the [`Lab`](super::Lab) deletes it.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: Arc<str>,
}

impl Namespace {
    /// Makes the namespace with the settings that every part of a lab wants.
    pub(super) fn create(name: &str) -> Result<Self> {
        process::run_checked(Command::new("ip").args(["netns", "add", name]))
            .with_context(|| format!("make the network namespace {name}"))?;
        let namespace = Self { name: name.into() };
        namespace.sysctls(&[
            // Duplicate address detection would leave addresses unusable for a second, and finds nothing here.
            ("net.ipv6.conf.all.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_ra", "0"),
            // Direct return makes routes asymmetric everywhere.
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
            ("net.ipv4.conf.all.send_redirects", "0"),
            ("net.ipv4.conf.default.send_redirects", "0"),
        ])?;
        namespace.ip("bring lo up", ["link set lo up"])?;
        Ok(namespace)
    }

    /// The name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it: `nsenter --net=PATH` (`ip netns exec` would hide bpffs).
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(NETNS_DIR).join(&*self.name)
    }

    /// Runs `work` inside, on a thread of its own, and waits for it.
    ///
    /// A socket stays in the namespace it was made in, so `work` may hand sockets back for use outside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let handle = self.open()?;
        let joined = thread::scope(|scope| {
            let inside = || {
                setns(&handle, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", self.name))?;
                work()
            };
            // The name of the test stays the name of the thread: a panic inside says which test it was.
            let name = thread::current().name().unwrap_or("lab").to_owned();
            Ok::<_, anyhow::Error>(
                thread::Builder::new()
                    .name(name)
                    .spawn_scoped(scope, inside)
                    .context("start a thread")?
                    .join(),
            )
        })?;
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `work` inside, on a thread that goes on by itself. Returns when the thread has entered.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let handle = self.open()?;
        let (report, entered) = mpsc::sync_channel(1);
        let inside = move || {
            let result = setns(handle, CloneFlags::CLONE_NEWNET);
            let failed = result.is_err();
            let _ = report.send(result);
            if failed {
                // Ends the thread without a word: the caller has the error.
                std::panic::resume_unwind(Box::new("could not enter the namespace"));
            }
            work()
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(inside).context("start a thread")?;
        entered.recv().context("a thread died early")?.with_context(|| format!("enter {}", self.name))?;
        Ok(thread)
    }

    /// Runs a command inside. If it fails, the error shows the command and what it said.
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Result<Output> {
        self.enter_with(program, args, process::run_checked)
    }

    /// Runs a command inside, whatever its exit status.
    pub fn try_run<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Output> {
        self.enter_with(program, args, |command| process::run(command, None))
    }

    /// Runs a command that needs more than arguments (an environment, say) inside, whatever its exit status.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        self.enter(|| process::run(command, None)).with_context(|| format!("in {}", self.name))
    }

    /// Starts a process inside; it is killed when the guard is dropped.
    pub fn spawn(&self, command: &mut Command) -> Result<ChildGuard> {
        self.enter(|| ChildGuard::spawn(command)).with_context(|| format!("in {}", self.name))
    }

    /// Runs lines of `ip` (without the word `ip`) in one go. `step` names their purpose in an error.
    pub fn ip<S: AsRef<str>>(&self, step: &str, lines: impl IntoIterator<Item = S>) -> Result<()> {
        self.batch("ip", step, lines)
    }

    /// Runs lines of `tc`, as [`Namespace::ip`] does.
    pub fn tc<S: AsRef<str>>(&self, step: &str, lines: impl IntoIterator<Item = S>) -> Result<()> {
        self.batch("tc", step, lines)
    }

    /// Sets one sysctl, in dotted notation.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.sysctls(&[(key, value)])
    }

    pub(super) fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        // /proc/sys/net shows the namespace of the thread that opens it.
        self.enter(|| {
            for (key, value) in settings {
                fs::write(format!("/proc/sys/{}", key.replace('.', "/")), value)
                    .with_context(|| format!("set {key} = {value} in {}", self.name))?;
            }
            Ok(())
        })
    }

    fn batch<S: AsRef<str>>(
        &self,
        program: &str,
        step: &str,
        lines: impl IntoIterator<Item = S>,
    ) -> Result<()> {
        let lines: Vec<String> = lines.into_iter().map(|line| line.as_ref().to_owned()).collect();
        if lines.is_empty() {
            return Ok(());
        }
        let input = lines.join("\n") + "\n";
        let output =
            self.enter(|| process::run(Command::new(program).args(["-batch", "-"]), Some(&input)))?;
        if output.status.success() {
            return Ok(());
        }
        // "Command failed -:3" names the line.
        let failed =
            output.stderr.rsplit("Command failed -:").next().and_then(|number| number.trim().parse().ok());
        let line =
            failed.and_then(|number: usize| lines.get(number.checked_sub(1)?)).map_or("?", String::as_str);
        bail!("{step}: `{program} {line}` in {} failed: {}", self.name, output.stderr.trim())
    }

    fn enter_with<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
        run: impl FnOnce(&mut Command) -> Result<Output> + Send,
    ) -> Result<Output> {
        let mut command = Command::new(program);
        command.args(args);
        self.enter(|| run(&mut command)).with_context(|| format!("in {}", self.name))
    }

    fn open(&self) -> Result<File> {
        File::open(self.path()).map_err(|error| anyhow!("open the network namespace {}: {error}", self.name))
    }
}
