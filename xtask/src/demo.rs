//! `cargo xtask demo`: builds the demonstration and runs it. The program itself is `tests/src/bin/demo/`: only there
//! may it use the lab, because this crate has to compile before the eBPF toolchain is installed.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    build,
    process::{self, say},
    setup,
    test::PROGRAM_VAR,
};

/// The package with the lab, its tests and the demonstration.
pub(crate) const PACKAGE: &str = "lb-tests";
pub(crate) const BINARY: &str = "demo";

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Leave the lab up at the end and print how to talk to it
    #[arg(long)]
    keep: bool,
    /// Remove a lab that --keep left
    #[arg(long, value_name = "LAB", conflicts_with = "keep")]
    remove: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ready()?;
    let (program, demo) = build::with_binary(PACKAGE, BINARY)?;
    let mut command = process::as_root(&demo)?;
    command.env(PROGRAM_VAR, &program).args(options.keep.then_some("--keep"));
    if let Some(lab) = &options.remove {
        command.args(["--remove", lab]);
    }
    say(format!("starting {}", process::shown(&command)));
    process::run(&mut command).context("the demonstration failed; what went wrong is said above")
}
