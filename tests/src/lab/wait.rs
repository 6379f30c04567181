//! Waiting for a condition, with a deadline and the name of what did not happen.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Calls `probe` until it returns something, for at most `timeout`.
///
/// Fails with the name of what was awaited. The pause between two probes grows from 1 to 20 ms, so that what is quick
/// stays quick and what is slow does not eat a CPU the tested code needs. A pause that lasts longer than it should is
/// not the tested code's: the machine stood still, and the deadline is that much later.
pub fn wait_for<T>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let mut deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {timeout:?}");
        }
        let began = Instant::now();
        thread::sleep(pause);
        deadline += began.elapsed().saturating_sub(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Gives what must not happen so much time to happen.
pub fn let_pass(time: Duration) {
    thread::sleep(time);
}

/// [`wait_for`] a condition that has nothing to hand back.
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, timeout, || condition().then_some(()))
}
