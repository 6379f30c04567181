//! Where what the API made and changed survives a restart.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    config::{Diagnostics, kept},
    disk,
    domain::{Kept, Name},
};

/// Keeps it. There is one writer, the control task.
pub trait Store: Send {
    /// What was kept. A file that makes no sense is set aside, and what it replaced counts then.
    ///
    /// # Errors
    ///
    /// It can't be read, or not be set aside.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Replaces what is kept. When this returns it survives a loss of power; if it fails, what was kept before is.
    ///
    /// # Errors
    ///
    /// The system refuses.
    fn save(&mut self, kept: &Kept) -> Result<(), StoreError>;

    /// Takes the last save back: `kept` is what was kept before it. Nothing of a change that was refused shall stand in
    /// for a file that makes no sense.
    ///
    /// # Errors
    ///
    /// As [`Self::save`].
    fn restore(&mut self, kept: &Kept) -> Result<(), StoreError> {
        self.save(kept)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    pub kept: Kept,
    /// Why this is not what was kept last.
    pub error: Option<String>,
}

/// The environment's fault.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{operation} {}: {source}", .path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("what is to be kept takes {size} bytes, and {} can hold {limit}", .path.display())]
    TooLarge { path: PathBuf, size: usize, limit: u64 },
    #[error("what is to be kept can't be written as TOML: {0}")]
    Format(#[from] toml::ser::Error),
}

/// `state.toml` in the state directory.
#[derive(Debug)]
pub struct FileStore {
    directory: PathBuf,
    /// Bytes of a file, for reading and writing alike.
    limit: u64,
}

impl FileStore {
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self { directory: state_dir.into(), limit: MAX_SIZE }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// What the last save replaced.
    fn old_path(&self) -> PathBuf {
        self.directory.join(format!("{FILE}.old"))
    }

    /// Sets aside what was added and set here before the services became a fleet's: nothing of it is in etcd. `joins`: this
    /// is the first start as a member; what a member has set over backends is the fleet's.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn leave_to_fleet(&self, mut loaded: Loaded, joins: bool) -> Result<Loaded, StoreError> {
        let kept = &mut loaded.kept;
        let mut names: BTreeSet<_> = kept.services.keys().chain(kept.backends.keys()).cloned().collect();
        names.extend(kept.overrides.keys().filter(|_| joins).cloned());
        if names.is_empty() {
            return Ok(loaded);
        }
        let aside = self.set_aside(&self.path(), "before-fleet")?;
        log::warn!(
            "the services are the fleet's, and what was added and set here before is not in it ({}): it was set aside as {}",
            names.iter().map(Name::as_str).collect::<Vec<_>>().join(", "),
            aside.display()
        );
        kept.services.clear();
        kept.backends.clear();
        kept.overrides.clear();
        self.replace(kept, |_| Ok(()))?;
        Ok(loaded)
    }

    /// Gives a file another name, so that nothing overwrites it, and says which.
    fn set_aside(&self, path: &Path, why: &str) -> Result<PathBuf, StoreError> {
        let name = |number: u32| match number {
            1 => self.directory.join(format!("{FILE}.{why}")),
            _ => self.directory.join(format!("{FILE}.{why}-{number}")),
        };
        // Of a thousand bad files the last one may go.
        let aside = (1..MAX_ASIDE).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(MAX_ASIDE));
        second_name(path, &aside).map_err(failed("can't set aside", path))?;
        Ok(aside)
    }

    /// Gives the present file a second name, which outlives the next save.
    fn keep_old(&self) -> io::Result<()> {
        let old = self.old_path();
        let absent_is_fine = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        };
        if !self.path().try_exists()? {
            // The old file is what the next one replaces: nothing newer is good.
            return Ok(());
        }
        fs::remove_file(&old).or_else(absent_is_fine)?;
        second_name(&self.path(), &old)
    }
}

/// Where a file system knows no links, a copy does: one that is not whole is found out by its checksum.
fn second_name(path: &Path, name: &Path) -> io::Result<()> {
    fs::hard_link(path, name).or_else(|_| fs::copy(path, name).map(drop))
}

/// What a file holds.
enum Content {
    Nothing,
    Good(Kept),
    /// And why.
    Bad(String),
}

