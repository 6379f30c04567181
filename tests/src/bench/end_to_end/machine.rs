//! How busy the machine was.
//!
//! Without `CONFIG_IRQ_TIME_ACCOUNTING` the kernel shares out busy time by looking every few milliseconds who is running:
//! what softirqs do in microseconds is charged to whoever is met, or to nobody. Idle time it takes by the clock, and ends
//! it for interrupts and softirqs. So busy is what is not idle, less what processes took that are not the benchmark's.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::others;
use crate::bench::sys;

/// `/proc/stat` counts in these (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// How the check keeps the machine busy.
const BURST: Duration = Duration::from_micros(100);
const PAUSE: Duration = Duration::from_micros(400);
const CHECK: Duration = Duration::from_secs(2);

/// All CPUs together, since they started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    at: Instant,
    times: Times,
}

/// Seconds, summed over CPUs.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Times {
    cpus: u32,
    idle: f64,
    /// What the kernel saw running: user, system and interrupts.
    sampled: f64,
    /// The hypervisor ran somebody else.
    stolen: f64,
    /// Other processes ran.
    others: f64,
}

/// Between two readings, CPU seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spent {
    /// By the idle clock: what counts here.
    pub(super) busy: f64,
    /// By the kernel's samples, others included.
    pub(super) sampled: f64,
    pub(super) stolen: f64,
    /// Not in `busy`.
    pub(super) others: f64,
}

impl Reading {
    pub(super) fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let at = Instant::now();
        let times = parse(&text).with_context(|| format!("understand /proc/stat: {text:.200}"))?;
        let others = others::ticks()? as f64 / TICKS_PER_SECOND;
        Ok(Self { at, times: Times { others, ..times } })
    }

    pub(super) fn since(&self, earlier: &Self) -> Spent {
        let wall = self.at.duration_since(earlier.at).as_secs_f64();
        spent(wall, &earlier.times, &self.times)
    }
}

fn spent(wall: f64, from: &Times, to: &Times) -> Spent {
    let others = to.others - from.others;
    Spent {
        busy: wall * f64::from(to.cpus) - (to.idle - from.idle) - others,
        sampled: to.sampled - from.sampled,
        stolen: to.stolen - from.stolen,
        others,
    }
}

/// All but what others ran.
fn parse(text: &str) -> Option<Times> {
    let cpus = text.lines().filter(|line| line.starts_with("cpu")).count().checked_sub(1)?;
    let all = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<f64> = all.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    // Guest time, which follows, is part of user and nice.
    let [user, nice, system, idle, waiting, interrupts, softirqs, stolen] = *fields.first_chunk()?;
    let seconds = |ticks: f64| ticks / TICKS_PER_SECOND;
    Some(Times {
        cpus: u32::try_from(cpus).ok()?,
        idle: seconds(idle + waiting),
        sampled: seconds(user + nice + system + interrupts + softirqs),
        stolen: seconds(stolen),
        others: 0.0,
    })
}

/// What both ways of counting make of a known amount of work in short bursts: ratios to what the worker's own clock says.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockCheck {
    pub(super) idle_clock: f64,
    pub(super) samples: f64,
}

impl ClockCheck {
    /// Takes a few seconds, in which the machine should have nothing else to do.
    pub(super) fn run() -> Result<Self> {
        let before = Reading::now()?;
        thread::sleep(CHECK);
        let between = Reading::now()?;
        let own = sys::cpu_time().context("read this thread's CPU time")?;
        let start = Instant::now();
        while start.elapsed() < CHECK {
            let burst = Instant::now();
            while burst.elapsed() < BURST {
                std::hint::spin_loop();
            }
            thread::sleep(PAUSE);
        }
        let worked =
            sys::cpu_time().context("read this thread's CPU time")?.saturating_sub(own).as_secs_f64();
        let after = Reading::now()?;
        let (quiet, busy) = (between.since(&before), after.since(&between));
        Ok(Self {
            idle_clock: (busy.busy - quiet.busy) / worked,
            samples: (busy.sampled - busy.others - quiet.sampled + quiet.others) / worked,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 10 200 5000 40 5 45 7 50 0\ncpu0 50 5 100 2500 20 0 0 0 0 0\n\
                        cpu1 50 5 100 2500 20 5 45 7 50 0\nintr 5 0\nctxt 77\n";

    #[test]
    fn waiting_for_a_disk_is_idle_and_guests_are_not_counted_twice() {
        let times = parse(STAT).expect("this is how /proc/stat looks");
        assert_eq!(times, Times { cpus: 2, idle: 50.4, sampled: 3.6, stolen: 0.07, others: 0.0 });
        assert_eq!(parse("cpu  1 2 3\ncpu0 1 2 3\n"), None);
        assert_eq!(parse("intr 1\n"), None);
    }

    #[test]
    fn what_no_sample_met_is_busy_all_the_same_and_what_others_ran_is_not() {
        let from = Times { cpus: 2, idle: 10.0, sampled: 1.0, stolen: 0.5, others: 7.0 };
        let to = Times { cpus: 2, idle: 12.0, sampled: 1.25, stolen: 0.75, others: 7.5 };
        let expected = Spent { busy: 1.5, sampled: 0.25, stolen: 0.25, others: 0.5 };
        assert_eq!(spent(2.0, &from, &to), expected);
    }

    #[test]
    fn this_machine_can_be_read() {
        let first = Reading::now().expect("/proc/stat is there");
        let spent = Reading::now().expect("still").since(&first);
        assert!(spent.stolen >= 0.0 && spent.sampled >= 0.0, "{spent:?}");
    }
}
