//! The pin directory: what a stopped daemon leaves behind so that forwarding goes on, and a started one takes up again.
//!
//! ```text
//! /sys/fs/bpf/ballast/              locked for as long as a daemon lives
//! /sys/fs/bpf/ballast/abi-6/        one layout of the maps
//! /sys/fs/bpf/ballast/abi-6/LOOKUP  a map
//! /sys/fs/bpf/ballast/abi-6/link-eth0
//! ```

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use lb_common::abi::{ABI_VERSION, names};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::stat::{major, minor},
};

use super::{
    bpffs::{is_bpffs, provide_bpffs},
    maps::{Expected, Mismatch},
    probe_filter, sys,
};

/// What is wrong with the pin directory. The environment's fault, or the operator's.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("{}: could not {operation}: {source}", path.display())]
    Io { path: PathBuf, operation: &'static str, source: io::Error },
    #[error(
        "pin_dir {} is not on a BPF file system, and {} is not empty, so none was mounted there; the usual place is \
         /sys/fs/bpf/ballast",
        pin_dir.display(), parent.display()
    )]
    NotBpffs { pin_dir: PathBuf, parent: PathBuf },
    #[error(
        "pin_dir {} is not on a BPF file system, and mounting one takes CAP_SYS_ADMIN: mount it on {} first, for a user who may \
         write there, or start the daemon as root",
        pin_dir.display(), parent.display()
    )]
    NotMounted { pin_dir: PathBuf, parent: PathBuf },
    #[error("pin_dir {} needs a parent directory to mount a BPF file system on", .0.display())]
    NoParent(PathBuf),
    #[error(
        "{} is in use by another ballast daemon{}; stop that one first, or give this one a pin_dir of its own",
        pin_dir.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Locked { pin_dir: PathBuf, pid: Option<u32> },
    #[error(
        "{} holds maps of layout {found}, and this version of ballast uses layout {}; they keep forwarding. Run the \
         version that made them, or `ballast detach` (which stops forwarding) and start again",
        pin_dir.display(), abi_name()
    )]
    OtherAbi { pin_dir: PathBuf, found: String },
    #[error(
        "pinned map {}: {mismatch}. Nothing was changed, and forwarding goes on as it was",
        path.display()
    )]
    Mismatch { path: PathBuf, mismatch: Mismatch },
    #[error(
        "pinned maps are missing from {}: {}; interfaces are still attached, and forwarding goes on. Run `ballast \
         detach` (which stops forwarding) and start again",
        directory.display(), missing.join(", ")
    )]
    Incomplete { directory: PathBuf, missing: Vec<&'static str> },
}

/// The locked pin directory.
#[derive(Debug)]
pub(super) struct PinDir {
    root: PathBuf,
    _lock: Flock<File>,
}

/// A link that an earlier daemon left.
#[derive(Debug)]
pub(super) struct PinnedLink {
    pub(super) path: PathBuf,
    /// Name of the interface when it was attached.
    pub(super) interface: String,
    pub(super) link: OwnedFd,
    /// The interface now; 0 if it is gone.
    pub(super) ifindex: u32,
}

impl PinDir {
    /// Makes the directory, on a BPF file system mounted for it if need be, and locks it.
    pub(super) fn open(root: &Path) -> Result<Self, PinError> {
        provide_bpffs(root)?;
        loop {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(root);
            made.map_err(failed(
                root,
                "create the pin directory (a BPF file system allows no dots in names)",
            ))?;
            if let Some(pins) = Self::lock(root)? {
                return Ok(pins);
            }
        }
    }

    /// Locks the directory if there is one.
    pub(super) fn existing(root: &Path) -> Result<Option<Self>, PinError> {
        if !root.try_exists().map_err(failed(root, "look for it"))? || !is_bpffs(root)? {
            return Ok(None);
        }
        Self::lock(root)
    }

