//! The `ballast` command: daemon and client.

use std::process::ExitCode;

fn main() -> ExitCode {
    ballast::cli::main()
}
