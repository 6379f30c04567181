//! Files that are whole whenever one looks at them.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Puts a file with these bytes in the place of the one at `path`, readable by its owner alone; makes the directory where it
/// is not there. When this returns the file survives a loss of power; if it fails, the one that was there is still there.
/// `first` is done when the new file is on disk and the present one still in its place.
///
/// # Errors
///
/// The system refuses.
pub(crate) fn replace(path: &Path, bytes: &[u8], first: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Always the same name: what a crash leaves is overwritten.
    let draft = draft_of(path);
    let written = write_whole(&draft, bytes).and_then(|()| first()).and_then(|()| rename(&draft, path));
    if written.is_err() {
        // The error to report is the first one.
        let _ = fs::remove_file(&draft);
    }
    written
}

/// As [`replace`] for a file that nobody may be kept waiting for: when this returns it survives the end of the process, and a
/// loss of power a moment later. Until then such a loss may leave a file that is torn.
///
/// # Errors
///
/// The system refuses to write; what goes wrong later is logged.
pub(crate) fn replace_at_leisure(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let draft = draft_of(path);
    let written = write(&draft, bytes).and_then(|file| fs::rename(&draft, path).map(|()| file));
    if written.is_err() {
        // The error to report is the first one.
        let _ = fs::remove_file(&draft);
    }
    let (file, path, directory) = (written?, path.to_path_buf(), directory.to_path_buf());
    std::thread::spawn(move || {
        let synced = file.sync_all().and_then(|()| fs::File::open(directory)?.sync_all());
        if let Err(error) = synced {
            log::error!("can't sync {}: {error}", path.display());
        }
    });
    Ok(())
}

/// Puts a file that survives a loss of power into the place of another one in its directory, so that this does, too.
///
/// # Errors
///
/// The system refuses.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    fs::File::open(to.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// The bytes of a file, at most `limit` and one more; `None` where there is none.
///
/// # Errors
///
/// The system refuses.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(file) => file.take(limit + 1).read_to_end(&mut bytes).map(|_| Some(bytes)),
    }
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    path.with_file_name(name)
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes)?.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<fs::File> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    Ok(file)
}