    /// `None` if the directory vanished meanwhile: `ballast detach` removes it.
    fn lock(root: &Path) -> Result<Option<Self>, PinError> {
        let directory = match File::open(root) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(root, "open the pin directory")(error)),
        };
        let opened = directory.metadata().map_err(failed(root, "inspect the pin directory"))?;
        let lock = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(PinError::Locked { pin_dir: root.into(), pid: holder(&opened) });
            }
            Err((_, errno)) => return Err(failed(root, "lock the pin directory")(errno.into())),
        };
        let same = fs::metadata(root).is_ok_and(|now| (now.dev(), now.ino()) == (opened.dev(), opened.ino()));
        Ok(same.then(|| Self { root: root.into(), _lock: lock }))
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn link_path(&self, interface: &str) -> PathBuf {
        self.abi().join(format!("{LINK_PREFIX}{}", escape(interface)))
    }

    /// Whether there are maps to adopt, all of them as `expected`. Leftovers of a first start that got nowhere are
    /// removed.
    ///
    /// Everything is verified before anything is used: the loader would adopt maps of another size without a word, and
    /// the program would be verified against those.
    pub(super) fn adoptable(&self, expected: &HashMap<&'static str, Expected>) -> Result<bool, PinError> {
        if let Some(found) = self.versions()?.into_iter().find(|found| *found != abi_name()) {
            return Err(PinError::OtherAbi { pin_dir: self.root.clone(), found });
        }
        let directory = self.abi();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(failed(&directory, "create it"))?;

        let missing = missing_maps(&directory, expected)?;
        if missing.is_empty() {
            Ok(true)
        } else if self.links()?.is_empty() {
            self.remove_maps()?;
            Ok(false)
        } else {
            Err(PinError::Incomplete { directory, missing })
        }
    }

    pub(super) fn links(&self) -> Result<Vec<PinnedLink>, PinError> {
        links(&self.abi())
    }

    /// Unpins the maps; those that a running program uses live on without a name.
    fn remove_maps(&self) -> Result<(), PinError> {
        for name in names::PINNED_MAPS {
            let path = map_path(&self.root, name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&path, "remove the pin")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Detaches every link and filter, then removes every pin of every layout and the directory itself. Returns the
    /// interfaces.
    pub(super) fn clear(self) -> Result<Vec<String>, PinError> {
        let mut interfaces = Vec::new();
        for version in self.versions()? {
            let directory = self.root.join(version);
            for pinned in links(&directory)? {
                if pinned.ifindex != 0 {
                    interfaces.push(pinned.interface.clone());
                }
                pinned.detach()?;
            }
            for path in entries(&directory)? {
                fs::remove_file(&path).map_err(failed(&path, "remove the pin"))?;
            }
            fs::remove_dir(&directory).map_err(failed(&directory, "remove it"))?;
        }
        match fs::remove_dir(&self.root) {
            // Whoever provided the directory may have made it a mount, or its parent somebody else's: it stays, empty.
            Err(error) if is_provided(&error) => {}
            result => result.map_err(failed(&self.root, "remove it"))?,
        }
        // Last: whatever becomes of them, forwarding has stopped.
        remove_filters(&self.root)?;
        Ok(interfaces)
    }

    fn abi(&self) -> PathBuf {
        self.root.join(abi_name())
    }

    /// Names of the layouts in the directory.
    fn versions(&self) -> Result<Vec<String>, PinError> {
        let names = entries(&self.root)?.into_iter().filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            name.starts_with(ABI_PREFIX).then(|| name.to_owned())
        });
        Ok(names.collect())
    }
}

/// Sees to it that all maps are pinned there, and are as `expected`: the loader would make those that are not.
pub(super) fn verify(root: &Path, expected: &HashMap<&'static str, Expected>) -> Result<(), PinError> {
    let directory = root.join(abi_name());
    let missing = missing_maps(&directory, expected)?;
    if missing.is_empty() { Ok(()) } else { Err(PinError::Incomplete { directory, missing }) }
}

/// Where a map of this layout is pinned.
pub(super) fn map_path(root: &Path, map: &str) -> PathBuf {
    root.join(abi_name()).join(map)
}

