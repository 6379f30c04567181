//! What a lab needs of its host, and the honest way out when it is missing.

use std::io::Write;
use std::path::Path;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::geteuid;

/// Where bpffs is expected to be.
pub const BPFFS: &str = "/sys/fs/bpf";

/// File that skipped tests are counted in, one line each.
pub const SKIP_FILE_VARIABLE: &str = "BALLAST_SKIP_FILE";

/// Returns from a test that needs root where there is none, having counted it as skipped.
///
/// `require_root!()` suits a test that returns nothing, `require_root!(Ok(()))` one that returns a `Result`.
#[macro_export]
macro_rules! require_root {
    () => {
        $crate::require_root!(())
    };
    ($skipped:expr) => {
        if !$crate::lab::is_root() {
            $crate::lab::skip("needs root");
            return $skipped;
        }
    };
}

/// Whether this process may make namespaces and load programs.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Counts the running test as skipped: a line on stderr and one in the file that [`SKIP_FILE_VARIABLE`] names.
///
/// # Panics
///
/// If that file can't be written: a skip nobody counts is a test that pretends to have passed.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("unnamed test").to_owned();
    let line = format!("SKIPPED {test}: {reason}\n");
    eprint!("{line}");
    if let Some(path) = env::var_os(SKIP_FILE_VARIABLE) {
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|error| {
                panic!("count a skipped test in {}: {error}", Path::new(&path).display())
            });
    }
}

/// Mounts bpffs if it is not mounted. It stays: others may use it by the time the lab ends.
pub(super) fn ensure_bpffs() -> Result<()> {
    let is_bpffs = || statfs(BPFFS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    if is_bpffs() {
        return Ok(());
    }
    mount(Some("bpffs"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount bpffs on {BPFFS}"))?;
    if !is_bpffs() {
        bail!("{BPFFS} is not a bpffs although mounting it succeeded");
    }
    Ok(())
}
