//! Printing: data to standard output, messages to standard error.

use std::{
    io::{self, IsTerminal, Write},
    sync::OnceLock,
};

use clap::ColorChoice;
use serde::Serialize;

use super::Format;
pub(super) use super::table::{Cell, Grid, cell, rated};
pub(super) use crate::console::{Rating, plain};

/// What the output goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) colour: bool,
    /// Columns of the terminal; `None` where lines may be as long as they like.
    pub(super) width: Option<u16>,
}

impl Style {
    pub(super) fn of_stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let size = terminal.then(crossterm::terminal::size).and_then(Result::ok);
        // A terminal that does not know its size says 0.
        let width = size.map(|(width, _)| width).filter(|width| *width > 0);
        Self { colour: colours(terminal), width }
    }
}

/// Prints `data` as JSON, or what `render` makes of it.
pub(super) fn print<T: Serialize>(
    format: Format,
    data: &T,
    render: impl FnOnce(&T, Style) -> String,
) -> io::Result<()> {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(data)?,
        Format::Table => render(data, Style::of_stdout()),
    };
    line(&text)
}

/// Text on standard output, with one end of line, and at once.
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", text.trim_end())?;
    stdout.flush()
}

/// A message, on standard error; the word in front of its first colon stands out.
pub(super) fn complain(message: &str) {
    let coloured = colours(io::stderr().is_terminal());
    let text = match message.split_once(':') {
        Some((word, rest)) if coloured => format!("\u{1b}[1;31m{word}:\u{1b}[0m{rest}"),
        _ => message.to_owned(),
    };
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Words that nobody shall miss.
pub(super) fn loud(words: &str, style: Style) -> String {
    if style.colour { format!("\u{1b}[1;31m{words}\u{1b}[0m") } else { words.to_owned() }
}

/// Whether what goes to a terminal, or to something else, has colours.
pub(super) fn colours(terminal: bool) -> bool {
    match CHOICE.get().copied().unwrap_or(ColorChoice::Auto) {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        // <https://no-color.org>: set and not empty means no.
        ColorChoice::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}

/// Takes what `--color` says; once, before anything is printed.
pub(super) fn choose_colours(choice: ColorChoice) {
    CHOICE.get_or_init(|| choice);
}

/// `1 problem`, `2 problems`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

static CHOICE: OnceLock<ColorChoice> = OnceLock::new();
