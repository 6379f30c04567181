//! `cargo xtask test`: every test suite, and one count at the end.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    build,
    cargo::{self, Executable},
    demo, kernel,
    libtest::{Reader, Report},
    process::{self, Show, say},
    setup,
};

/// The packages with tests, the quickest first.
const SUITES: [&str; 4] = ["lb-common", build::PACKAGE, "xtask", demo::PACKAGE];
/// Tests in the lab that look at how long things take, or take both processors: nothing runs beside them.
const ALONE: [&str; 5] = ["lab_failures", "lab_faults", "lab_lifecycle", "lab_security", "lab_thousand"];
/// The suites that last for more than half a minute, the longest first.
const LONGEST: [&str; 13] = [
    "lab_flows",
    "lab_modes",
    "lab_nat",
    "lab_announce",
    "lab_checks",
    "lab_real_path",
    "simulation",
    "lab_peers",
    "lab_host",
    "lab_discovery",
    "lab_pair",
    "lab_package",
    "packet_nat",
];
/// Where the lab's tests find the program.
pub(crate) const PROGRAM_VAR: &str = "BALLAST_BIN";
/// The file that a test which can't run here adds a line to, with its name and the reason.
const SKIP_FILE_VAR: &str = "BALLAST_SKIP_FILE";
/// Set in the long tier.
const LONG_VAR: &str = "BALLAST_LONG";

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Run the long tier as well (hours)
    #[arg(long)]
    long: bool,
    /// Boot Debian's newest kernel of this series (6.1, 6.12) in an emulated machine and run the packet tests there,
    /// with 100,000 random frames instead of 500,000 (a few minutes; downloads 100 MB the first time)
    #[arg(long, value_name = "SERIES", conflicts_with = "long")]
    kernel: Option<kernel::Series>,
    /// Run only the tests whose name contains this
    filter: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let report = match &options.kernel {
        Some(series) => kernel::test(series, options.filter.as_deref()),
        None => suites(options),
    };
    let mut report = report.unwrap_or_else(|error| could_not_start(&error));
    if let Some(filter) = &options.filter
        && report == Report::default()
    {
        // A misspelt name must not look like success.
        report.failed.push(format!("no test that can run here has `{filter}` in its name"));
    }
    // What a kernel lacks, no machine can have.
    let skips_count = in_ci() && options.kernel.is_none();
    Ok(conclude(&report, skips_count))
}

/// Whatever a machine of its own lacks, CI's has to have: otherwise a test could be off for ever.
pub(crate) fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}

/// Builds and runs all suites, also after one has failed.
pub(crate) fn suites(options: &Options) -> Result<Report> {
    setup::ready()?;
    let executables = build_tests()?;
    let program = cargo::binary(&executables, build::BINARY)?;
    let skip_file = SkipFile::create(program)?;
    let runner = Runner { options, program, skip_file: &skip_file.0 };

    let mut report = Report::default();
    for suite in SUITES {
        let executables =
            executables.iter().filter(|executable| executable.is_test && executable.package == suite);
        let (alone, beside): (Vec<_>, Vec<_>) =
            executables.partition(|executable| runner.is_alone(executable));
        for executable in alone {
            report.add(runner.run(executable)?);
        }
        report.add(runner.run_two_at_a_time(beside)?);
    }
    report.skip(skip_file.reasons()?);
    Ok(report)
}

/// The report of a run in which no test could be started.
pub(crate) fn could_not_start(error: &anyhow::Error) -> Report {
    eprintln!("\ncargo xtask: {error:#}");
    Report { failed: vec!["the tests could not be started; the reason is above".into()], ..Report::default() }
}

