//! Waking at a moment, to microseconds: the runtime's own timers know milliseconds.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(super) struct Clock(AsyncFd<Timer>);

struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Clock {
    /// In a runtime.
    pub(super) fn new() -> Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = Timer(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).context("make a timer")?);
        // SAFETY: the timer owns its descriptor, which is never another one, and lives as long as what watches it.
        let watched = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        Ok(Self(watched.map_err(io::Error::from).context("watch a timer")?))
    }

    /// What is past is now, but lets others run.
    pub(super) async fn wait_until(&mut self, moment: Instant) -> Result<()> {
        let left = moment.saturating_duration_since(Instant::now());
        if left < Duration::from_micros(1) {
            tokio::task::yield_now().await;
            return Ok(());
        }
        let once = Expiration::OneShot(TimeSpec::from_duration(left));
        self.0.get_ref().0.set(once, TimerSetTimeFlags::empty()).context("set a timer")?;
        let expired = self.0.async_io(Interest::READABLE, |timer| timer.0.wait().map_err(io::Error::from));
        expired.await.context("wait for a timer")
    }
}
