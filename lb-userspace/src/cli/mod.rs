//! The command line: arguments in, tables or JSON out. A file for each noun.

mod announce;
mod backend;
mod capture;
mod change;
mod complete;
mod doctor;
mod examples;
mod exit;
mod explain;
mod file;
#[cfg(feature = "fleet")]
mod fleet;
mod health;
mod import;
mod keepalived;
mod man;
mod output;
mod peers;
mod progress;
mod redraw;
#[cfg(test)]
mod reference;
mod reload;
mod service;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod top;
mod traffic;
mod wait;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use clap::{ColorChoice, Parser, Subcommand, ValueEnum};
use clap_complete::ArgValueCandidates;

use crate::{api::client::Client, config, domain::Name};
use announce::AnnounceCommand;
use capture::Capture;
use change::{Fixed, Settings, Target};
use doctor::Doctor;
use exit::{EXIT_CODES, Failure};
use import::ImportCommand;
use keepalived::Keepalived;
use watch::Watch;

/// Layer 4 load balancer in XDP: the daemon, and the commands that talk to it.
#[derive(Debug, Parser)]
#[command(name = "ballast", version, arg_required_else_help = true, max_term_width = 110)]
#[command(after_help = exit::codes())]
struct Cli {
    /// The daemon's control socket
    #[arg(
        long,
        global = true,
        env = "BALLAST_SOCKET",
        hide_env_values = true,
        value_name = "PATH",
        default_value = config::DEFAULT_SOCKET
    )]
    socket: PathBuf,
    /// How to print data
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
    /// Whether to print in colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
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
        #[arg(long, conflicts_with = "interval")]
        ready: bool,
        /// Be ready without a daemon, too, while the program that is pinned here is on its interfaces: forwarding goes on
        #[arg(long, value_name = "PATH", requires = "ready")]
        pinned: Option<PathBuf>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Watch services, backends and drops live; drain and enable backends by a key
    Top(top::Options),
    /// What clients talk to
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Servers behind a service
    #[command(subcommand)]
    Backend(BackendCommand),
    /// What the network is told of VIPs
    #[command(subcommand)]
    Announce(AnnounceCommand),
    /// Show packets as they come and as they leave, with what became of them and why
    Capture(Box<Capture>),
    /// Make the running state equal to the file; all or nothing
    Reload {
        /// Only say what would change, and how many clients would notice
        #[arg(long)]
        dry_run: bool,
        /// Replace live services that can't become what the file declares (another table_size, algorithm, or forwarding to or
        /// from dnat and nat): their flows end
        #[arg(long)]
        disruptive: bool,
    },
    /// Show what another file would change: objects, the share of clients that would move, flows; nothing is changed
    Plan {
        #[command(flatten)]
        file: ConfigFile,
        /// As a `reload --disruptive` would do it
        #[arg(long)]
        disruptive: bool,
    },
    /// Look for what would keep this host from balancing, on it and on the way to backends; exits 1 when there is a problem
    Doctor(Doctor),
    /// Say what becomes of one packet, and why: the program that runs is asked on the live maps; nothing is sent, and nothing
    /// changes
    Explain(explain::Question),
    /// Several load balancers with the same services
    #[cfg(feature = "fleet")]
    #[command(subcommand)]
    Fleet(fleet::FleetCommand),
    /// Make a configuration of another load balancer's
    #[command(subcommand)]
    Import(ImportCommand),
    /// Print keepalived's configuration for this host, one of two that have the VIPs in turn
    Keepalived(Box<Keepalived>),
    /// Stop forwarding and remove what is pinned; the daemon must be stopped first
    Detach {
        #[command(flatten)]
        file: ConfigFile,
        /// Where maps and links are pinned, instead of what the configuration says
        #[arg(long, value_name = "PATH", conflicts_with = "config")]
        pin_dir: Option<PathBuf>,
    },
    /// Print what a shell needs to complete commands, options, and the names of services and backends as they are then
    Completions {
        /// The shell
        #[arg(value_enum, value_name = "SHELL")]
        shell: complete::Shell,
    },
    /// Write the manual: a page for each command, and one for the configuration
    Man {
        /// Where to, as `man1` and `man5` in it; made if it is not there
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// List services
    List(Watch),
    /// Show a service and its backends
    Show {
        /// The service
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::services))]
        name: Name,
        #[command(flatten)]
        watch: Watch,
    },
    /// Add a service that no file declares; it is kept until it is removed
    Add {
        /// What to call it: lower-case letters, digits, '.' and '-'
        #[arg(value_name = "NAME")]
        name: Name,
        /// Address and port that clients talk to: 203.0.113.10:80, [2001:db8::10]:443; port * is every port
        #[arg(value_name = "ADDRESS")]
        address: String,
        #[command(flatten)]
        fixed: Box<Fixed>,
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Change the settings of a service that was added here
    Set {
        /// The service
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::services))]
        name: Name,
        #[command(flatten)]
        settings: Box<Settings>,
        /// Settings that go back to their defaults, by their keys in the file: drain_timeout,health.port
        #[arg(long, value_name = "KEYS", value_delimiter = ',')]
        unset: Vec<String>,
    },
    /// Remove a service that was added here, with its backends; its existing flows end
    Remove {
        /// The service
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::services))]
        name: Name,
    },
}

