//! The file system that pins are on.

use std::{fs, path::Path};

use log::info;
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::pins::{PinError, entries, failed};

/// Sees to it that `root` is or will be on a BPF file system, and mounts one where there is none.
///
/// # Errors
///
/// If the place is not to be seen or taken, or this process may not mount.
pub fn provide_bpffs(root: &Path) -> Result<(), PinError> {
    let mut nearest = root;
    // Who may not look into a directory is told so, and not that there is nothing.
    while !nearest.try_exists().map_err(failed(nearest, "look for it"))? {
        nearest = nearest.parent().unwrap_or(Path::new("/"));
    }
    if is_bpffs(nearest)? {
        return Ok(());
    }
    let parent = root.parent().ok_or_else(|| PinError::NoParent(root.into()))?;
    fs::create_dir_all(parent).map_err(failed(parent, "create it"))?;
    // Mounting hides what is there.
    if !entries(parent)?.is_empty() {
        return Err(PinError::NotBpffs { pin_dir: root.into(), parent: parent.into() });
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), parent, Some("bpf"), flags, Some("mode=0700")).map_err(|errno| match errno {
        Errno::EPERM => PinError::NotMounted { pin_dir: root.into(), parent: parent.into() },
        errno => failed(parent, "mount a BPF file system there")(errno.into()),
    })?;
    info!("mounted a BPF file system on {}", parent.display());
    Ok(())
}

pub(super) fn is_bpffs(path: &Path) -> Result<bool, PinError> {
    let statfs = statfs(path).map_err(|errno| failed(path, "ask for its file system")(errno.into()))?;
    Ok(statfs.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_mounted_over_files() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("file"), "").expect("written");
        let error = provide_bpffs(&directory.path().join("ballast")).expect_err("no place for pins");
        assert!(matches!(error, PinError::NotBpffs { .. }), "{error}");
    }
}