fn read(path: &Path, limit: u64) -> Result<Content, StoreError> {
    let Some(bytes) = disk::read_bounded(path, limit).map_err(failed("can't read", path))? else {
        return Ok(Content::Nothing);
    };
    if bytes.len() as u64 > limit {
        return Ok(Content::Bad(format!("it is larger than {limit} bytes")));
    }
    let Ok(text) = String::from_utf8(bytes) else { return Ok(Content::Bad("it is not UTF-8".to_owned())) };
    Ok(match kept::read(path.to_path_buf(), text) {
        Ok(kept) => Content::Good(kept),
        Err(diagnostics) => Content::Bad(first(&diagnostics)),
    })
}

impl Store for FileStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let path = self.path();
        let why = match read(&path, self.limit)? {
            Content::Nothing => return Ok(Loaded::default()),
            Content::Good(kept) => return Ok(Loaded { kept, error: None }),
            Content::Bad(why) => why,
        };
        let old = self.old_path();
        // Read first: the bad file stays where it is if the old one can't be read.
        let content = read(&old, self.limit)?;
        let aside = self.set_aside(&path, "bad")?;
        let away = || fs::remove_file(&path).map_err(failed("can't set aside", &path));
        let (kept, instead) = match content {
            Content::Good(kept) => {
                // It takes the bad one's place, so that there is no moment without a file.
                fs::rename(&old, &path).map_err(failed("can't take back", &old))?;
                (kept, format!("what {} said is used: the last change before may be missing", old.display()))
            }
            Content::Bad(_) => {
                away()?;
                (Kept::default(), format!("{} makes no sense either: {GONE}", old.display()))
            }
            Content::Nothing => {
                away()?;
                (Kept::default(), format!("there is no {}: {GONE}", old.display()))
            }
        };
        let (path, aside) = (path.display(), aside.display());
        let error = format!("{path} makes no sense and was set aside as {aside} ({why}); {instead}");
        log::error!("{error}");
        Ok(Loaded { kept, error: Some(error) })
    }

    fn save(&mut self, kept: &Kept) -> Result<(), StoreError> {
        self.replace(kept, Self::keep_old)
    }

    fn restore(&mut self, kept: &Kept) -> Result<(), StoreError> {
        self.replace(kept, |_| Ok(()))
    }
}

impl FileStore {
    /// `first` is done when the new file is on disk and the present one still in its place.
    fn replace(&self, kept: &Kept, first: impl FnOnce(&Self) -> io::Result<()>) -> Result<(), StoreError> {
        let text = kept::write(kept)?;
        if text.len() as u64 > self.limit {
            // It would be set aside at the next start.
            return Err(StoreError::TooLarge { path: self.path(), size: text.len(), limit: self.limit });
        }
        let written = disk::replace(&self.path(), text.as_bytes(), || first(self));
        written.map_err(failed("can't write", &self.path()))
    }
}

fn first(diagnostics: &Diagnostics) -> String {
    diagnostics.iter().next().map(ToString::to_string).unwrap_or_default()
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io { operation, path, source }
}

const FILE: &str = "state.toml";
const GONE: &str = "services and backends that were added over the API are gone, those that were found are until they are found again, and \
     what was set over the file is, too";
/// Room for a hundred thousand backends.
const MAX_SIZE: u64 = 64 << 20;
const MAX_ASIDE: u32 = 1000;

/// Keeps in memory; clones are handles to the same.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryStore {
    kept: std::sync::Arc<std::sync::Mutex<Kept>>,
    full: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

#[cfg(test)]
impl MemoryStore {
    pub(crate) fn kept(&self) -> Kept {
        self.kept.lock().unwrap().clone()
    }