#[derive(Debug, Subcommand)]
enum BackendCommand {
    /// List the backends of a service
    List {
        /// The service
        #[arg(value_name = "SERVICE", add = ArgValueCandidates::new(complete::services))]
        service: Name,
        #[command(flatten)]
        watch: Watch,
    },
    /// Add a backend to any service; it is kept until it is removed
    Add {
        /// The service
        #[arg(value_name = "SERVICE", add = ArgValueCandidates::new(complete::services))]
        service: Name,
        /// What to call the backend: lower-case letters, digits, '.' and '-'
        #[arg(value_name = "NAME")]
        name: Name,
        /// Address and port of the server itself: 10.0.0.11:80
        #[arg(value_name = "ADDRESS")]
        address: String,
        /// Share of new flows relative to the others, 0 to 65535 [default: 1]
        #[arg(long, value_name = "N")]
        weight: Option<i64>,
        /// Gets traffic only while the others are too few
        #[arg(long)]
        backup: bool,
    },
    /// Change the weight of a backend; over a declared one until `reset`
    Set {
        /// The service
        #[arg(value_name = "SERVICE", add = ArgValueCandidates::new(complete::services))]
        service: Name,
        /// The backend
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::backends))]
        name: Name,
        /// Share of new flows relative to the others, 0 to 65535
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        weight: i64,
    },
    /// No new flows; existing ones may go on for the service's drain_timeout
    Drain(Target),
    /// New flows again; ends a drain
    Enable(Target),
    /// No flows at all; existing ones end
    Disable(Target),
    /// Take back what was set over a backend: weight, drain, disable
    Reset(Target),
    /// Remove a backend that was added here; its existing flows end
    Remove(Target),
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration; conf.d/*.toml next to it is read as well
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    complete::answer();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    output::choose_colours(cli.color);
    exit::report(run(cli))
}

fn run(cli: Cli) -> Result<(), Failure> {
    let format = cli.output;
    match cli.command {
        Command::Run { file } => file::run(file.config),
        Command::Check { file } => file::check(&file.config, format),
        Command::Detach { file, pin_dir } => file::detach(&file.config, pin_dir, format),
        Command::Doctor(command) => doctor::run(command, cli.socket, format),
        #[cfg(feature = "fleet")]
        Command::Fleet(command) => of_fleet(command, cli.socket, format),
        Command::Import(command) => import::run(&command, format),
        Command::Keepalived(command) => keepalived::run(*command, format),
        Command::Completions { shell } => complete::script(shell),
        Command::Man { directory } => man::write(&directory, format),
        Command::Status { ready, pinned, watch } => ask(cli.socket, async |client| {
            status::status(client, ready, pinned.as_deref(), watch, format).await
        }),
        Command::Top(options) => ask(cli.socket, async |client| top::run(client, &options, format).await),
        Command::Service(command) => {
            ask(cli.socket, async |client| change::service(client, command, format).await)
        }
        Command::Backend(command) => {
            ask(cli.socket, async |client| change::backend(client, command, format).await)
        }
        Command::Announce(command) => {
            ask(cli.socket, async |client| announce::run(client, command, format).await)
        }
        Command::Capture(asked) => {
            ask(cli.socket, async |client| capture::capture(client, *asked, format).await)
        }
        Command::Explain(question) => {
            ask(cli.socket, async |client| explain::explain(client, question, format).await)
        }
        Command::Reload { dry_run, disruptive } => {
            ask(cli.socket, async |client| reload::reload(client, dry_run, disruptive, format).await)
        }
        Command::Plan { file, disruptive } => {
            ask(cli.socket, async |client| reload::plan(client, &file.config, disruptive, format).await)
        }
    }
}

#[cfg(feature = "fleet")]
fn of_fleet(command: fleet::FleetCommand, socket: PathBuf, format: Format) -> Result<(), Failure> {
    use fleet::FleetCommand;
    ask(socket, async |client| match command {
        FleetCommand::Status(watch) => fleet::status(client, watch, format).await,
        FleetCommand::Import { services, replace, file } => {
            fleet::put(&services, replace, &file.config, format).await
        }
        FleetCommand::Export { file } => fleet::get(&file.config, format).await,
    })
}

/// Runs a command that talks to the daemon.
fn ask(socket: PathBuf, command: impl AsyncFnOnce(&Client) -> Result<(), Failure>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(error.into()))?;
    runtime.block_on(command(&Client::new(socket)))
}