/// Maps that are not pinned in the directory. Those that are there are as `expected`.
fn missing_maps(
    directory: &Path,
    expected: &HashMap<&'static str, Expected>,
) -> Result<Vec<&'static str>, PinError> {
    let mut missing = Vec::new();
    // Backwards, because the first mismatch is the one that is reported: those whose size is a limit's number come
    // after SERVICE_TABLE, whose size only follows from one.
    for name in names::PINNED_MAPS.into_iter().rev() {
        let path = directory.join(name);
        match sys::open_pin(&path) {
            Ok(map) => {
                let info = sys::map_info(map.as_fd()).map_err(failed(&path, "inspect the map"))?;
                let verified = expected.get(name).map_or(Ok(()), |expected| expected.verify(&info));
                verified.map_err(|mismatch| PinError::Mismatch { path, mismatch })?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(name),
            Err(error) => return Err(failed(&path, "open the pin")(error)),
        }
    }
    Ok(missing)
}

/// Takes the filters for health checks off every interface.
pub(super) fn remove_filters(root: &Path) -> Result<(), PinError> {
    probe_filter::remove(root).map_err(failed(root, "remove its filters from interfaces"))
}

impl PinnedLink {
    /// Takes the program off its interface, at once, and removes the pin.
    pub(super) fn detach(self) -> Result<(), PinError> {
        if self.ifindex != 0 {
            // Closing the last reference would detach it too, but at some later time.
            sys::detach_link(self.link.as_fd()).map_err(failed(&self.path, "detach the link"))?;
        }
        self.unpin()
    }

    /// Removes the pin, if what is pinned there still is this link.
    pub(super) fn unpin(&self) -> Result<(), PinError> {
        let id = |link: &OwnedFd| sys::link_info(link.as_fd()).map(|info| info.id);
        let result = sys::open_pin(&self.path).and_then(|pinned| {
            if id(&pinned)? == id(&self.link)? { fs::remove_file(&self.path) } else { Ok(()) }
        });
        match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(failed(&self.path, "remove the pin")),
        }
    }
}

fn is_provided(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EACCES | libc::EPERM | libc::EROFS))
}

pub(super) fn links(directory: &Path) -> Result<Vec<PinnedLink>, PinError> {
    let mut links = Vec::new();
    for path in entries(directory)? {
        let interface =
            path.file_name().and_then(|name| name.to_str()?.strip_prefix(LINK_PREFIX)).map(unescape);
        let Some(interface) = interface else { continue };
        let link = sys::open_pin(&path).map_err(failed(&path, "open the pin"))?;
        let ifindex = sys::link_info(link.as_fd()).map_err(failed(&path, "inspect the link"))?.ifindex;
        links.push(PinnedLink { path, interface, link, ifindex });
    }
    Ok(links)
}

/// Paths in a directory, in order; none if it does not exist.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, PinError> {
    let read = || -> io::Result<Vec<PathBuf>> {
        let mut paths: Vec<_> =
            fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        paths.sort();
        Ok(paths)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.map_err(failed(directory, "list it")),
    }
}

/// Who holds the lock on a file, if the kernel tells: a line of `/proc/locks` is
/// `1: FLOCK  ADVISORY  WRITE 1234 00:1d:5678 0 EOF`.
pub(super) fn holder(file: &fs::Metadata) -> Option<u32> {
    let id = format!("{:02x}:{:02x}:{}", major(file.dev()), minor(file.dev()), file.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        match *fields.as_slice() {
            [_, "FLOCK", _, _, pid, locked, ..] if locked == id => pid.parse().ok(),
            _ => None,
        }
    })
}

/// A BPF file system reserves dots in names, and VLAN interfaces have them.
fn escape(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

fn unescape(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

pub(super) fn abi_name() -> String {
    format!("{ABI_PREFIX}{ABI_VERSION}")
}

pub(super) fn failed(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> PinError {
    let path = path.to_owned();
    move |source| PinError::Io { path, operation, source }
}

pub(super) const ABI_PREFIX: &str = "abi-";
const LINK_PREFIX: &str = "link-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_survive_as_file_names() {
        for name in ["eth0", "eth0.100", "a%b", "%2e", "x.%25"] {
            assert!(!escape(name).contains('.'));
            assert_eq!(unescape(&escape(name)), name);
        }
    }

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let metadata = file.as_file().metadata().expect("its metadata");
        assert_eq!(holder(&metadata), None);
        let lock = Flock::lock(file.reopen().expect("opened again"), FlockArg::LockExclusiveNonblock);
        let _lock = lock.expect("nobody else has it");
        assert_eq!(holder(&metadata), Some(std::process::id()));
    }
}
