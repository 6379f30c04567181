//! `cargo xtask storm`: builds the storm, and the program as it is shipped, and runs it. The storm itself is `tests/src/storm/`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    build, cargo,
    demo::PACKAGE,
    process::{self, say},
    setup,
    test::PROGRAM_VAR,
};

const BINARY: &str = "storm";
/// The program that holds one side of connections in the lab.
const PEER: &str = "lab-peer";

#[derive(Args, Default)]
pub(crate) struct Options {
    /// How long it is to last; 30 minutes unless told otherwise
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// Of the plan of faults, which is the same from the same seed; by default a random one, which is printed
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Write the report there, too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show the plan, and strike nothing
    #[arg(long)]
    plan: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ready()?;
    let mut command = cargo::command("build");
    // With the program's package, so that what both depend on is what tests have built.
    command.args(["--package", build::PACKAGE, "--package", PACKAGE, "--bin", BINARY, "--bin", PEER]);
    let built = cargo::build(&mut command)?;
    // How long a daemon takes is of account here.
    let mut command = cargo::command("build");
    command.args(["--release", "--package", build::PACKAGE, "--bin", build::BINARY]);
    let program = cargo::build(&mut command)?;

    let mut command = process::as_root(cargo::binary(&built, BINARY)?)?;
    command.env(PROGRAM_VAR, cargo::binary(&program, build::BINARY)?);
    if let Some(minutes) = options.minutes {
        command.args(["--minutes", &minutes.to_string()]);
    }
    if let Some(seed) = options.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    if let Some(json) = &options.json {
        command.arg("--json").arg(json);
    }
    command.args(options.plan.then_some("--plan"));
    say(format!("starting {}", process::shown(&command)));
    process::run(&mut command).context("the storm was not passed; what went wrong is said above")
}
