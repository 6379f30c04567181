//! `cargo xtask build`: the program, `ballast`, with the eBPF object inside.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{cargo, setup};

/// The program's package and binary.
pub(crate) const PACKAGE: &str = "lb-userspace";
pub(crate) const BINARY: &str = "ballast";

#[derive(Args)]
pub(crate) struct Options {
    /// Optimise: for real use and for measuring
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ready()?;
    let mut command = cargo::command("build");
    command.args(["--package", PACKAGE]);
    if options.release {
        command.arg("--release");
    }
    let built = cargo::build(&mut command)?;
    println!("{}", cargo::binary(&built, BINARY)?.display());
    Ok(())
}

/// Builds the program together with another package's binaries; the two share what they depend on.
pub(crate) fn with_binary(package: &str, binary: &str) -> Result<(PathBuf, PathBuf)> {
    let mut command = cargo::command("build");
    command.args(["--package", PACKAGE, "--package", package, "--bin", BINARY, "--bin", binary]);
    let built = cargo::build(&mut command)?;
    Ok((cargo::binary(&built, BINARY)?.into(), cargo::binary(&built, binary)?.into()))
}