/// Prints the outcome; the count is alone on the last line. Skipped tests may count as failures.
pub(crate) fn conclude(report: &Report, skips_count: bool) -> ExitCode {
    println!();
    for reason in &report.skipped {
        println!("skipped: {reason}{}", if skips_count { " (a failure in CI)" } else { "" });
    }
    for name in &report.failed {
        println!("failed: {name}");
    }
    println!("{}", report.line());
    let skips_fail = skips_count && !report.skipped.is_empty();
    if report.failed.is_empty() && !skips_fail { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The program and all tests: one command has always something to do for every processor.
fn build_tests() -> Result<Vec<Executable>> {
    let mut command = cargo::command("build");
    command.args(["--lib", "--bins", "--tests"]).args(SUITES.iter().flat_map(|suite| ["--package", suite]));
    let mut executables = cargo::build(&mut command)?;
    // Cargo names them as they get ready, which differs from run to run.
    executables.sort_by_cached_key(|executable| (place(&executable.target), executable.target.clone()));
    Ok(executables)
}

/// Those that last the longest begin first: beside nothing they would be waited for at the end.
fn place(target: &str) -> usize {
    LONGEST.iter().position(|longest| *longest == target).unwrap_or(LONGEST.len())
}

struct Runner<'a> {
    options: &'a Options,
    program: &'a Path,
    skip_file: &'a Path,
}

impl Runner<'_> {
    /// Only the lab's tests wait more than they work; in the long tier all of them look at how long things take.
    fn is_alone(&self, executable: &Executable) -> bool {
        executable.package != demo::PACKAGE
            || self.options.long
            || ALONE.contains(&executable.target.as_str())
    }

    /// Each executable's output in one piece, as they end.
    fn run_two_at_a_time(&self, executables: Vec<&Executable>) -> Result<Report> {
        let queue = Mutex::new(executables.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            let mut report = Report::default();
            while let Some(executable) = next() {
                report.add(self.watch(self.command(executable)?, &name(executable), Show::AtItsEnd)?);
            }
            Ok(report)
        };
        let reports: [Result<Report>; 2] = thread::scope(|scope| {
            [scope.spawn(work), scope.spawn(work)]
                .map(|worker| worker.join().unwrap_or_else(|_| bail!("a thread that runs tests panicked")))
        });
        let mut sum = Report::default();
        for report in reports {
            sum.add(report?);
        }
        Ok(sum)
    }

    fn run(&self, executable: &Executable) -> Result<Report> {
        self.watch(self.command(executable)?, &name(executable), Show::AtOnce)
    }

    fn command(&self, executable: &Executable) -> Result<Command> {
        let in_lab = executable.package == demo::PACKAGE;
        // The lab makes network namespaces and loads programs; the rest must do without root.
        let mut command =
            if in_lab { process::as_root(&executable.path)? } else { Command::new(&executable.path) };
        command.current_dir(&executable.package_dir).env("CARGO_MANIFEST_DIR", &executable.package_dir);
        self.arguments(&mut command);
        if in_lab {
            // Each takes most of what two cores give when it does something; see `run_two_at_a_time`.
            command.arg("--test-threads=1");
        }
        Ok(command)
    }

    fn arguments(&self, command: &mut Command) {
        command.args(&self.options.filter);
        command.env(PROGRAM_VAR, self.program).env(SKIP_FILE_VAR, self.skip_file).env_remove(LONG_VAR);
        if self.options.long {
            command.arg("--include-ignored").env(LONG_VAR, "1");
        }
    }

    /// Runs the tests, showing what they say.
    fn watch(&self, mut command: Command, name: &str, show: Show) -> Result<Report> {
        say(format!("testing {name}"));
        let started = Instant::now();
        let mut reader = Reader::default();
        let status = process::follow(command.stdin(Stdio::null()), show, |line| reader.line(line))?;
        say(format!("{name}: {} s", started.elapsed().as_secs()));
        Ok(reader.finish(status.success(), name))
    }
}

fn name(executable: &Executable) -> String {
    format!("{}::{}", executable.package, executable.target)
}

/// Collects the reasons of tests that can't run here; gone when dropped.
struct SkipFile(PathBuf);

impl SkipFile {
    fn create(program: &Path) -> Result<Self> {
        let file = program.with_file_name(format!("skipped-tests.{}", std::process::id()));
        fs::write(&file, "").with_context(|| format!("could not write {}", file.display()))?;
        Ok(Self(file))
    }

    fn reasons(&self) -> Result<Vec<String>> {
        let text =
            fs::read_to_string(&self.0).with_context(|| format!("could not read {}", self.0.display()))?;
        Ok(text.lines().map(|line| line.strip_prefix("SKIPPED ").unwrap_or(line).to_owned()).collect())
    }
}

impl Drop for SkipFile {
    fn drop(&mut self) {
        if let Err(error) = process::remove_file(&self.0) {
            say(format!("{error:#}"));
        }
    }
}
