//! A wall clock that a daemon has for itself, so that a test can set it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab};

pub(crate) struct WallClock {
    library: PathBuf,
    /// Holds the seconds that it is ahead of the host's.
    ahead: PathBuf,
}

impl WallClock {
    /// As the host's.
    pub(crate) fn new(lab: &Lab) -> Result<Self> {
        let [source, library, ahead] =
            ["wall_clock.c", "wall_clock.so", "ahead"].map(|name| lab.directory().join(name));
        fs::write(&source, include_str!("wall_clock.c"))?;
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).args([&library, &source]);
        let compiled = compile.output().context("run cc, which links Rust programs too")?;
        ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        fs::write(&ahead, 0_i64.to_ne_bytes())?;
        Ok(Self { library, ahead })
    }

    /// From its next start on the daemon has this one.
    pub(crate) fn give(&self, daemon: &mut Daemon) {
        let library = format!("LD_PRELOAD={}", self.library.display());
        let ahead = format!("WALL_CLOCK_AHEAD={}", self.ahead.display());
        daemon.start_through(["env", &library, &ahead]);
    }

    /// Sets it, for daemons that run and those to come, to so many seconds after the beginning of 1970.
    pub(crate) fn set(&self, to: u64) -> Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let ahead = i64::try_from(to)? - i64::try_from(now)?;
        File::options().write(true).open(&self.ahead)?.write_all_at(&ahead.to_ne_bytes(), 0)?;
        Ok(())
    }

    /// Sets it right.
    pub(crate) fn set_right(&self) -> Result<()> {
        File::options().write(true).open(&self.ahead)?.write_all_at(&0_i64.to_ne_bytes(), 0)?;
        Ok(())
    }
}
