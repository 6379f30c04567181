//! Commands that work from the configuration file, without asking a daemon.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;

use super::{Format, exit::Failure, output};
use crate::{announce, config, daemon, dataplane::loader};

pub(super) fn run(config: PathBuf) -> Result<(), Failure> {
    daemon::run(config).map_err(|error| match error.downcast::<config::Diagnostics>() {
        Ok(diagnostics) => Failure::Config(diagnostics),
        Err(error) => Failure::Failed(error),
    })
}

pub(super) fn check(path: &Path, format: Format) -> Result<(), Failure> {
    let config = config::load(path).map_err(Failure::Config)?;
    if !config.warnings.is_empty() {
        output::complain(&config.warnings.to_string());
    }
    let summary = Summary {
        services: config.services.len(),
        backends: config.services.iter().map(|service| service.backends.len()).sum(),
        warnings: config.warnings.iter().map(ToString::to_string).collect(),
    };
    let render = |summary: &Summary, _| {
        let warnings = match summary.warnings.len() {
            0 => String::new(),
            1 => ", 1 warning".to_owned(),
            several => format!(", {several} warnings"),
        };
        let plural =
            |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        let (services, backends) = (plural(summary.services, "service"), plural(summary.backends, "backend"));
        format!("{}: valid, {services}, {backends}{warnings}", path.display())
    };
    Ok(output::print(format, &summary, render)?)
}

pub(super) fn detach(config: &Path, pin_dir: Option<PathBuf>, format: Format) -> Result<(), Failure> {
    let (pin_dir, announce) = match pin_dir {
        Some(pin_dir) => (pin_dir, None),
        None => {
            let config = config::load(config).map_err(|diagnostics| {
                output::complain("--pin-dir detaches without a configuration");
                Failure::Config(diagnostics)
            })?;
            (config.daemon.pin_dir, config.announce)
        }
    };
    let protocol = announce.as_ref().and_then(config::AnnounceConfig::routes).map(|routes| routes.protocol);
    let context = || format!("can't detach what is pinned at {}", pin_dir.display());
    let mut withdrawn = Ok(BTreeSet::new());
    // Packets that come on are forwarded by nobody.
    let withdraw = || withdrawn = protocol.map_or_else(|| Ok(BTreeSet::new()), announce::withdraw_all);
    let report = loader::detach(&pin_dir, withdraw).with_context(context).map_err(Failure::Failed)?;
    let withdrawn = withdrawn.unwrap_or_else(|error| {
        output::complain(&format!(
            "warning: routes that announce VIPs may be left (`ip route show table all proto {}`): {error}",
            protocol.unwrap_or_default()
        ));
        BTreeSet::new()
    });
    let done = Detached {
        pin_dir: report.pin_dir.display().to_string(),
        interfaces: report.interfaces.clone(),
        withdrawn: withdrawn.iter().map(ToString::to_string).collect(),
    };
    Ok(output::print(format, &done, |done, _| match done.withdrawn.as_slice() {
        [] => report.to_string(),
        vips => format!("withdrew the routes of {}; {report}", vips.join(", ")),
    })?)
}

/// What `check -o json` prints.
#[derive(Serialize)]
struct Summary {
    services: usize,
    backends: usize,
    warnings: Vec<String>,
}

/// What `detach -o json` prints.
#[derive(Serialize)]
struct Detached {
    pin_dir: String,
    /// Where the program was attached; `null` where nothing was pinned.
    interfaces: Option<Vec<String>>,
    /// VIPs whose routes were removed.
    withdrawn: Vec<String>,
}
