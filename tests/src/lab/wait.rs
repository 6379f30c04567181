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

/// [`wait_for`] with a probe that may fail meanwhile. At the deadline its last failure is told: what is not there after
/// a while may never come, and that says why.
pub fn try_wait_for<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let mut failure = None;
    let found = wait_for(what, timeout, || {
        let probed = probe();
        let (found, failed) = probed.map_or_else(|error| (None, Some(error)), |found| (found, None));
        failure = failed;
        found
    });
    found.map_err(|missing| match failure {
        Some(failure) => failure.context(missing.to_string()),
        None => missing,
    })
}

/// [`wait_for`] a condition that has nothing to hand back.
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, timeout, || condition().then_some(()))
}

/// [`try_wait_for`] a condition that has nothing to hand back.
pub fn try_wait_until(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    try_wait_for(what, timeout, || Ok(condition()?.then_some(())))
}

/// Whether this is so of all, as a condition of [`try_wait_until`].
pub fn try_all<T>(
    all: impl IntoIterator<Item = T>,
    mut holds: impl FnMut(T) -> Result<bool>,
) -> Result<bool> {
    for one in all {
        if !holds(one)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn a_failure_that_lasts_is_told_and_one_that_passed_is_not() {
        let told = |mut tries: Vec<Result<bool>>| {
            let last = |tries: &mut Vec<Result<bool>>| tries.pop().unwrap_or_else(|| bail!("nobody answers"));
            try_wait_until("the answer", SHORT, || last(&mut tries)).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(told(vec![Ok(true), Err(anyhow::anyhow!("not yet"))]), Ok(()));
        assert_eq!(told(vec![Ok(false)]), Err("the answer: not within 5ms: nobody answers".to_owned()));
        let mut is_first = true;
        let only_first = || match std::mem::take(&mut is_first) {
            true => bail!("not yet"),
            false => Ok(None::<()>),
        };
        let error = try_wait_for("the answer", SHORT, only_first).map_err(|error| format!("{error:#}"));
        assert_eq!(error, Err("the answer: not within 5ms".to_owned()));
    }
}
