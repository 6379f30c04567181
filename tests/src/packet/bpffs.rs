//! A BPF file system that only one thread sees.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;

/// Keeps the thread that made it in a mount namespace of its own. Dropping it takes the thread back to where it was, and what is
/// pinned goes.
#[derive(Debug)]
pub(super) struct PrivateBpffs {
    namespace: File,
    directory: TempDir,
}

impl PrivateBpffs {
    pub(super) fn mount() -> Result<Self> {
        let directory = tempfile::tempdir().context("make a directory")?;
        let namespace =
            File::open("/proc/thread-self/ns/mnt").context("open this thread's mount namespace")?;
        unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
        let this = Self { namespace, directory };
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .context("keep mounts to this thread")?;
        mount(Some("bpf"), this.directory.path(), Some("bpf"), MsFlags::empty(), none)
            .context("mount a BPF file system")?;
        Ok(this)
    }

    /// Where a program may pin its maps.
    pub(super) fn pin_dir(&self) -> PathBuf {
        self.directory.path().join("pins")
    }
}

impl Drop for PrivateBpffs {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.namespace, CloneFlags::CLONE_NEWNS) {
            eprintln!("leave a test's mount namespace: {error}");
        }
    }
}
