//! `cargo xtask`: everything a developer or a CI machine does with Ballast, one file a command.

mod apt;
mod bench;
mod build;
mod cargo;
mod ci;
mod demo;
mod ebpf;
#[cfg(test)]
mod examples;
mod kernel;
mod libtest;
mod linker;
mod package;
mod process;
mod setup;
mod storm;
mod test;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, tests and demonstrates Ballast.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need and this machine lacks
    Setup,
    /// Build the program, `ballast`, with the eBPF object inside
    Build(build::Options),
    /// Build everything, balance real traffic in a lab of network namespaces, kill a backend and bring it back
    Demo(demo::Options),
    /// Run every test suite; the last line is the count
    Test(test::Options),
    /// Measure the data plane packet by packet, how long tables take, and all of it end to end beside other balancers
    Bench(bench::Options),
    /// Kill and cut off load balancers, backends, daemons, links and members of etcd for half an hour under steady load, and
    /// account for every request that fails
    Storm(storm::Options),
    /// Make a .deb and a tarball of the program, optimised, in target/package
    Package,
    /// What has to pass before a change lands: formatting, lints, the demo, the tests
    Ci,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => setup::run().map(|()| ExitCode::SUCCESS),
        Command::Build(options) => build::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Demo(options) => demo::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Storm(options) => storm::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Package => package::run().map(|()| ExitCode::SUCCESS),
        Command::Ci => ci::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("\ncargo xtask: {error:#}");
        ExitCode::FAILURE
    })
}
