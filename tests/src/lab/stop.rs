//! A switch that wakes threads which wait for a socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Set once, never cleared; clones are the same switch.
#[derive(Debug, Clone)]
pub(super) struct Stop(Arc<EventFd>);

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?)))
    }

    pub(super) fn set(&self) {
        // The counter overflows at 2^64 writes, and is never read.
        let _ = self.0.write(1);
    }

    pub(super) fn is_set(&self) -> bool {
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1))
    }

    /// Waits until `fd` is readable (or in error) or the switch is set; says whether to go on reading.
    pub(super) fn wait_readable(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        self.wait(fd).map(|found| found.is_some())
    }

    /// As [`Stop::wait_readable`], and also says no when nothing can come any more.
    pub(super) fn wait_for_more(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        self.wait(fd).map(|found| found.is_some_and(|found| !found.contains(PollFlags::POLLHUP)))
    }

    /// What there is to `fd`, or nothing if the switch is set.
    fn wait(&self, fd: BorrowedFd<'_>) -> io::Result<Option<PollFlags>> {
        loop {
            let mut polled =
                [PollFd::new(fd, PollFlags::POLLIN), PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) => {
                    let [fd, stop] = &polled;
                    let found = fd.revents().unwrap_or(PollFlags::empty());
                    return Ok((!stop.any().unwrap_or(false)).then_some(found));
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
