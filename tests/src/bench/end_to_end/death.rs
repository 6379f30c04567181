//! What clients see of a backend's death.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::bed::{Bed, Death};
use super::contender::CONTENDERS;
use super::load::{self, Kind, Load, Pace, Tally};
use super::measure::{LEAD, sleep_until};

/// Connections a second: few enough for anybody, and for as many as a dead machine keeps waiting.
const RATE: f64 = 500.0;
const WARM_UP: Duration = Duration::from_millis(500);
/// From the begin of what is counted.
const DIES_AFTER: Duration = Duration::from_secs(2);
/// Beyond what any of them takes to find out.
const WINDOW: Duration = Duration::from_secs(12);

pub(super) const DEATHS: [Death; 2] = [Death::Killed, Death::Unplugged];

/// One contender and one kind of death.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) contender: &'static str,
    pub(super) death: Death,
    pub(super) seen: Vec<Seen>,
}

/// What one death did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// From the death to when the last request that failed was due, seconds.
    pub(super) lasted: f64,
    /// Milliseconds, of those that were answered.
    pub(super) p99: f64,
}

pub(super) fn run(bed: &mut Bed, times: u32) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (number, contender) in CONTENDERS.iter().enumerate().filter(|(_, contender)| contender.balances()) {
        for death in DEATHS {
            lines.push((number, Line { contender: contender.name, death, seen: Vec::new() }));
        }
    }
    // Not the same backend twice in a row: one that falls again soon is held down.
    let mut victims = [0, 1, 2].into_iter().cycle();
    for time in 0..times {
        for (number, line) in &mut lines {
            eprintln!(
                "measuring end-to-end/death: {}, {:?}, {} of {times}",
                line.contender,
                line.death,
                time + 1
            );
            let victim = victims.next().context("there is always another")?;
            let seen = watch(bed, *number, line.death, victim).with_context(|| line.contender)?;
            line.seen.push(seen);
        }
    }
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

fn watch(bed: &mut Bed, number: usize, death: Death, victim: usize) -> Result<Seen> {
    let running = bed.start(number)?;
    let load =
        Load { kind: Kind::Connections, pace: Pace::PerSecond(RATE), warm_up: WARM_UP, window: WINDOW };
    let at = Instant::now() + LEAD;
    let begin = at + WARM_UP;
    let (client, service) = (bed.client().clone(), bed.service());
    let (tally, died) = thread::scope(|scope| {
        let clients = scope.spawn(|| load::run(&client, service, load, at));
        sleep_until(begin + DIES_AFTER);
        let died = begin.elapsed();
        bed.kill(victim, death)?;
        let tally = clients.join().map_err(|_| anyhow::anyhow!("the clients panicked"))??;
        anyhow::Ok((tally, died))
    })?;
    running.stop()?;
    bed.revive(victim)?;
    seen(&tally, died)
}

fn seen(tally: &Tally, died: Duration) -> Result<Seen> {
    let failed = tally.failures.len() as u64;
    // Under way when the backend died: due at most a time-out before.
    let early = tally.failures.iter().find(|(due, _)| *due + load::TIMEOUT < died);
    ensure!(early.is_none(), "a request failed before any backend died: {early:?}");
    let last = tally.failures.iter().map(|(due, _)| *due).max();
    Ok(Seen {
        requests: tally.answered + failed,
        failed,
        lasted: last.map_or(0.0, |last| last.saturating_sub(died).as_secs_f64()),
        p99: tally.microseconds(0.99) / 1_000.0,
    })
}

#[cfg(test)]
mod tests {
    use super::super::connection::Failure;
    use super::*;

    const DIED: Duration = Duration::from_secs(2);

    fn tally(failed_at: &[u64]) -> Tally {
        let mut tally = Tally::new().expect("the bounds are fine");
        tally.answered = 10;
        tally.failures = failed_at.iter().map(|at| (Duration::from_millis(*at), Failure::Refused)).collect();
        tally
    }

    #[test]
    fn failures_last_until_the_last_request_that_was_due() {
        let seen = seen(&tally(&[1_900, 5_500, 4_000]), DIED).expect("all failed for the death");
        assert_eq!((seen.requests, seen.failed, seen.lasted), (13, 3, 3.5));
    }

    #[test]
    fn nobody_failing_lasts_no_time() {
        let seen = seen(&tally(&[]), DIED).expect("nothing failed");
        assert_eq!((seen.requests, seen.failed, seen.lasted), (10, 0, 0.0));
    }

    #[test]
    fn what_fails_before_the_death_is_another_fault() {
        assert!(seen(&tally(&[500, 3_000]), DIED).is_err());
    }
}
