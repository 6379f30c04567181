//! Printing: data to standard output, messages to standard error.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use super::Format;

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
        Self { colour: terminal && colours_wanted(), width: terminal.then(|| Table::new().width()).flatten() }
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
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", text.trim_end())?;
    stdout.flush()
}

/// A message, on standard error; the word in front of its first colon stands out.
pub(super) fn complain(message: &str) {
    let coloured = io::stderr().is_terminal() && colours_wanted();
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

/// A table without lines, its columns two spaces apart.
pub(super) struct Grid {
    table: Table,
    width: Option<u16>,
}

impl Grid {
    /// Headings that start with `>` are of columns aligned to the right.
    pub(super) fn new(style: Style, headings: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).force_no_tty();
        if style.colour {
            table.enforce_styling();
        }
        let arrangement = match style.width {
            Some(_) => ContentArrangement::Dynamic,
            None => ContentArrangement::Disabled,
        };
        table.set_content_arrangement(arrangement);
        let heading = |text: &&str| Cell::new(text.trim_start_matches('>')).add_attribute(Attribute::Bold);
        table.set_header(headings.iter().map(heading));
        for (column, heading) in table.column_iter_mut().zip(headings) {
            column.set_padding((0, 2));
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table, width: style.width }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.table.add_row(cells.into_iter().collect::<Vec<_>>());
    }

    pub(super) fn render(mut self) -> String {
        if let Some(width) = self.width {
            self.table.set_width(width);
        }
        let lines: Vec<_> = self.table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n") + "\n"
    }
}

/// A cell that holds nothing a terminal would obey, whoever wrote the text.
pub(super) fn cell(text: impl ToString) -> Cell {
    Cell::new(plain(&text.to_string()))
}

/// A cell coloured by how good its news are.
pub(super) fn rated(text: impl ToString, rating: Rating) -> Cell {
    let colour = match rating {
        Rating::Good => Color::Green,
        Rating::Doubtful => Color::Yellow,
        Rating::Bad => Color::Red,
    };
    cell(text).fg(colour)
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Rating {
    Good,
    Doubtful,
    Bad,
}

impl Rating {
    /// Of the words that services and backends are described with.
    pub(super) fn of(word: &str) -> Self {
        match word {
            "healthy" => Self::Good,
            "unhealthy" | "failing" | "panic" => Self::Bad,
            _ => Self::Doubtful,
        }
    }
}

/// `1 problem`, `2 problems`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// <https://no-color.org>: set and not empty means no.
fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
