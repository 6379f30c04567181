//! What `cargo xtask storm` runs.

use std::process::ExitCode;

use clap::Parser as _;
use lb_tests::storm::{self, Options};

fn main() -> ExitCode {
    match storm::run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe storm was not passed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
