//! Files with passwords that others than they should can read.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Says in the log that everybody on this host can read or change the password at `path`, once until that is mended. A group
/// may: the daemon's user is not always the owner.
pub(crate) fn warn_if_exposed(path: &Path, file: &fs::Metadata) {
    let mode = file.permissions().mode() & 0o7777;
    if TOLD.note(path, mode) {
        log::warn!(
            "password_file {} is open to everybody on this host (mode {mode:04o}): `chmod o= {0}`",
            path.display()
        );
    }
}

/// Those that are exposed, as was told.
#[derive(Default)]
struct Told(Mutex<BTreeSet<PathBuf>>);

impl Told {
    /// Whether it is news that the file is exposed.
    fn note(&self, path: &Path, mode: u32) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match mode & 0o007 {
            0 => {
                told.remove(path);
                false
            }
            _ => told.insert(path.to_path_buf()),
        }
    }
}

static TOLD: Told = Told(Mutex::new(BTreeSet::new()));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_everybody_can_read_is_told_once_until_it_is_mended() {
        let (told, path) = (Told::default(), Path::new("/etc/ballast/password"));
        let modes = [0o600, 0o640, 0o644, 0o644, 0o604, 0o640, 0o602];
        assert_eq!(modes.map(|mode| told.note(path, mode)), [false, false, true, false, false, false, true]);
        assert!(told.note(Path::new("/etc/ballast/another"), 0o644));
    }
}
