//! Tells when something happens in a directory. A file is watched through its directory, because whoever writes it well puts
//! another one in its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use tokio::io::{Interest, unix::AsyncFd};

pub(super) struct Watcher {
    kernel: AsyncFd<Instance>,
    watched: BTreeMap<PathBuf, WatchDescriptor>,
    /// Directories for which the kernel has no watch.
    refused: BTreeSet<PathBuf>,
}

/// `Inotify` as what [`AsyncFd`] takes.
struct Instance(Inotify);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watcher {
    pub(super) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // SAFETY: the instance owns its descriptor, and keeps it open and the same for as long as it lives.
        let kernel = unsafe { AsyncFd::register_with_interest(Instance(inotify), Interest::READABLE)? };
        Ok(Self { kernel, watched: BTreeMap::new(), refused: BTreeSet::new() })
    }

    /// Watches these directories, and no others. One that is not there is tried again at the next call.
    pub(super) fn watch(&mut self, directories: &BTreeSet<PathBuf>) {
        let kernel = &self.kernel.get_ref().0;
        self.watched.retain(|directory, watch| {
            let wanted = directories.contains(directory);
            if !wanted {
                // It may be gone with its directory.
                let _ = kernel.rm_watch(*watch);
            }
            wanted
        });
        self.refused.retain(|directory| directories.contains(directory));
        for directory in directories {
            if self.watched.contains_key(directory) {
                continue;
            }
            match kernel.add_watch(directory, EVENTS) {
                Ok(watch) => {
                    self.refused.remove(directory);
                    self.watched.insert(directory.clone(), watch);
                }
                Err(Errno::ENOENT) => {}
                Err(error) => {
                    if self.refused.insert(directory.clone()) {
                        let directory = directory.display();
                        log::warn!("can't watch {directory}, and look there now and then instead: {error}");
                    }
                }
            }
        }
    }

    /// Waits until something happens, and says in which directories.
    pub(super) async fn changed(&mut self) -> io::Result<BTreeSet<PathBuf>> {
        loop {
            let mut ready = self.kernel.readable().await?;
            let events = match ready.get_inner().0.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let mut changed = BTreeSet::new();
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    changed.extend(self.watched.keys().cloned());
                }
                let directory = self.watched.iter().find(|(_, watch)| **watch == event.wd);
                let Some(directory) = directory.map(|(directory, _)| directory.clone()) else { continue };
                if event.mask.intersects(LEFT) {
                    // Another one may come in its place.
                    let _ = self.kernel.get_ref().0.rm_watch(event.wd);
                    self.watched.remove(&directory);
                }
                changed.insert(directory);
            }
            return Ok(changed);
        }
    }
}

/// The directory is no more what the path leads to.
const LEFT: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_IGNORED)
    .union(AddWatchFlags::IN_UNMOUNT);

const EVENTS: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);
