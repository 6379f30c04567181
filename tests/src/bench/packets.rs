//! Nanoseconds a packet.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::scenario::{Family, News, Scenario, Under};
use super::stage::{CAPTURED, CHECKED, Entry, Program, TOLD, TOO_MUCH_TOLD};
use super::stats::Summary;
use super::sys;

/// Scenarios that are measured in turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) family: Family,
    pub(super) flows: u64,
}

impl Group {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [Family::V4, Family::V6].into_iter().flat_map(|family| FLOWS.map(|flows| Self { family, flows }))
    }

    pub(super) fn name(&self) -> String {
        format!("packets/{}/{}", self.family.name(), self.flows)
    }
}

pub(super) const FLOWS: [u64; 4] = [1, 1 << 10, 1 << 16, 1 << 20];

/// Values of one scenario, one a round.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) scenario: Scenario,
    pub(super) nanoseconds: Vec<f64>,
    /// What the kernel measured, in whole nanoseconds.
    pub(super) by_kernel: Vec<f64>,
}

#[derive(Debug)]
pub(super) struct Measured {
    pub(super) group: Group,
    pub(super) lines: Vec<Line>,
}

impl Measured {
    pub(super) fn line(&self, name: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.scenario.name == name)
    }

    /// How much longer a packet takes than the same one under the program as it ships, without peers and captures.
    pub(super) fn ratio(&self, line: &Line) -> Option<Summary> {
        let plain = self.lines.iter().find(|other| line.scenario.plain_is(&other.scenario))?;
        Summary::of_ratios(&line.nanoseconds, &plain.nanoseconds)
    }
}

/// A program's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) program: String,
    /// Instructions.
    pub(super) instructions: u32,
    /// Bytes of machine code.
    pub(super) machine_code: u32,
    /// Instructions that the verifier looked at, on all ways together.
    pub(super) verified: u32,
}

/// A scenario ready to be run.
struct Prepared {
    scenario: Scenario,
    frame: Vec<u8>,
    entry: usize,
    /// Flow that comes next where every packet is of another one.
    next: u64,
    line: Line,
}

/// Measures a group: in every round each scenario once, in another order.
pub(super) fn measure(
    group: Group,
    scenarios: &[Scenario],
    rounds: u32,
    objects: &Path,
) -> Result<(Measured, Vec<Size>)> {
    // Programs that only read may share maps; those that fill a flow table have one each.
    let mut programs: Vec<(Under, bool, Program)> = Vec::new();
    let mut entries = Vec::new();
    let mut prepared = Vec::new();
    for &scenario in scenarios.iter().filter(|scenario| scenario.takes(group.flows)) {
        let found = programs.iter().position(|(under, shared, _)| *under == scenario.under && *shared);
        let entry = match found {
            Some(entry) if !scenario.is_alone() => entry,
            _ => {
                let program = Program::load(scenario.under, group.family, objects, scenario.with_nat)?;
                entries.push(Entry::before(&program, group.family, objects)?);
                programs.push((scenario.under, !scenario.is_alone(), program));
                entries.len() - 1
            }
        };
        let frame = scenario.frame(group.family);
        let program = &mut programs[entry].2;
        program.ask(scenario.capture, group.family)?;
        let checked = entries[entry].check(&scenario, group.family, &frame);
        match checked.and_then(|()| program.check(&scenario, CHECKED)) {
            // A build with something taken out, to see what that costs.
            Err(error) if scenario.is_other() => eprintln!("{error:#}"),
            result => result?,
        }
        let line = Line { scenario, nanoseconds: Vec::new(), by_kernel: Vec::new() };
        prepared.push(Prepared { scenario, frame, entry, next: 1 << 16, line });
    }
    let mut sizes: Vec<Size> = programs.iter().map(|(.., program)| size(program)).collect();
    sizes.dedup();

    let calls = overhead(&entries[0], &prepared[0], group)?;
    let mut order: Vec<_> = (0..prepared.len()).collect();
    let mut random = fastrand::Rng::with_seed(group.flows);
    // The first round fills caches and flow tables, and is forgotten.
    for round in 0..=rounds {
        random.shuffle(&mut order);
        for &number in &order {
            let prepared = &mut prepared[number];
            let program = &mut programs[prepared.entry].2;
            let (nanoseconds, by_kernel) = turn(&entries[prepared.entry], program, prepared, group, calls)?;
            if round > 0 {
                prepared.line.nanoseconds.push(nanoseconds);
                prepared.line.by_kernel.push(by_kernel);
            }
        }
    }
    let lines = prepared.into_iter().map(|prepared| prepared.line).collect();
    Ok((Measured { group, lines }, sizes))
}

