//! How a command ends: message and exit code.

use std::{io, process::ExitCode};

use clap::error::ErrorKind;

use super::output;
use crate::{api::client::ClientError, config::Diagnostics};

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// Failed or refused; nothing changed.
    Failed(anyhow::Error),
    /// The configuration is wrong.
    Config(Diagnostics),
    /// The daemon said no, or could not be asked.
    Daemon(ClientError),
    /// The daemon answered that it is not ready.
    NotReady(String),
    /// `doctor` found so many problems.
    Found(String),
    /// The arguments make no sense together; nothing was asked for.
    Usage(String),
    /// `--wait` was given up; with what is missing. The change stays.
    TimedOut(String),
    /// What `--wait` waits for will not come about any more, and why. The change was made.
    Overtaken(String),
    /// The change was made, and then the daemon could not be asked what became of it.
    Unknown(ClientError),
    /// Standard output can't be written to.
    Output(io::Error),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Daemon(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Prints why a command failed, if it did.
pub(super) fn report(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has seen enough, as in `ballast status | head -1`.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure.message());
            ExitCode::from(failure.code())
        }
    }
}

/// Prints what clap has to say: a mistake in the arguments, help or the version.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    // Where that can't be printed there is nothing left to say.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(USAGE),
    }
}

impl Failure {
    /// The one place where an error becomes an exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Config(_) | Self::Output(_) | Self::Found(_) => FAILED,
            // The change is made, and stays.
            Self::Daemon(ClientError::Refused { error, .. }) if error.kind == "not_live" => NOT_WAITED,
            Self::Daemon(ClientError::Refused { error, .. }) if error.kind == "uncertain" => UNREACHABLE,
            Self::Daemon(ClientError::Refused { .. }) => FAILED,
            Self::Usage(_) => USAGE,
            // The change stays.
            Self::TimedOut(_) | Self::Overtaken(_) | Self::Unknown(ClientError::Refused { .. }) => NOT_WAITED,
            // Whether a change was made before the connection broke is not known, so this is not "nothing changed".
            Self::Daemon(_) | Self::Unknown(_) => UNREACHABLE,
            Self::NotReady(_) => NOT_READY,
        }
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::Failed(error) => headed(format!("{error:#}")),
            Self::Config(diagnostics) => diagnostics.to_string(),
            Self::NotReady(why) => format!("not ready: {why}"),
            Self::Found(what) => format!("error: {what} found"),
            Self::TimedOut(missing) => {
                format!("error: the change is made, but waiting took too long: {missing}")
            }
            Self::Overtaken(why) => format!("error: the change was made, but waiting is pointless: {why}"),
            Self::Unknown(error) => {
                let text = format!("error: the change was made, but what became of it is not known: {error}");
                match advice(error) {
                    Some(advice) => format!("{text}\n{advice}"),
                    None => text,
                }
            }
            Self::Usage(why) => headed(why.clone()),
            Self::Output(error) => format!("error: can't write the output: {error}"),
            Self::Daemon(error) => {
                let text = headed(error.to_string());
                match advice(error) {
                    Some(advice) => format!("{text}\n{advice}"),
                    None => text,
                }
            }
        }
    }
}

/// Diagnostics of a configuration come with headings of their own.
fn headed(text: String) -> String {
    if text.starts_with("error: ") { text } else { format!("error: {text}") }
}

/// What to do next.
fn advice(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Unreachable { source, .. } => Some(match source.kind() {
            io::ErrorKind::PermissionDenied => "use root (sudo), or become a member of the socket's group",
            io::ErrorKind::ConnectionRefused => {
                "the daemon that made the socket is gone; is `ballast run` running? its log says why it ended"
            }
            _ => {
                "is `ballast run` running? if its configuration has another `socket`, name it with --socket or \
                 BALLAST_SOCKET"
            }
        }),
        ClientError::Timeout { .. } => {
            Some("it may be busy or stopped; its log and `ballast status` say more")
        }
        ClientError::Garbled { .. } => {
            Some("is --socket the control socket of a `ballast run`? its log says more")
        }
        ClientError::Refused { error, .. } => match (error.kind.as_str(), error.field.as_deref()) {
            ("not_found", Some("service")) => Some("`ballast service list` shows what there is"),
            ("not_found", Some("backend")) => Some("`ballast backend list SERVICE` shows what there is"),
            ("owned", _) => Some(
                "nothing changed; what the file declares or a source finds can only be drained, disabled or weighted from here",
            ),
            ("store", _) => {
                Some("nothing changed; is there room in `state_dir`, and may the daemon write there?")
            }
            ("cut_off", _) => Some("what is live goes on; `ballast fleet status` says more"),
            ("not_live", _) => Some("the change stays; `ballast fleet status` says where it is live"),
            ("uncertain", _) => Some(
                "`ballast fleet status` and `ballast status` show whether it was made when etcd answers again",
            ),
            ("no_fleet", _) => Some("docs/fleet.md says how one is made"),
            ("exists" | "outdated" | "bad_request" | "too_large", _) => Some("nothing changed"),
            ("forbidden", _) => Some("use root (sudo), or become a member of the socket's group"),
            ("busy" | "timeout", _) => Some("nothing changed; try again"),
            ("stopping", _) => Some("nothing changed; try again when it runs again"),
            // This program asks for nothing that a daemon of its own version does not have.
            ("not_found" | "method_not_allowed", None) => Some(
                "the daemon seems to be of another version: after an upgrade it has to be restarted; forwarding goes on",
            ),
            ("config" | "invalid" | "limit", _) => Some("nothing changed; what ran before goes on"),
            ("capturing", _) => {
                Some("end the other `ballast capture`, or wait for it; the daemon's log says when it began")
            }
            ("dataplane" | "internal", _) => Some("the daemon's log says more"),
            _ => None,
        },
    }
}

/// [`EXIT_CODES`] for `--help`.
pub(super) fn codes() -> String {
    let lines = EXIT_CODES.iter().map(|(code, meaning)| format!("\n  {code}  {meaning}"));
    format!("Exit codes:{}", lines.collect::<String>())
}

/// What each of them means.
pub(super) const EXIT_CODES: [(u8, &str); 6] = [
    (0, "Done."),
    (FAILED, "Failed or refused, nothing changed; or doctor found a problem."),
    (USAGE, "The arguments make no sense."),
    (UNREACHABLE, "The daemon can't be reached; or etcd did not say whether the fleet has the change."),
    (NOT_READY, "The daemon is not ready (status --ready)."),
    (NOT_WAITED, "--wait ended without what it waited for; the change stays."),
];

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const NOT_READY: u8 = 4;
const NOT_WAITED: u8 = 5;
