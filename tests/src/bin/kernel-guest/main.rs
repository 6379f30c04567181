//! `/init` of the machine that `cargo xtask test --kernel` boots: runs every suite in `/suites`, says how they ended, and
//! switches the machine off. Its arguments go to the suites.

#[allow(dead_code, reason = "xtask reads what is said here")]
#[path = "../../../../xtask/src/kernel/says.rs"]
mod says;

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, io};

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::SKIP_FILE_VARIABLE;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use says::Says;

/// Where the suites and we ourselves speak; the kernel has the first serial line.
const LINE: &str = "/dev/ttyS1";
const SKIP_FILE: &str = "/tmp/skipped";

fn main() -> Result<Infallible> {
    ensure!(
        std::process::id() == 1,
        "this is an emulated machine's first process; `cargo xtask test` starts it"
    );
    if let Err(error) = run() {
        // The kernel's log is all there is to tell it to.
        eprintln!("/init: {error:#}");
    }
    reboot(RebootMode::RB_POWER_OFF).context("switch the machine off")
}

fn run() -> Result<()> {
    for (kind, at) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/tmp"),
        ("bpf", "/sys/fs/bpf"),
    ] {
        fs::create_dir_all(at).with_context(|| format!("make {at}"))?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount {at}"))?;
    }
    let mut line = serial_line()?;
    for module in sorted("/modules")? {
        let file = File::open(&module).with_context(|| format!("open {}", module.display()))?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("load {}", module.display()))?;
    }
    let loopback = Command::new("ip").args(["link", "set", "lo", "up"]).env("PATH", PATH).status();
    ensure!(loopback.context("run ip")?.success(), "set the loopback interface up");
    for suite in sorted("/suites")? {
        let name = suite.file_name().unwrap_or_default().to_string_lossy().into_owned();
        writeln!(line, "{}", Says::Begin(&name))?;
        let mut tests = Command::new(&suite);
        tests.arg("--test-threads=1").args(env::args_os().skip(1));
        tests.env("PATH", PATH).env(SKIP_FILE_VARIABLE, SKIP_FILE);
        tests.stdin(Stdio::null()).stdout(line.try_clone()?).stderr(line.try_clone()?);
        let status = tests.status().with_context(|| format!("start {}", suite.display()))?;
        writeln!(line, "{}", Says::End { well: status.success() })?;
    }
    for skipped in read_if_there(SKIP_FILE)?.lines() {
        writeln!(line, "{}", Says::Skipped(skipped.trim_start_matches("SKIPPED ")))?;
    }
    writeln!(line, "{}", Says::Done)?;
    Ok(())
}

const PATH: &str = "/bin";

/// Opens the line and has it carry bytes as they are.
fn serial_line() -> Result<File> {
    let line =
        OpenOptions::new().read(true).write(true).open(LINE).with_context(|| format!("open {LINE}"))?;
    let mut settings = tcgetattr(&line).with_context(|| format!("ask for the settings of {LINE}"))?;
    cfmakeraw(&mut settings);
    tcsetattr(&line, SetArg::TCSANOW, &settings).with_context(|| format!("set {LINE} to raw"))?;
    Ok(line)
}

fn sorted(directory: &str) -> Result<Vec<PathBuf>> {
    let list = || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut files = list().with_context(|| format!("list {directory}"))?;
    files.sort();
    Ok(files)
}

fn read_if_there(path: &str) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("read {path}")),
    }
}
