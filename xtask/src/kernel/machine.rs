//! The emulated machine. qemu translates every instruction (TCG): that works everywhere, also where there is no
//! hardware to help or where it boots no kernel but its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::debian::Kernel;
use crate::process::{self, Show};

/// Two CPUs, because counters are a CPU's own.
const CPUS: &str = "2";
const MEMORY: &str = "2G";
/// After this a machine hangs. All suites together take an eighth of it on two busy cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(45 * 60);
/// What `timeout` exits with when time was up.
const TIME_IS_UP: i32 = 124;

/// How a machine came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It switched itself off, or its kernel panicked.
    Stopped,
    Deadline,
    /// qemu itself failed.
    Failed,
}

pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) image: &'a Path,
    /// What `/init` gets: variables and arguments, none with a space.
    pub(crate) environment: &'a [(&'a str, String)],
    pub(crate) arguments: &'a [String],
    /// Where the kernel's messages go.
    pub(crate) log: PathBuf,
}

impl Machine<'_> {
    /// Runs the machine to its end, gives each line that `/init` says to `each`, and shows it.
    pub(crate) fn run(&self, each: impl FnMut(&str)) -> Result<End> {
        let mut command = Command::new("timeout");
        // In the foreground, so that ^C reaches qemu.
        command.args(["--foreground", "--kill-after=5", &DEADLINE.as_secs().to_string()]);
        command.args(["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"]);
        command.args(["-smp", CPUS, "-m", MEMORY, "-nodefaults", "-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(self.image);
        command.args(["-append", &self.command_line()]);
        // Two lines, so that the kernel's messages don't fall between the tests'.
        command.arg("-serial").arg(format!("file:{}", self.log.display())).args(["-serial", "stdio"]);
        fs::write(&self.log, "").with_context(|| format!("could not write {}", self.log.display()))?;
        let status = process::follow(command.stdin(Stdio::null()), Show::AtOnce, each)?;
        Ok(match status.code() {
            Some(0) => End::Stopped,
            Some(TIME_IS_UP) => End::Deadline,
            _ => End::Failed,
        })
    }

    /// A kernel that stumbles stops at once, and qemu with it.
    fn command_line(&self) -> String {
        let mut words: Vec<_> =
            ["console=ttyS0", "panic=-1", "oops=panic", "panic_on_warn=1"].map(String::from).into();
        // The kernel hands on what it doesn't know: variables to `/init`'s environment, and what comes after `--`.
        words.extend(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
        words.push("--".into());
        words.extend_from_slice(self.arguments);
        words.join(" ")
    }

    /// The last of what the kernel said.
    pub(crate) fn last_words(&self) -> Result<String> {
        const LINES: usize = 80;
        let log = fs::read(&self.log).with_context(|| format!("could not read {}", self.log.display()))?;
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        Ok(lines[lines.len().saturating_sub(LINES)..].join("\n"))
    }
}
