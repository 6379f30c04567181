//! keepalived on a load balancer, with what `ballast keepalived` prints.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{ChildGuard, Daemon, Lab, Node};
use nix::sys::signal::Signal;

use crate::pair::SOON;

/// Ends when dropped, and says no good-bye then.
pub(crate) struct Keepalived {
    node: Node,
    directory: PathBuf,
    process: Option<ChildGuard>,
}

impl Keepalived {
    /// Writes the configuration as `edit` makes it of what Ballast prints, has keepalived judge it, and starts it.
    pub(crate) fn start(
        lab: &Lab,
        daemon: &Daemon,
        peer: &Node,
        priority: u8,
        edit: fn(String) -> String,
    ) -> Result<Self> {
        let node = daemon.node().clone();
        let directory = lab.directory().join(format!("keepalived-{}", node.label()));
        fs::create_dir_all(&directory)?;
        // keepalived runs no script that somebody else than root could write, or that is in such a place.
        let notify = directory.join("notify");
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/keepalived/notify");
        let script = fs::read_to_string(&shipped).with_context(|| shipped.display().to_string())?;
        let log = directory.join("changes");
        let script = script.replace("exec logger -t ballast-keepalived -p \"daemon.$level\"", "exec echo");
        let script = script.replace("$what\"\n", &format!("$what\" >> {}\n", log.display()));
        ensure!(
            script.contains("exec echo") && script.contains("changes"),
            "the shipped script is another: {script}"
        );
        fs::write(&notify, script)?;
        fs::set_permissions(&notify, fs::Permissions::from_mode(0o755))?;
        let program = Daemon::binary_for_everybody(lab)?;
        let config = edit(daemon.cli_checked([
            "keepalived",
            "--config",
            daemon.files().config.to_str().context("UTF-8")?,
            "--peer",
            &peer.ipv4().to_string(),
            "--source",
            &node.ipv4().to_string(),
            "--priority",
            &priority.to_string(),
            "--notify",
            notify.to_str().context("UTF-8")?,
            "--program",
            program.to_str().context("UTF-8")?,
        ])?);
        let path = directory.join("keepalived.conf");
        fs::write(&path, &config)?;
        let judged = node.try_run("keepalived", ["--config-test", "-f", path.to_str().context("UTF-8")?])?;
        ensure!(judged.status.success(), "{}{}\n{config}", judged.stdout, judged.stderr);
        let mut keepalived = Self { node, directory, process: None };
        keepalived.launch()?;
        Ok(keepalived)
    }

    pub(crate) fn launch(&mut self) -> Result<()> {
        let path = |name: &str| self.directory.join(name);
        let log = fs::File::options().create(true).append(true).open(path("log"))?;
        let mut command = Command::new("keepalived");
        command
            .args(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "-f"])
            .arg(path("keepalived.conf"));
        command.arg("-p").arg(path("pid")).arg("-r").arg(path("vrrp.pid"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(self.node.spawn(&mut command)?);
        Ok(())
    }

    /// As `systemctl stop` does: it says good-bye.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it does not run")?;
        process.signal(Signal::SIGTERM)?;
        process.wait(SOON).map(drop)
    }

    /// What it said of itself last: MASTER, BACKUP, FAULT.
    pub(crate) fn state(&self) -> String {
        let changes = fs::read_to_string(self.directory.join("changes")).unwrap_or_default();
        let last = changes.lines().last().and_then(|line| line.strip_prefix("ballast is "));
        last.and_then(|rest| rest.split(':').next()).unwrap_or_default().to_owned()
    }

    pub(crate) fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        format!("{}\n{}", read("log"), read("changes"))
    }
}
