//! `ballast doctor`: what on this host, and on its way to backends, would keep Ballast from working, and what to do about it.
//!
//! It looks at what the kernel tells, at the daemon if one runs, and at what a few packets on the wire bring back
//! ([`probe`], planned by [`questions`]). [`checks`] say what that means: each is a function of values. Nothing is changed.

mod check;
mod checks;
mod collect;
mod finding;
mod probe;
mod questions;
mod setup;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Instant,
};

pub use check::Check;
pub use finding::{Finding, Fix, Report, Severity};
pub(crate) use probe::{Asking, Heard, Question, What, ask};

use crate::{
    api::{client::Client, v1},
    config::{self, Config, Diagnostics},
    dataplane::inspect::{self, Pinned},
    neighbour::Survey,
};
use checks::host::HOST;
use setup::Setup;

/// What to look at.
#[derive(Clone, Debug)]
pub struct Options {
    pub config: PathBuf,
    /// The daemon's control socket, instead of the one that the configuration names.
    pub socket: Option<PathBuf>,
    /// Whether packets may be sent.
    pub probes: bool,
    /// Addresses of clients, to ask `dnat`'s backends as one of them.
    pub clients: Vec<IpAddr>,
}

/// Looks at everything. Takes a few seconds at most, and needs root to see all of it.
pub async fn examine(options: &Options) -> Report {
    let mut findings = checks::host::all();
    let config = match config::load(&options.config) {
        Ok(config) => config,
        Err(diagnostics) => {
            findings.push(unreadable(&options.config, &diagnostics));
            findings.extend(checks::rights::all(None, None));
            return findings.into();
        }
    };
    findings.push(valid(&options.config, &config));
    let socket = options.socket.as_ref().unwrap_or(&config.daemon.socket);
    let client = Client::new(socket.clone());
    let asked = client.status().await;
    let started = Instant::now();
    let pinned = inspect::pinned(&config.daemon.pin_dir).map_err(|error| error.to_string());
    let setup = Setup::new(&config, asked.as_ref().ok());
    let holder = pinned.as_ref().ok().and_then(|pinned| pinned.holder);
    let runs = asked.is_ok() || holder.is_some();
    findings.extend(checks::rights::all(Some(&setup), holder));
    let healthz = setup.metrics.filter(|_| runs).map(checks::daemon::healthz);
    findings.extend(checks::places::all(&setup, &options.config, &pinned, healthz.as_ref()));
    findings.push(checks::daemon::presence(&asked, &pinned, healthz.as_ref()));
    findings.extend(on_the_network(&setup, options, &pinned).await);
    if let Ok(before) = &asked {
        findings.extend(of_the_daemon(&setup, &client, before, started).await);
    }
    findings.into()
}

/// Interfaces, VIPs and backends.
async fn on_the_network(setup: &Setup, options: &Options, pinned: &Result<Pinned, String>) -> Vec<Finding> {
    let survey = match Survey::take(&questions::addresses(setup, &options.clients)).await {
        Ok(survey) => survey,
        Err(error) => return vec![Finding::skipped(Check::Interface, HOST, error.to_string())],
    };
    let heard = match options.probes {
        true => {
            probe::ask(questions::all(setup, &survey, &options.clients)).map_err(|error| not_asked(&error))
        }
        false => Err("--no-probes: nobody was asked".to_owned()),
    };
    let mut findings = checks::interface::all(setup, &survey, pinned);
    findings.extend(checks::sysctls::all(setup, &survey, heard.as_ref().ok()));
    findings.extend(checks::nat::all(setup, &survey));
    findings.extend(checks::vip::all(setup, &survey, &heard));
    findings.extend(checks::backend::all(setup, &survey));
    findings.extend(checks::path::all(setup, &survey, &heard, &options.clients));
    findings
}

/// What only shows between two looks comes last.
async fn of_the_daemon(
    setup: &Setup,
    client: &Client,
    before: &v1::Status,
    started: Instant,
) -> Vec<Finding> {
    let planned = client.reload(true, false).await;
    let mut findings = checks::daemon::running(before, planned, setup.mode);
    if let Ok(after) = client.status().await {
        findings.push(checks::daemon::drops(before, &after));
        findings.extend(checks::nat::sizes(setup, before, &after, started.elapsed()));
    }
    findings
}

fn valid(path: &Path, config: &Config) -> Finding {
    if config.warnings.is_empty() {
        return Finding::ok(Check::Config, HOST, format!("{} is valid", path.display()));
    }
    Finding::warning(Check::Config, HOST, config.warnings.to_string())
        .run([format!("ballast check --config {}", path.display())])
}

fn unreadable(path: &Path, diagnostics: &Diagnostics) -> Finding {
    Finding::problem(Check::Config, HOST, diagnostics.to_string())
        .run([format!("ballast check --config {}", path.display())])
        .advise("mend the file; interfaces, VIPs and backends are looked at when it is valid")
}

fn not_asked(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "asking on the wire takes CAP_NET_RAW: ask as root".to_owned()
        }
        _ => format!("nobody could be asked: {error}"),
    }
}
