//! The benchmark: what a packet, a change, a look, a request and a connection cost. docs/performance.md says how to read it.

mod changes;
pub(crate) mod end_to_end;
mod live;
mod packets;
mod report;
mod scenario;
mod scrape;
mod stage;
mod stats;
mod sys;
mod targets;
#[path = "../../ebpf/src/turn.rs"]
mod turn;

use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
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
    /// The `ballast` that is measured end to end
    #[arg(long)]
    ballast: PathBuf,
    /// Rounds of each group; by default 21, and 10 live and end to end
    #[arg(long)]
    rounds: Option<u32>,
    /// Measure this build of the program too (an object of lb-ebpf); may be given more than once
    #[arg(long, value_name = "OBJECT")]
    against: Vec<PathBuf>,
    /// Only the group of this name, or all groups whose name contains this
    filter: Option<String>,
}

/// Of packets and changes, unless told otherwise.
const ROUNDS: u32 = 21;

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
    let mut report = Report::default();
    // What a thread gives up it does not get back, and the lab needs all of it.
    let alone = thread::scope(|scope| scope.spawn(|| alone(options, &wanted, &mut report)).join());
    alone.map_err(|_| anyhow!("the measuring thread panicked"))??;
    if wanted(live::GROUP) {
        eprintln!("measuring {}", live::GROUP);
        report.add_live(live::run(options.rounds, &options.objects, &options.ballast)?);
    }
    if wanted(scrape::GROUP) {
        eprintln!("measuring {}", scrape::GROUP);
        report.add_changes(scrape::run(options.rounds, &options.ballast)?);
    }
    report.add_end_to_end(end_to_end::run(wanted, options.rounds, &options.ballast)?);
    ensure!(!report.is_empty(), "no group has that in its name");
    match options.output {
        Output::Table => println!("{}", report.text()),
        Output::Json => println!("{:#}", report.json()),
    }
    Ok(())
}

/// Packets and changes, with the capabilities of production and on one CPU.
fn alone(options: &Options, wanted: &(impl Fn(&str) -> bool + Sync), report: &mut Report) -> Result<()> {
    sys::drop_capabilities().context("keep only the capabilities of production (this takes root)")?;
    packets::stay_on_one_cpu()?;
    let rounds = options.rounds.unwrap_or(ROUNDS);
    let others = options.against.iter().map(|object| Other::new(object)).collect::<Result<Vec<_>>>()?;
    let scenarios = scenario::all(&others);
    for group in Group::all().filter(|group| wanted(&group.name())) {
        eprintln!("measuring {}", group.name());
        // A pass over a million flows takes a while.
        let rounds = if group.flows > 1 << 16 { rounds.div_ceil(2) } else { rounds };
        let (measured, sizes) = packets::measure(group, &scenarios, rounds, &options.objects)?;
        report.add(measured, sizes);
    }
    for (name, measure) in
        [(changes::TABLES, changes::tables as fn(u32) -> _), (changes::PUBLISH, changes::publish)]
    {
        if wanted(name) {
            eprintln!("measuring {name}");
            report.add_changes(measure(rounds)?);
        }
    }
    Ok(())
}
