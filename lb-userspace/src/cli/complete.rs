//! Completions: shells ask this program what may come next, and it asks the daemon for the names of services and backends.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{CommandFactory, ValueEnum};
use clap_complete::{
    CompleteEnv,
    engine::CompletionCandidate,
    env::{Bash, Elvish, EnvCompleter, Fish, Zsh},
};

use super::{Cli, exit::Failure, output};
use crate::{
    api::client::{Client, ClientError},
    console::plain,
    domain::Name,
};

/// A shell that completions can be had for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Elvish,
    Fish,
    Zsh,
}

impl Shell {
    fn completer(self) -> &'static dyn EnvCompleter {
        match self {
            Self::Bash => &Bash,
            Self::Elvish => &Elvish,
            Self::Fish => &Fish,
            Self::Zsh => &Zsh,
        }
    }
}

/// `ballast completions`.
pub(super) fn script(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    shell.completer().write_registration(VARIABLE, NAME, NAME, NAME, &mut script)?;
    if shell == Shell::Zsh {
        script.extend_from_slice(ZSH_FIRST_TIME.as_bytes());
    }
    Ok(output::line(&String::from_utf8_lossy(&script))?)
}

/// Answers a shell that asks, and ends the process then.
pub(super) fn answer() {
    let command = || match is_option(&words()) {
        true => Cli::command(),
        false => {
            let mut command = Cli::command();
            // Afterwards its own options are there, too: --help and --version.
            command.build();
            without_options(command)
        }
    };
    CompleteEnv::with_factory(command).var(VARIABLE).bin(NAME).completer(NAME).complete();
}

/// Whether the word that is being completed is, or begins, an option.
fn is_option(words: &[OsString]) -> bool {
    // Fish and elvish pass nothing behind the cursor.
    let index = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|index| index.parse().ok());
    let index = index.unwrap_or(words.len().saturating_sub(1));
    words.get(index).is_some_and(|word| word.as_encoded_bytes().starts_with(b"-"))
}

/// Options stay out of sight where there is anything else: names are what is looked for.
fn without_options(command: clap::Command) -> clap::Command {
    let hide = |argument: clap::Arg| {
        let hidden = argument.is_hide_set() || !argument.is_positional();
        argument.hide(hidden)
    };
    command.mut_args(hide).mut_subcommands(without_options)
}

/// Names of services.
pub(super) fn services() -> Vec<CompletionCandidate> {
    let words = words();
    let services = ask(&words, async |client| client.services().await).unwrap_or_default();
    let candidate = |service: crate::api::v1::Service| {
        let help = format!("{}/{} {}", service.address, service.protocol, service.state);
        CompletionCandidate::new(service.name).help(Some(plain(&help).into()))
    };
    services.into_iter().map(candidate).collect()
}

/// Names of the backends of the service that the command line names.
pub(super) fn backends() -> Vec<CompletionCandidate> {
    let words = words();
    let Some(service) = service_of(&words) else { return Vec::new() };
    let backends = ask(&words, async |client| client.backends(&service).await).unwrap_or_default();
    let candidate = |backend: crate::api::v1::Backend| {
        let help = format!("{} {} {}", backend.address, backend.admin, backend.health);
        CompletionCandidate::new(backend.name).help(Some(plain(&help).into()))
    };
    backends.into_iter().map(candidate).collect()
}

/// What the shell has on its line: it is passed after `--`.
fn words() -> Vec<OsString> {
    std::env::args_os().skip_while(|word| word != "--").skip(1).collect()
}

/// The service that a line is about; the word that is being completed does no harm.
pub(super) fn service_of(words: &[OsString]) -> Option<Name> {
    let matches = half_a_line(words)?;
    let (_, of) = matches.subcommand()?;
    let (_, of) = of.subcommand()?;
    of.try_get_one::<Name>("service").ok().flatten().cloned()
}

/// What can be made out of a line that is not finished.
fn half_a_line(words: &[OsString]) -> Option<clap::ArgMatches> {
    Cli::command().ignore_errors(true).try_get_matches_from(words).ok()
}

/// Nobody who presses a key wants to hear why there is no daemon, or to wait for it.
fn ask<T>(words: &[OsString], question: impl AsyncFnOnce(&Client) -> Result<T, ClientError>) -> Option<T> {
    let socket = half_a_line(words)?.try_get_one::<PathBuf>("socket").ok().flatten().cloned()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let client = Client::new(socket);
    runtime.block_on(async { tokio::time::timeout(PATIENCE, question(&client)).await.ok()?.ok() })
}

/// In a directory of `fpath` the script is itself what zsh calls the first time; without this that would complete nothing.
const ZSH_FIRST_TIME: &str = r#"
if [ "$funcstack[1]" = "_ballast" ]; then
    _clap_dynamic_completer_ballast "$@"
fi
"#;
/// Set by the scripts to the name of the shell.
const VARIABLE: &str = "BALLAST_COMPLETE";
const NAME: &str = "ballast";
const PATIENCE: Duration = Duration::from_millis(700);
