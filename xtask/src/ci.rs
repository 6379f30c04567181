//! `cargo xtask ci`: what has to pass before a change lands.

use std::{
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context as _, Result};

use crate::{
    cargo, demo,
    libtest::Report,
    process::{self, say},
    setup, test,
};

/// Runs everything, also after something has failed, so that one run tells all.
pub(crate) fn run() -> Result<ExitCode> {
    setup::ready()?;
    let mut report = Report::default();
    report.add(check("formatting", formatting));
    report.add(check("lints", lints));
    report.add(test::suites(&test::Options::default()).unwrap_or_else(|error| test::could_not_start(&error)));
    report.add(check("demonstration", || demo::run(&demo::Options::default())));
    Ok(test::conclude(&report, test::in_ci()))
}

fn formatting() -> Result<()> {
    process::run(cargo::command("fmt").args(["--all", "--check"]))
        .context("run `cargo fmt --all` (without rustfmt: `rustup component add rustfmt`)")
}

fn lints() -> Result<()> {
    let mut clippy: Command = cargo::command("clippy");
    // These compile for the BPF target only.
    clippy.args(["--workspace", "--exclude", "lb-ebpf", "--exclude", "lb-bench-ebpf", "--all-targets"]);
    clippy.args(["--", "--deny", "warnings"]);
    process::run(&mut clippy).context("see above (without clippy: `rustup component add clippy`)")?;
    // What is optional can be left out.
    let mut without = cargo::command("clippy");
    without.args(["--package", "lb-userspace", "--no-default-features", "--", "--deny", "warnings"]);
    process::run(&mut without).context("lb-userspace without its optional features")
}

/// One check counts like one test.
fn check(name: &str, action: impl FnOnce() -> Result<()>) -> Report {
    say(format!("checking: {name}"));
    let started = Instant::now();
    let result = action();
    say(format!("{name}: {} s", started.elapsed().as_secs()));
    match result {
        Ok(()) => Report { passed: 1, ..Report::default() },
        Err(error) => {
            eprintln!("\ncargo xtask: {error:#}");
            Report { failed: vec![name.into()], ..Report::default() }
        }
    }
}
