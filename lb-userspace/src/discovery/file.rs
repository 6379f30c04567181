//! Looks at a file of backends.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    time::{Duration, SystemTime},
};

/// Which file it was, in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// As it was at the last look.
    Same,
    /// Somebody may be writing it.
    Unsettled,
    Text {
        stamp: Stamp,
        text: String,
    },
    /// It can't be read, and why.
    Failed(String),
}

/// Reads the file unless it is in the state of `known`. Blocks.
pub(super) fn look(path: &Path, known: Option<Stamp>) -> Looked {
    match try_look(path, known) {
        Ok(looked) => looked,
        Err(error) => Looked::Failed(format!("can't read {}: {error}", path.display())),
    }
}

fn try_look(path: &Path, known: Option<Stamp>) -> io::Result<Looked> {
    // A pipe in its place would have us wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let stamp = Stamp::of(&before);
    if known == Some(stamp) {
        return Ok(Looked::Same);
    }
    // A file that was put in its place whole has not been written to for a moment, or is written to no more.
    let age = before.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    if age.is_some_and(|age| age < SETTLING) {
        return Ok(Looked::Unsettled);
    }
    let bytes = read(&file)?;
    if Stamp::of(&file.metadata()?) != stamp {
        return Ok(Looked::Unsettled);
    }
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))?;
    Ok(Looked::Text { stamp, text })
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(io::Error::other(format!(
            "it is larger than {} MiB, which is the limit",
            MAX_SIZE >> 20
        )));
    }
    Ok(bytes)
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Room for the most backends that one file may have.
const MAX_SIZE: u64 = 4 << 20;
/// A file that was written to less than this ago is looked at again.
pub(super) const SETTLING: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Until it is no more unsettled.
    fn settled(path: &Path, known: Option<Stamp>) -> Looked {
        loop {
            match look(path, known) {
                Looked::Unsettled => std::thread::sleep(SETTLING / 4),
                looked => return looked,
            }
        }
    }

    #[test]
    fn a_file_is_read_when_it_has_settled_and_not_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("web.toml");
        fs::write(&path, "one").expect("written");
        assert_eq!(look(&path, None), Looked::Unsettled);
        let Looked::Text { stamp, text } = settled(&path, None) else { panic!("it is there") };
        assert_eq!(text, "one");
        assert_eq!(look(&path, Some(stamp)), Looked::Same);
        // Another one in its place, of the same size.
        fs::write(path.with_extension("new"), "two").expect("written");
        fs::rename(path.with_extension("new"), &path).expect("renamed");
        assert!(matches!(settled(&path, Some(stamp)), Looked::Text { text, .. } if text == "two"));
    }

    #[test]
    fn what_is_no_file_is_told_and_keeps_nobody_waiting() {
        let directory = tempfile::tempdir().expect("a directory");
        let failed = |path: &Path, said: &str| match look(path, None) {
            Looked::Failed(why) => assert!(why.contains(said), "{why}"),
            looked => panic!("{looked:?}"),
        };
        let path = directory.path().join("web.toml");
        failed(&path, "No such file");
        failed(directory.path(), "not a file");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
        failed(&path, "not a file");
    }

    #[test]
    fn a_file_that_is_too_large_or_no_text_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("web.toml");
        for (bytes, said) in
            [(vec![0xff; 4], "not UTF-8"), (vec![b' '; (MAX_SIZE + 1) as usize], "larger than 4 MiB")]
        {
            fs::write(&path, bytes).expect("written");
            assert!(matches!(settled(&path, None), Looked::Failed(why) if why.contains(said)), "{said}");
        }
    }
}
