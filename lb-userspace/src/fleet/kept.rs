//! What a member had of its fleet, for a start that can't ask etcd.

mod text;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::book::{Book, Rules};
use crate::{
    config::{self, FleetConfig},
    disk,
};
use text::{read, write};

/// `fleet.toml`, `fleet-next.toml` and `fleet-member.id` in the state directory.
#[derive(Debug)]
pub struct KeptFleet {
    path: PathBuf,
    /// What is about to become live: whoever dies meanwhile goes on with it, and not with what was before.
    next: PathBuf,
    id: PathBuf,
}

impl KeptFleet {
    pub fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("fleet.toml"),
            next: state_dir.join("fleet-next.toml"),
            id: state_dir.join("fleet-member.id"),
        }
    }

    /// What the host of the configuration at `path` had of its fleet. See [`Self::load`].
    pub fn of_host(path: &Path, config: &FleetConfig) -> Option<Book> {
        Self::new(&config::state_dir_of(path)).load(&Rules::of(config))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was live last of the fleet under the prefix of `rules`. `None` where there is nothing, or nothing of use, which is
    /// logged.
    pub fn load(&self, rules: &Rules) -> Option<Book> {
        load(&self.path, rules)
    }

    /// What was about to become live after `kept`, if a daemon died over it.
    pub fn load_next(&self, kept: &Book, rules: &Rules) -> Option<Book> {
        load(&self.next, rules).filter(|next| next.id().is_some() && next.id() == kept.id())
    }

    /// Keeps what is about to become live; see [`Self::confirm`] and [`Self::discard`].
    ///
    /// # Errors
    ///
    /// Why not, for people.
    pub fn prepare(&self, book: &Book, rules: &Rules) -> Result<(), String> {
        let text = write(book, rules).map_err(|error| self.failed(&error))?;
        // When it is needed everything has lost its power, perhaps.
        disk::replace(&self.next, text.as_bytes(), || Ok(())).map_err(|error| self.failed(&error))
    }

    /// What was prepared is live.
    ///
    /// # Errors
    ///
    /// Why it can't be kept, for people.
    pub fn confirm(&self) -> Result<(), String> {
        disk::rename(&self.next, &self.path).map_err(|error| self.failed(&error))
    }

    /// What was prepared was refused.
    pub fn discard(&self) {
        // It is tried again at the next start if it can't be removed, and refused again.
        let _ = fs::remove_file(&self.next);
    }

    fn failed(&self, error: &dyn fmt::Display) -> String {
        format!(
            "can't write {}: {error}; a start that can't reach etcd would go by what was kept before",
            self.path.display()
        )
    }

    /// What tells this member from another of its name; made at the first start.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn id(&self) -> io::Result<String> {
        let is_one =
            |text: &str| text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some(bytes) = disk::read_bounded(&self.id, 64)? {
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            if is_one(&text) {
                return Ok(text);
            }
        }
        let id = format!("{:032x}", fastrand::u128(..));
        disk::replace(&self.id, format!("{id}\n").as_bytes(), || Ok(()))?;
        Ok(id)
    }
}

fn load(path: &Path, rules: &Rules) -> Option<Book> {
    let shown = path.display();
    let bytes = match disk::read_bounded(path, MAX_SIZE) {
        Ok(bytes) => bytes?,
        Err(error) => {
            log::error!("can't read {shown}: {error}");
            return None;
        }
    };
    match read(&String::from_utf8_lossy(&bytes), rules) {
        Ok(book) => book,
        Err(error) => {
            log::error!("{shown} makes no sense: {error}; what the fleet has is known when etcd answers");
            None
        }
    }
}

/// Larger than what etcd holds of one fleet by default.
const MAX_SIZE: u64 = 256 << 20;
const ID_DIGITS: usize = 32;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        config::{document::Document, shape::of_origin},
        domain::{Origin, testing::service},
        fleet::{book::Good, keys::Keys},
    };

    fn rules(prefix: &str) -> Rules {
        Rules { keys: Keys::new(prefix), local_files: false }
    }

    fn book() -> Book {
        let good = |name: &str, revision| {
            let service = of_origin(service(name, &[("a", 1)]), &Origin::Fleet);
            let document = Document { service, overrides: BTreeMap::new() };
            let text = document.write().expect("written");
            (name.to_owned(), Good { revision, text, document })
        };
        Book::of(9, "a", [good("web", 7), good("dns", 9)])
    }

    #[test]
    fn what_was_kept_is_loaded_as_the_same_and_another_fleets_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let kept = KeptFleet::new(&directory.path().join("state"));
        let rules = rules("/ballast");
        assert_eq!(kept.load(&rules), None);
        save(&kept, &book(), &rules);
        assert_eq!(kept.load(&rules), Some(book()));
        assert_eq!(kept.load(&self::rules("/other")), None);
    }

    fn save(kept: &KeptFleet, book: &Book, rules: &Rules) {
        kept.prepare(book, rules).expect("prepared");
        kept.confirm().expect("confirmed");
    }

    #[test]
    fn what_was_about_to_become_live_is_known_after_a_crash_and_is_no_other_fleets() {
        let directory = tempfile::tempdir().expect("a directory");
        let (kept, rules) = (KeptFleet::new(directory.path()), rules("/ballast"));
        let next = |id: &str| Book::of(12, id, []);
        // Of a member that never had anything live nothing was lost.
        kept.prepare(&book(), &rules).expect("prepared");
        assert_eq!(kept.load(&rules), None);
        assert_eq!(kept.load_next(&Book::default(), &rules), None);
        kept.confirm().expect("confirmed");
        kept.prepare(&next("a"), &rules).expect("prepared");
        assert_eq!((kept.load(&rules), kept.load_next(&book(), &rules)), (Some(book()), Some(next("a"))));
        kept.confirm().expect("confirmed");
        assert_eq!((kept.load(&rules), kept.load_next(&next("a"), &rules)), (Some(next("a")), None));
        kept.prepare(&next("b"), &rules).expect("prepared");
        assert_eq!(kept.load_next(&next("a"), &rules), None);
        kept.discard();
        assert_eq!(kept.load_next(&next("b"), &rules), None);
        assert!(kept.confirm().is_err());
    }

    #[test]
    fn no_part_of_it_passes_for_the_whole() {
        let rules = rules("/ballast");
        let text = write(&book(), &rules).expect("written");
        assert_eq!(read(&text, &rules), Ok(Some(book())));
        for end in 0..text.len() - 1 {
            assert!(read(text.get(..end).unwrap_or_default(), &rules).is_err(), "cut after {end} bytes");
        }
        assert!(read(&text.replace("weight = 1", "weight = 2"), &rules).is_err());
    }

    #[test]
    fn the_id_is_made_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let kept = KeptFleet::new(directory.path());
        let id = kept.id().expect("made");
        assert_eq!(kept.id().expect("read"), id);
        std::fs::write(directory.path().join("fleet-member.id"), "torn").expect("written");
        assert_ne!(kept.id().expect("made"), "torn");
    }
}
