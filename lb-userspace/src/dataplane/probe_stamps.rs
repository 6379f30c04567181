use std::{io, os::fd::BorrowedFd, sync::atomic::Ordering};

use super::sys::Mapped;

/// When the egress program met probes: what never came to it says nothing about a backend.
#[derive(Debug)]
pub struct ProbeStamps(Mapped);

impl ProbeStamps {
    pub(super) fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        Mapped::new(map).map(Self)
    }

    /// When it last met one of the backend with this index, in nanoseconds of the kernel's monotonic clock. 0: it has not yet.
    #[must_use]
    pub fn last(&self, index: u32) -> u64 {
        let stamp = self.0.values(index, 1).and_then(|words| words.first());
        stamp.map_or(0, |stamp| stamp.load(Ordering::Acquire))
    }
}