    /// From now on, whether there is no room.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Store for MemoryStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        Ok(Loaded { kept: self.kept(), error: None })
    }

    fn save(&mut self, kept: &Kept) -> Result<(), StoreError> {
        if self.full.load(std::sync::atomic::Ordering::Relaxed) {
            let source = io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(StoreError::Io { operation: "can't write", path: FILE.into(), source });
        }
        // What comes back is what a file would give.
        let text = kept::write(kept)?;
        *self.kept.lock().unwrap() = kept::read(FILE.into(), text).expect("readable");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::domain::{
        Override,
        testing::{name, service},
    };

    fn example() -> Kept {
        let mut kept = Kept::default();
        kept.set_over(&name("web"), &name("a"), Override { weight: Some(3), admin: None });
        let mut own = service("own", &[]);
        own.origin = crate::domain::Origin::Cli;
        kept.services.insert(name("own"), own);
        kept
    }

    #[test]
    fn what_was_made_before_a_fleet_is_set_aside_and_what_a_member_has_set_is_the_fleets() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = FileStore::new(directory.path());
        let before = example();
        store.save(&before).unwrap();
        let loaded = store.load().unwrap();
        let left = store.leave_to_fleet(loaded, true).unwrap();
        assert_eq!(left.kept, Kept::default());
        assert_eq!(store.load().unwrap(), left);
        let aside = directory.path().join("state.toml.before-fleet");
        let text = fs::read_to_string(&aside).unwrap();
        assert_eq!(kept::read(aside, text).unwrap(), before);
        let mut member = Kept::default();
        member.set_over(&name("web"), &name("a"), Override { weight: Some(9), admin: None });
        store.save(&member).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(store.leave_to_fleet(loaded.clone(), false).unwrap(), loaded);
        assert!(!directory.path().join("state.toml.before-fleet-2").exists());
    }

    #[test]
    fn what_is_saved_is_loaded_and_for_the_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = FileStore::new(directory.path().join("not/there/yet"));
        assert_eq!(store.load().unwrap(), Loaded::default());
        store.save(&Kept::default()).unwrap();
        store.save(&example()).unwrap();
        assert_eq!(store.load().unwrap(), Loaded { kept: example(), error: None });
        let mode = fs::metadata(store.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(store.path().parent().unwrap()).unwrap().count(), 2, "a draft was left");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_set_aside_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = FileStore::new(directory.path());
        let whole = kept::write(&example()).unwrap();
        let bad: [&[u8]; 4] =
            [b"", b"\xff\xfe", &whole.as_bytes()[..whole.len() - 20], b"version = 7\nchecksum = \"\"\n"];
        for (number, bytes) in bad.iter().enumerate() {
            fs::write(store.path(), bytes).unwrap();
            let loaded = store.load().unwrap();
            assert_eq!(loaded.kept, Kept::default());
            let error = loaded.error.expect("told");
            let aside = directory.path().join(match number {
                0 => "state.toml.bad".to_owned(),
                number => format!("state.toml.bad-{}", number + 1),
            });
            assert!(error.contains(aside.to_str().unwrap()), "{error}");
            assert_eq!(fs::read(aside).unwrap(), *bytes);
            assert_eq!(store.load().unwrap(), Loaded::default());
        }
    }

    #[test]
    fn the_state_before_stands_in_for_a_file_that_makes_no_sense() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = FileStore::new(directory.path());
        store.save(&example()).unwrap();
        store.save(&Kept::default()).unwrap();
        fs::write(store.path(), "torn").unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.kept, example());
        let error = loaded.error.expect("told");
        assert!(error.contains("state.toml.old") && error.contains("may be missing"), "{error}");
        // It is the state now, and what is saved next leaves it as the one before.
        assert_eq!(store.load().unwrap(), Loaded { kept: example(), error: None });
        store.save(&Kept::default()).unwrap();
        fs::write(store.path(), "torn").unwrap();
        assert_eq!(store.load().unwrap().kept, example());
        assert_eq!(fs::read(directory.path().join("state.toml.bad-2")).unwrap(), b"torn");
    }

    #[test]
    fn a_change_that_was_taken_back_stands_in_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = FileStore::new(directory.path());
        store.save(&example()).unwrap();
        store.save(&Kept::default()).unwrap();
        store.restore(&example()).unwrap();
        fs::write(store.path(), "torn").unwrap();
        assert_eq!(store.load().unwrap().kept, example());
    }

    #[test]
    fn two_files_that_make_no_sense_are_told_as_such() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = FileStore::new(directory.path());
        fs::write(store.path(), "torn").unwrap();
        fs::write(store.old_path(), "torn").unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.kept, Kept::default());
        let error = loaded.error.expect("told");
        assert!(error.contains("either") && error.contains("are gone"), "{error}");
    }

    #[test]
    fn what_could_not_be_loaded_is_not_saved() {
        let directory = tempfile::tempdir().unwrap();
        let size = kept::write(&example()).unwrap().len() as u64;
        let mut store = FileStore { limit: size, ..FileStore::new(directory.path()) };
        store.save(&example()).unwrap();
        assert_eq!(store.load().unwrap().kept, example());
        store.limit -= 1;
        assert!(matches!(store.save(&example()), Err(StoreError::TooLarge { .. })));
    }

    #[test]
    fn a_save_that_fails_leaves_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = FileStore::new(directory.path());
        store.save(&example()).unwrap();
        // A directory in the draft's place: nothing can be written there, not even by root.
        fs::create_dir(directory.path().join("state.toml.new")).unwrap();
        let error = store.save(&Kept::default()).unwrap_err();
        assert!(error.to_string().contains("state.toml"), "{error}");
        assert_eq!(store.load().unwrap().kept, example());
    }
}
