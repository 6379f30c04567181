//! What a load costs, contender by contender, round by round.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::bed::Bed;
use super::contender::CONTENDERS;
use super::load::{self, Kind, Load, Pace, Tally};
use super::machine::{Reading, Spent};

/// Of what the least able contender can do.
const PART: f64 = 0.3;
const WARM_UP: Duration = Duration::from_millis(500);
const WINDOW: Duration = Duration::from_millis(2_500);
/// Looks at the most that can be done; what disturbs one only makes it less.
const LOOKS: u32 = 3;
const LOOK: Duration = Duration::from_millis(700);
/// From giving the orders to the first request.
pub(super) const LEAD: Duration = Duration::from_millis(50);

/// All turns under one kind of load.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) kind: Kind,
    /// The same for all, a second.
    pub(super) rate: f64,
    /// In the order of [`CONTENDERS`].
    pub(super) lines: Vec<Line>,
}

/// One contender's.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The most that was answered, a second.
    pub(super) saturation: f64,
    /// One a round.
    pub(super) turns: Vec<Turn>,
}

/// What one turn showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// CPU seconds of the whole machine per million answers.
    pub(super) busy: f64,
    /// The same by the kernel's samples.
    pub(super) sampled: f64,
    /// Part of the machine's time that the hypervisor took.
    pub(super) stolen: f64,
    /// Part of it that other processes took: not in `busy`, and noise all the same.
    pub(super) others: f64,
    /// Microseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) failed: u64,
}

pub(super) fn run(bed: &Bed, kinds: &[Kind], rounds: u32) -> Result<Vec<Measured>> {
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    eprintln!("measuring end-to-end: what each can do at most");
    let mut measured: Vec<_> =
        kinds.iter().map(|&kind| Measured { kind, rate: 0.0, lines: Vec::new() }).collect();
    for number in 0..CONTENDERS.len() {
        in_turn(bed, number, &mut measured, |of_kind| {
            let saturation = saturation(bed, of_kind.kind)?;
            of_kind.lines.push(Line { saturation, turns: Vec::new() });
            Ok(())
        })?;
    }
    for of_kind in &mut measured {
        of_kind.rate = rate(&of_kind.lines);
        ensure!(of_kind.rate > 0.0, "somebody answered nothing");
    }
    for round in 0..rounds as usize {
        eprintln!("measuring end-to-end: round {} of {rounds}", round + 1);
        // Who follows whom does not stay the same either: every second round goes backwards.
        for step in 0..CONTENDERS.len() {
            let step = if round % 2 == 0 { step } else { CONTENDERS.len() - 1 - step };
            let number = (round + step) % CONTENDERS.len();
            in_turn(bed, number, &mut measured, |of_kind| {
                let turn = turn(bed, of_kind)?;
                of_kind.lines[number].turns.push(turn);
                Ok(())
            })?;
        }
    }
    Ok(measured)
}

/// The most that is answered, a second.
fn saturation(bed: &Bed, kind: Kind) -> Result<f64> {
    let load = Load { kind, pace: Pace::AsFastAsCanBe, warm_up: WARM_UP, window: LOOK };
    let mut most = 0;
    for _ in 0..LOOKS {
        most = watched(bed, load)?.0.answered.max(most);
    }
    Ok(most as f64 / LOOK.as_secs_f64())
}

/// Starts a contender, does something under each kind of load, and stops it.
fn in_turn(
    bed: &Bed,
    number: usize,
    measured: &mut [Measured],
    mut work: impl FnMut(&mut Measured) -> Result<()>,
) -> Result<()> {
    let name = CONTENDERS[number].name;
    let running = bed.start(number).with_context(|| format!("start {name}"))?;
    measured.iter_mut().try_for_each(&mut work).with_context(|| format!("measure {name}"))?;
    running.stop().with_context(|| format!("stop {name}"))
}

/// The least able one decides.
fn rate(lines: &[Line]) -> f64 {
    let least = lines.iter().map(|line| line.saturation).min_by(f64::total_cmp);
    least.map_or(0.0, |least| (PART * least).round())
}

fn turn(bed: &Bed, of_kind: &Measured) -> Result<Turn> {
    let load =
        Load { kind: of_kind.kind, pace: Pace::PerSecond(of_kind.rate), warm_up: WARM_UP, window: WINDOW };
    let (tally, spent) = watched(bed, load)?;
    ensure!(tally.answered > 0, "no request was answered: {:?}", tally.failures.first());
    let per_million = 1e6 / tally.answered as f64;
    let cpus = thread::available_parallelism().context("count the CPUs")?.get();
    let machine = cpus as f64 * WINDOW.as_secs_f64();
    Ok(Turn {
        busy: spent.busy * per_million,
        sampled: spent.sampled * per_million,
        stolen: spent.stolen / machine,
        others: spent.others / machine,
        p50: tally.microseconds(0.5),
        p99: tally.microseconds(0.99),
        failed: tally.failures.len() as u64,
    })
}

/// Makes a load, and reads what the machine spent while that was counted.
fn watched(bed: &Bed, load: Load) -> Result<(Tally, Spent)> {
    let at = Instant::now() + LEAD;
    thread::scope(|scope| {
        let clients = scope.spawn(|| load::run(bed.client(), bed.service(), load, at));
        let from = at + load.warm_up;
        sleep_until(from);
        let before = Reading::now()?;
        sleep_until(from + load.window);
        let spent = Reading::now()?.since(&before);
        let tally = clients.join().map_err(|_| anyhow::anyhow!("the clients panicked"))??;
        Ok((tally, spent))
    })
}

pub(super) fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_able_decides_how_much_all_are_asked() {
        let line = |saturation| Line { saturation, turns: Vec::new() };
        assert_eq!(rate(&[line(9_000.0), line(4_000.0), line(5_000.0)]), 1_200.0);
        assert_eq!(rate(&[]), 0.0);
    }
}
