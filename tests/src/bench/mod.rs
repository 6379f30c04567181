//! The benchmark: what a packet costs, and what a change costs. docs/performance.md says how to read it.

mod changes;
mod packets;
mod report;
mod scenario;
mod stage;
mod stats;
mod sys;
mod targets;
#[path = "../../ebpf/src/turn.rs"]
mod turn;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};

use packets::Group;
use report::Report;
use scenario::Other;

/// What to run, and how to say it.
#[derive(Debug, Parser)]
pub struct Options {
    /// Directory of the eBPF objects
    #[arg(long)]
    objects: PathBuf,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Rounds of each group
    #[arg(long, default_value_t = 21)]
    rounds: u32,
    /// Measure this build of the program too (an object of lb-ebpf); may be given more than once
    #[arg(long, value_name = "OBJECT")]
    against: Vec<PathBuf>,
    /// Only the group of this name, or all groups whose name contains this
    filter: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

/// Measures and prints.
///
/// # Errors
///
/// If something can't be set up, or a program does not do what it is measured for. A target that is missed is a
/// result, not an error.
pub fn run(options: &Options) -> Result<()> {
    let filter = options.filter.as_deref().unwrap_or_default();
    // The name of one group is part of others'.
    let is_exact = Group::all().any(|group| group.name() == filter);
    let wanted = |name: &str| if is_exact { name == filter } else { name.contains(filter) };
    sys::drop_capabilities().context("keep only the capabilities of production (this takes root)")?;
    packets::stay_on_one_cpu()?;
    let others = options.against.iter().map(|object| Other::new(object)).collect::<Result<Vec<_>>>()?;
    let scenarios = scenario::all(&others);
    let mut report = Report::default();
    for group in Group::all().filter(|group| wanted(&group.name())) {
        eprintln!("measuring {}", group.name());
        // A pass over a million flows takes a while.
        let rounds = if group.flows > 1 << 16 { options.rounds.div_ceil(2) } else { options.rounds };
        let (measured, sizes) = packets::measure(group, &scenarios, rounds, &options.objects)?;
        report.add(measured, sizes);
    }
    for (name, measure) in
        [(changes::TABLES, changes::tables as fn(u32) -> _), (changes::PUBLISH, changes::publish)]
    {
        if wanted(name) {
            eprintln!("measuring {name}");
            report.add_changes(measure(options.rounds)?);
        }
    }
    ensure!(!report.is_empty(), "no group has that in its name");
    match options.output {
        Output::Table => println!("{}", report.text()),
        Output::Json => println!("{:#}", report.json()),
    }
    Ok(())
}
