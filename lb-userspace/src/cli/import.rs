//! `ballast import`.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Format, exit::Failure, output};
use crate::{
    config,
    domain::Forwarding,
    import::{Choices, Imported, Note, haproxy},
};

#[derive(Debug, Subcommand)]
pub(super) enum ImportCommand {
    /// HAProxy's configuration: its frontends, backends and listen sections; what has no equal is listed line by line
    Haproxy(Source),
}

#[derive(Debug, Args)]
pub(super) struct Source {
    /// HAProxy's configuration file, `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The VIP where HAProxy listens on every address (`bind *:80`); may be given once for each family, and more often
    #[arg(long = "vip", value_name = "ADDRESS")]
    vips: Vec<IpAddr>,
    /// Interface that clients' packets arrive on; may be given more often
    #[arg(long = "interface", value_name = "NAME", default_value = "eth0")]
    interfaces: Vec<String>,
    /// How packets go to backends; nat needs nothing of them, as a proxy does
    #[arg(long, value_name = "MODE", default_value = "nat", value_parser = forwarding)]
    forwarding: Forwarding,
}

fn forwarding(text: &str) -> Result<Forwarding, String> {
    let all = Forwarding::ALL;
    let names: Vec<_> = all.iter().map(|mode| mode.as_str()).collect();
    all.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| format!("one of {}", names.join(", ")))
}

/// The configuration goes to standard output, and what it lacks to standard error.
pub(super) fn run(command: &ImportCommand, format: Format) -> Result<(), Failure> {
    let ImportCommand::Haproxy(source) = command;
    let name = source.file.display();
    let text =
        read(&source.file).with_context(|| format!("{name} can't be read")).map_err(Failure::Failed)?;
    let choices = Choices {
        vips: source.vips.clone(),
        interfaces: source.interfaces.clone(),
        forwarding: source.forwarding,
    };
    let imported = haproxy::import(&text, &choices);
    let Imported { config, notes } = imported.map_err(|error| Failure::Failed(anyhow!("{name}: {error}")))?;
    let result = Printed { notes: notes.iter().map(Told::from).collect(), config };
    output::print(format, &result, |result, _| result.config.clone())?;
    if format == Format::Table {
        for note in &notes {
            output::complain(&format!("{name}:{}: {}\n    {}", note.line, note.text, note.why));
        }
        output::complain(&match notes.len() {
            0 => "everything has an equal".to_owned(),
            1 => "1 line has no equal, or not quite".to_owned(),
            count => format!("{count} lines have no equal, or not quite"),
        });
    }
    // What HAProxy takes and Ballast does not: two services at one address, an address that is no host's.
    config::parse(vec![("the configuration above".into(), result.config)]).map(drop).map_err(Failure::Config)
}

fn read(file: &Path) -> io::Result<String> {
    if file.as_os_str() == "-" { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) }
}

/// For programs.
#[derive(Serialize)]
struct Printed<'a> {
    config: String,
    notes: Vec<Told<'a>>,
}

#[derive(Serialize)]
struct Told<'a> {
    line: usize,
    text: &'a str,
    why: &'a str,
}

impl<'a> From<&'a Note> for Told<'a> {
    fn from(note: &'a Note) -> Self {
        Self { line: note.line, text: &note.text, why: &note.why }
    }
}
