//! Commands that say what went wrong, and child processes that end with their guard.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::wait_for;

/// What a finished command printed.
#[derive(Debug, Clone)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `command` to its end, feeding it `input`, whatever its exit status.
pub(super) fn run(command: &mut Command, input: Option<&str>) -> Result<Output> {
    use std::io::Write;
    let shown = show(command);
    let mut child = command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{shown}`"))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // The child may have failed before it read everything: its exit status tells more than our broken pipe.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("wait for `{shown}`"))?;
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// As [`run`], but a command that fails is an error that shows the command and what it said.
pub(super) fn run_checked(command: &mut Command) -> Result<Output> {
    let output = run(command, None)?;
    if !output.status.success() {
        bail!("`{}` failed ({}): {}{}", show(command), output.status, output.stderr, output.stdout);
    }
    Ok(output)
}

/// The command as one would type it.
pub(super) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A child process that is killed and reaped when its guard is dropped.
#[derive(Debug)]
pub struct ChildGuard {
    child: Child,
    shown: String,
}

impl ChildGuard {
    pub(super) fn spawn(command: &mut Command) -> Result<Self> {
        let shown = show(command);
        let child = command.spawn().with_context(|| format!("start `{shown}`"))?;
        Ok(Self { child, shown })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, e.g. for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal, unless the child has been reaped (its number may be another process's by now).
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exit_status()? {
            bail!("send {signal} to `{}`: it ended before ({status})", self.shown);
        }
        let pid = Pid::from_raw(i32::try_from(self.id()).context("a process id fits an i32")?);
        kill(pid, signal).with_context(|| format!("send {signal} to `{}`", self.shown))
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("look after `{}`", self.shown))
    }

    /// Waits for its end.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("`{}` ends", self.shown);
        wait_for(&what, timeout, || self.exit_status().transpose())?
    }

    /// SIGKILL, and reaps it. A child that has ended is fine.
    pub fn kill(&mut self) -> Result<()> {
        if self.exit_status()?.is_none() {
            self.child.kill().with_context(|| format!("kill `{}`", self.shown))?;
            self.child.wait().with_context(|| format!("reap `{}`", self.shown))?;
        }
        Ok(())
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("lab: {error:#}");
        }
    }
}
