//! The command line: arguments in, tables or JSON out. A file for each noun.

mod backend;
mod exit;
mod file;
mod output;
mod reload;
mod service;
mod status;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{api::client::Client, config, domain::Name};
use exit::Failure;

/// Layer 4 load balancer in XDP: the daemon, and the commands that talk to it.
#[derive(Debug, Parser)]
#[command(name = "ballast", version, arg_required_else_help = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 done; 1 failed or refused, nothing changed; 2 usage; 3 daemon unreachable; \
                        4 not ready."
)]
struct Cli {
    /// The daemon's control socket
    #[arg(long, global = true, env = "BALLAST_SOCKET", value_name = "PATH", default_value = config::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// How to print data
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs; keys are stable
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground; SIGHUP reloads, SIGTERM stops it and forwarding goes on
    Run {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Validate the configuration, without root or a daemon
    Check {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Show everything at a glance
    Status {
        /// Exit with 4 unless interfaces are attached and the last change is published
        #[arg(long)]
        ready: bool,
    },
    /// What clients talk to
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Servers behind a service
    #[command(subcommand)]
    Backend(BackendCommand),
    /// Make the running state equal to the file; all or nothing
    Reload {
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Stop forwarding and remove what is pinned; the daemon must be stopped first
    Detach {
        #[command(flatten)]
        file: ConfigFile,
        /// Where maps and links are pinned, instead of what the configuration says
        #[arg(long, value_name = "PATH", conflicts_with = "config")]
        pin_dir: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// List services
    List,
    /// Show a service and its backends
    Show {
        #[arg(value_name = "NAME")]
        name: Name,
    },
}

#[derive(Debug, Subcommand)]
enum BackendCommand {
    /// List the backends of a service
    List {
        #[arg(value_name = "SERVICE")]
        service: Name,
    },
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration; conf.d/*.toml next to it is read as well
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    exit::report(run(cli))
}

fn run(cli: Cli) -> Result<(), Failure> {
    let format = cli.output;
    match cli.command {
        Command::Run { file } => file::run(file.config),
        Command::Check { file } => file::check(&file.config, format),
        Command::Detach { file, pin_dir } => file::detach(&file.config, pin_dir, format),
        Command::Status { ready } => {
            ask(cli.socket, async |client| status::status(client, ready, format).await)
        }
        Command::Service(ServiceCommand::List) => {
            ask(cli.socket, async |client| service::list(client, format).await)
        }
        Command::Service(ServiceCommand::Show { name }) => {
            ask(cli.socket, async |client| service::show(client, &name, format).await)
        }
        Command::Backend(BackendCommand::List { service }) => {
            ask(cli.socket, async |client| backend::list(client, &service, format).await)
        }
        Command::Reload { dry_run } => {
            ask(cli.socket, async |client| reload::reload(client, dry_run, format).await)
        }
    }
}

/// Runs a command that talks to the daemon.
fn ask(socket: PathBuf, command: impl AsyncFnOnce(&Client) -> Result<(), Failure>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(error.into()))?;
    runtime.block_on(command(&Client::new(socket)))
}
