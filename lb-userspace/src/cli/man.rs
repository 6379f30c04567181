//! `ballast man`: a page for each command, and one for the configuration.

mod configuration;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::{Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, italic, roman},
};
use serde::Serialize;

use super::{
    Cli, Format,
    examples::{EXAMPLES, Example},
    exit::Failure,
    output,
};
use crate::config;

/// Writes the pages to `man1` and `man5` in `directory`, where `man` looks for them, and says which ones.
pub(super) fn write(directory: &Path, format: Format) -> Result<(), Failure> {
    let write = || {
        let mut files = Vec::new();
        for Page { name, text } in pages(&date(SystemTime::now())).context("can't make the pages")? {
            let section = name.rsplit('.').next().unwrap_or_default();
            let directory = directory.join(format!("man{section}"));
            fs::create_dir_all(&directory).with_context(|| format!("can't make {}", directory.display()))?;
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
            files.push(path);
        }
        Ok(Written { files })
    };
    let written = write().map_err(Failure::Failed)?;
    let render = |written: &Written, _| format!("{} pages in {}", written.files.len(), directory.display());
    Ok(output::print(format, &written, render)?)
}

/// What `man -o json` prints.
#[derive(Serialize)]
struct Written {
    files: Vec<PathBuf>,
}

const SOURCE: &str = concat!("Ballast ", env!("CARGO_PKG_VERSION"));

pub(super) struct Page {
    /// `ballast-backend-drain.1`
    pub(super) name: String,
    pub(super) text: Vec<u8>,
}

/// All of them, `ballast.1` first.
pub(super) fn pages(date: &str) -> io::Result<Vec<Page>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, date, &mut pages)?;
    pages.push(configuration::page(date)?);
    Ok(pages)
}

fn add_pages(command: &Command, date: &str, pages: &mut Vec<Page>) -> io::Result<()> {
    let words = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let name = words.replace(' ', "-");
    let man = Man::new(command.clone().display_name(name.clone()))
        .title(name.to_uppercase())
        .section("1")
        .date(date)
        .source(SOURCE)
        .manual("Ballast");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let root = !words.contains(' ');
    let mut rest = Roff::new();
    if root {
        exit_status(&mut rest);
        environment(&mut rest);
        files(&mut rest);
    }
    examples(&mut rest, EXAMPLES.iter().filter(|example| example.is_of(words)));
    if let Some((parent, _)) = name.rsplit_once('-') {
        rest.control("SH", ["SEE ALSO"]);
        let mut others = vec![bold("ballast"), roman("(1)")];
        if parent != "ballast" {
            others.extend([roman(", "), bold(parent), roman("(1)")]);
        }
        rest.text(others);
    }
    rest.to_writer(&mut text)?;
    pages.push(Page { name: format!("{name}.1"), text: tidy(text) });
    command.get_subcommands().filter(|one| !one.is_hide_set()).try_for_each(|one| add_pages(one, date, pages))
}

/// Before a list of values there is an empty line between two breaks, of which `mandoc -T lint` says that it is one too many.
fn tidy(text: Vec<u8>) -> Vec<u8> {
    String::from_utf8_lossy(&text).replace(".br\n\n.br\n", ".sp\n").into_bytes()
}

fn exit_status(page: &mut Roff) {
    page.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in super::EXIT_CODES {
        item(page, [bold(code.to_string())], meaning);
    }
}

fn environment(page: &mut Roff) {
    page.control("SH", ["ENVIRONMENT"]);
    for (name, meaning) in [
        ("BALLAST_SOCKET", "The daemon's control socket, as --socket."),
        ("NO_COLOR", "Where it is set and not empty, nothing has colours unless --color says so."),
    ] {
        item(page, [bold(name)], meaning);
    }
}

fn files(page: &mut Roff) {
    page.control("SH", ["FILES"]);
    for (path, meaning) in [
        (config::DEFAULT_PATH, "The configuration, see ballast-config(5)."),
        (config::DEFAULT_SOCKET, "The control socket."),
        (
            config::DEFAULT_STATE_DIR,
            "What was made and set over the command line, and what was applied last.",
        ),
        (config::DEFAULT_PIN_DIR, "Maps and links: as long as they are there, packets are forwarded."),
    ] {
        item(page, [italic(path)], meaning);
    }
}

fn examples<'a>(page: &mut Roff, examples: impl Iterator<Item = &'a Example>) {
    let mut examples = examples.peekable();
    if examples.peek().is_none() {
        return;
    }
    page.control("SH", ["EXAMPLES"]);
    for Example { line, says } in examples {
        let end = if says.ends_with('?') { "" } else { "." };
        item(page, [bold(*line)], &format!("{says}{end}"));
    }
}

fn item(page: &mut Roff, term: impl Into<Vec<Inline>>, meaning: &str) {
    page.control("TP", []);
    page.text(term);
    page.text([roman(meaning)]);
}

/// `2026-11-27`: of the package that is built, or of today.
fn date(today: SystemTime) -> String {
    let source = env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let at = source.map_or(today, |seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    humantime::format_rfc3339_seconds(at).to_string().chars().take_while(|c| *c != 'T').collect()
}
