//! What processes take that have nothing to do with the benchmark.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result};

/// The kernel's own threads are children of this one. They are not others: softirqs of the load run in them too.
const KTHREADD: u32 = 2;

/// A line of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// Ticks of its own and of its children that have ended, who are counted nowhere else any more: so the sum over all
    /// processes only ever grows by what was run.
    ticks: u64,
}

/// Ticks (`USER_HZ`) that all processes have run but this one, its descendants and the kernel's.
pub(super) fn ticks() -> Result<u64> {
    let mut processes = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("list processes")? {
        let name = entry.context("list processes")?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that has ended meanwhile is its parent's to account for.
        let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        let process = parse(&stat).with_context(|| format!("understand /proc/{id}/stat: {stat}"))?;
        processes.insert(id, process);
    }
    Ok(sum_of_others(&processes, std::process::id()))
}

fn parse(stat: &str) -> Option<Process> {
    // The name, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Process { parent: u32::try_from(number(1)?).ok()?, ticks })
}

fn sum_of_others(processes: &BTreeMap<u32, Process>, own: u32) -> u64 {
    let mut left_out = BTreeSet::from([own, KTHREADD]);
    // A child may have a lower number than its parent, where numbers have wrapped.
    loop {
        let known = left_out.len();
        let children = processes.iter().filter(|(_, process)| left_out.contains(&process.parent));
        let children: Vec<_> = children.map(|(id, _)| *id).collect();
        left_out.extend(children);
        if left_out.len() == known {
            break;
        }
    }
    let others = processes.iter().filter(|(id, _)| !left_out.contains(id));
    others.map(|(_, process)| process.ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_fields() {
        let stat = "77 (a) R 1 2) S 42 77 77 0 -1 4194560 9 8 7 6 500 60 7 1 20 0 1 0 100 0 0";
        assert_eq!(parse(stat), Some(Process { parent: 42, ticks: 568 }));
        assert_eq!(parse("77 (short) S 42"), None);
    }

    #[test]
    fn descendants_and_the_kernels_threads_are_not_others() {
        let process = |parent, ticks| Process { parent, ticks };
        let processes = BTreeMap::from([
            (1, process(0, 1)),
            (KTHREADD, process(0, 2)),
            (3, process(KTHREADD, 4)),
            (100, process(1, 8)),
            (50, process(101, 16)),
            (101, process(100, 32)),
            (102, process(1, 64)),
        ]);
        assert_eq!(sum_of_others(&processes, 100), 65);
        assert_eq!(sum_of_others(&processes, 102), 1 + 8 + 16 + 32);
    }
}
