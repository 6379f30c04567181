//! The configuration that was applied last, for a start that finds the files wrong.

use std::path::{Path, PathBuf};

use crate::{
    config::{self, Config, applied},
    disk,
};

/// `applied.toml` in the state directory.
#[derive(Debug)]
pub(super) struct LastApplied {
    path: PathBuf,
}

impl LastApplied {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join("applied.toml") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What was applied last of the configuration whose main file is `main`. `None` where there is nothing, or nothing that
    /// can be used, which is logged.
    pub(super) fn load(&self, main: &Path) -> Option<Config> {
        let shown = self.path.display();
        let bytes = match disk::read_bounded(&self.path, MAX_SIZE) {
            Ok(bytes) => bytes?,
            Err(error) => {
                log::error!("can't read {shown}: {error}");
                return None;
            }
        };
        let files = match applied::read(&String::from_utf8_lossy(&bytes)) {
            Ok(files) => files,
            Err(error) => {
                log::error!("{shown} makes no sense: {error}");
                return None;
            }
        };
        // The default directory may be another daemon's.
        let (first, _) = files.first()?;
        if std::path::absolute(main).ok().as_ref() != Some(first) {
            return None;
        }
        match config::parse(files) {
            Ok(config) => Some(config),
            Err(diagnostics) => {
                log::error!("{shown} holds what this version does not take: {diagnostics}");
                None
            }
        }
    }

    /// Keeps what was applied.
    ///
    /// # Errors
    ///
    /// Why not, for people.
    pub(super) fn save(&self, files: &[(PathBuf, String)]) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| {
            format!(
                "can't write {}: {error}; should the configuration be wrong at the next start, what was applied before \
                 would run",
                self.path.display()
            )
        };
        let text = applied::write(files).map_err(|error| failed(&error))?;
        // As at most starts, which nothing shall hold up.
        if disk::read_bounded(&self.path, MAX_SIZE).is_ok_and(|kept| kept.as_deref() == Some(text.as_bytes()))
        {
            return Ok(());
        }
        // The files themselves are what counts: no reload waits for the disk.
        disk::replace_at_leisure(&self.path, text.as_bytes()).map_err(|error| failed(&error))
    }
}

/// Larger than the files it holds: escaped, their texts may grow.
const MAX_SIZE: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "[daemon]\ninterfaces = [\"eth0\"]\n";

    fn saved(directory: &Path, main: &Path) -> LastApplied {
        let last = LastApplied::new(&directory.join("state"));
        let fragment = "[[service]]\nname = \"web\"\naddress = \"203.0.113.10:80\"\n".to_owned();
        last.save(&[(main.into(), MAIN.to_owned()), (directory.join("conf.d/1.toml"), fragment)])
            .expect("saved");
        last
    }

    #[test]
    fn what_was_saved_is_loaded_with_the_places_in_its_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let main = directory.path().join("config.toml");
        let last = saved(directory.path(), &main);
        let config = last.load(&main).expect("it is there");
        assert!(config.services[0].origin.to_string().ends_with("conf.d/1.toml:1"));
        assert_eq!(config.files[0], (main, MAIN.to_owned()));
    }

    #[test]
    fn what_is_there_already_is_not_written_again() {
        use std::os::unix::fs::MetadataExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let main = directory.path().join("config.toml");
        let number = |last: &LastApplied| std::fs::metadata(last.path()).expect("it is there").ino();
        let first = saved(directory.path(), &main);
        // It keeps its number from whoever is made next.
        let _held = std::fs::File::open(first.path()).expect("it is there");
        let before = number(&first);
        assert_eq!(number(&saved(directory.path(), &main)), before);
        first.save(&[(main, String::new())]).expect("saved");
        assert_ne!(number(&first), before);
    }

    #[test]
    fn another_configurations_copy_is_none_and_neither_is_one_that_makes_no_sense() {
        let directory = tempfile::tempdir().expect("a directory");
        let main = directory.path().join("config.toml");
        let last = saved(directory.path(), &main);
        assert!(last.load(&directory.path().join("other.toml")).is_none());
        std::fs::write(last.path(), "torn").expect("written");
        assert!(last.load(&main).is_none());
        std::fs::remove_file(last.path()).expect("removed");
        assert!(last.load(&main).is_none());
    }

    #[test]
    fn a_copy_that_can_not_be_kept_is_told_and_the_old_one_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let main = directory.path().join("config.toml");
        let last = saved(directory.path(), &main);
        // A directory in the draft's place: nothing can be written there, not even by root.
        std::fs::create_dir(directory.path().join("state/applied.toml.new")).expect("made");
        let error = last.save(&[(main.clone(), String::new())]).expect_err("there is no room");
        assert!(error.contains("applied.toml") && error.contains("what was applied before"), "{error}");
        assert!(last.load(&main).is_some());
    }
}