/// One value: a pass over all flows that brings the caches to where they are in the middle of traffic, then a timed one.
fn turn(
    entry: &Entry,
    program: &mut Program,
    prepared: &mut Prepared,
    group: Group,
    calls: f64,
) -> Result<(f64, f64)> {
    program.ask(prepared.scenario.capture, group.family)?;
    if prepared.scenario.fills() {
        program.forget_flows();
    }
    let replies = prepared.scenario.replies;
    let flows = if prepared.scenario.all_new { 1 << 32 } else { group.flows };
    let (warm, timed) = if prepared.scenario.all_new {
        (TOO_MUCH_TOLD, 1 << 17)
    } else {
        (group.flows.max(1 << 12) as u32, (2 * group.flows).max(1 << 17) as u32)
    };
    let outer_len = prepared.scenario.outer_len(group.family);
    entry.prepare(&prepared.frame, group.family, outer_len, flows, prepared.next)?;
    if prepared.scenario.all_new {
        prepared.next += u64::from(warm) + u64::from(timed);
    }
    entry.run(&prepared.frame, warm, replies)?;
    // Between parts of it room is made for what packets leave.
    let part = match prepared.scenario {
        Scenario { capture: Some(_), .. } => CAPTURED,
        // And of what that is compared with, because each part finds caches that others have used.
        scenario if scenario.fills() => TOLD,
        _ => timed,
    };
    let parts = f64::from(timed / part);
    let (mut spent, mut by_kernel) = (Duration::ZERO, 0.0);
    for _ in 0..timed / part {
        program.make_room(&prepared.scenario)?;
        let before = sys::cpu_time()?;
        let run = entry.run(&prepared.frame, part, replies)?;
        spent += sys::cpu_time()?.saturating_sub(before);
        by_kernel += f64::from(run.nanoseconds) / parts;
    }
    if prepared.scenario.news == News::Full {
        program.check_full(&prepared.scenario)?;
    }
    let nanoseconds = (spent.as_nanos() as f64 - calls * parts) / f64::from(timed);
    ensure!(nanoseconds > 0.0, "the clock stands still");
    Ok((nanoseconds, by_kernel))
}

/// Nanoseconds that a run takes besides its packets.
fn overhead(entry: &Entry, prepared: &Prepared, group: Group) -> Result<f64> {
    entry.prepare(&prepared.frame, group.family, prepared.scenario.outer_len(group.family), 1, 0)?;
    let mut values = Vec::new();
    for _ in 0..32 {
        let before = sys::cpu_time()?;
        // Once is another way through the kernel than several times.
        entry.run(&prepared.frame, 2, false)?;
        values.push(sys::cpu_time()?.saturating_sub(before).as_nanos() as f64);
    }
    Ok(Summary::of(&values).context("no value")?.median)
}

fn size(program: &Program) -> Size {
    Size {
        program: program.name.clone(),
        instructions: program.info.instructions,
        machine_code: program.info.machine_code,
        verified: program.info.verified_instructions,
    }
}

/// Keeps this thread on the last CPU it may run on: interrupts like the first.
pub(super) fn stay_on_one_cpu() -> Result<()> {
    let this_thread = Pid::from_raw(0);
    let all = sched_getaffinity(this_thread).context("ask for this thread's CPUs")?;
    let last = (0..CpuSet::count()).rev().find(|&cpu| all.is_set(cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("a thread runs somewhere")?).context("name a CPU")?;
    sched_setaffinity(this_thread, &one).context("stay on one CPU")
}

#[cfg(test)]
mod tests {
    use super::super::scenario::{ESTABLISHED, ESTABLISHED_PEERS, SCENARIOS, TX};
    use super::*;

    #[test]
    fn a_ratio_is_to_the_same_packets_of_the_same_round() {
        let line = |name: &str, nanoseconds: [f64; 2]| {
            let scenario = SCENARIOS.into_iter().find(|scenario| scenario.name == name).expect("its name");
            Line { scenario, nanoseconds: nanoseconds.into(), by_kernel: Vec::new() }
        };
        let lines = vec![
            line(TX, [1.0, 1.0]),
            line(ESTABLISHED, [10.0, 100.0]),
            line(ESTABLISHED_PEERS, [20.0, 200.0]),
        ];
        let measured = Measured { group: Group { family: Family::V4, flows: 1 }, lines };
        let ratios: Vec<_> = measured.lines.iter().map(|line| measured.ratio(line)).collect();
        assert_eq!(ratios, [None, None, Some(Summary { median: 2.0, low: 2.0, high: 2.0 })]);
    }
}
