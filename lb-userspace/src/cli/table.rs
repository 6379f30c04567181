//! Tables without lines, their columns two spaces apart.

use super::output::{Rating, Style, plain};
use crate::console::fit::{self, Column, Kind};

/// A field of a table. It holds nothing that a terminal would obey, whoever wrote the text.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    rating: Option<Rating>,
}

pub(super) fn cell(text: impl ToString) -> Cell {
    Cell { text: plain(&text.to_string()), rating: None }
}

/// A cell coloured by how good its news are.
pub(super) fn rated(text: impl ToString, rating: Rating) -> Cell {
    Cell { rating: Some(rating), ..cell(text) }
}

/// Collects rows, and then prints them as wide as there is room.
pub(super) struct Grid {
    style: Style,
    headings: Vec<Heading>,
    rows: Vec<Vec<Cell>>,
    expendable: Vec<usize>,
    wraps: bool,
}

struct Heading {
    text: String,
    kind: Kind,
}

impl Grid {
    /// Headings that start with `>` are of columns with numbers, aligned to the right and never shortened; with `~`, of
    /// columns with words, that lose their end on a narrow terminal. Others lose their middle.
    pub(super) fn new(style: Style, headings: &[&str]) -> Self {
        let heading = |text: &&str| {
            let (kind, text) = match (text.strip_prefix('>'), text.strip_prefix('~')) {
                (Some(rest), _) => (Kind::Number, rest),
                (_, Some(rest)) => (Kind::Prose, rest),
                _ => (Kind::Name, *text),
            };
            Heading { text: plain(text), kind }
        };
        let headings = headings.iter().map(heading).collect();
        Self { style, headings, rows: Vec::new(), expendable: Vec::new(), wraps: false }
    }

    /// Columns that a narrow terminal does without, the first of them first.
    pub(super) fn expendable(mut self, headings: &[&str]) -> Self {
        let place = |wanted: &&str| self.headings.iter().position(|heading| heading.text == *wanted);
        self.expendable = headings.iter().filter_map(place).collect();
        self
    }

    /// The last column is shown whole, in several lines if need be.
    pub(super) fn wrapping(mut self) -> Self {
        self.wraps = true;
        self
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(super) fn render(self) -> String {
        let widths = self.widths();
        let headings: Vec<_> = self.headings.iter().map(|heading| cell(&heading.text)).collect();
        let bold = |text: &str| paint(text, "1", self.style);
        let mut text = self.line(&headings, &widths, |cell, shown| match cell.text.is_empty() {
            true => shown.to_owned(),
            false => bold(shown),
        });
        for row in &self.rows {
            for part in self.parts(row, &widths) {
                text += &self.line(&part, &widths, |cell, shown| match cell.rating {
                    Some(rating) => paint(shown, code(rating), self.style),
                    None => shown.to_owned(),
                });
            }
        }
        text
    }

    fn widths(&self) -> Vec<Option<usize>> {
        let columns: Vec<_> = (0..)
            .zip(&self.headings)
            .map(|(at, heading)| {
                let cells = self.rows.iter().filter_map(|row| row.get(at));
                let widest = cells.map(|cell| fit::width(&cell.text)).max().unwrap_or(0);
                Column { kind: heading.kind, width: widest.max(fit::width(&heading.text)) }
            })
            .collect();
        match self.style.width {
            Some(room) => fit::fit(&columns, &self.expendable, room.into(), GAP),
            None => columns.iter().map(|column| Some(column.width)).collect(),
        }
    }

    /// The lines of a row.
    fn parts(&self, row: &[Cell], widths: &[Option<usize>]) -> Vec<Vec<Cell>> {
        let last = row.len().saturating_sub(1);
        let (Some(long), Some(Some(room)), true) = (row.last(), widths.get(last), self.wraps) else {
            return vec![row.to_vec()];
        };
        let mut parts = Vec::new();
        for (number, text) in wrap(&long.text, *room).into_iter().enumerate() {
            let before = row.iter().take(last).map(|one| if number == 0 { one.clone() } else { cell("") });
            parts.push(before.chain([Cell { text, rating: long.rating }]).collect());
        }
        parts
    }

    fn line(
        &self,
        cells: &[Cell],
        widths: &[Option<usize>],
        colour: impl Fn(&Cell, &str) -> String,
    ) -> String {
        let mut line = String::new();
        // Spaces are written before what follows them, so that no line ends with some.
        let mut owed = 0;
        for ((cell, heading), width) in cells.iter().zip(&self.headings).zip(widths) {
            let Some(width) = *width else { continue };
            let shown = fit::shorten(&cell.text, heading.kind, width);
            let spare = width - fit::width(&shown);
            let (before, after) = if heading.kind == Kind::Number { (spare, 0) } else { (0, spare) };
            if shown.is_empty() {
                owed += width + GAP;
                continue;
            }
            line += &" ".repeat(owed + before);
            line += &colour(cell, &shown);
            owed = after + GAP;
        }
        line.push('\n');
        line
    }
}

/// Lines of at most `room` columns, broken at spaces where there are some.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        let fits = fit::width(line) + 1 + fit::width(word) <= room;
        match (line.is_empty(), fits) {
            (true, _) => line.push_str(word),
            (false, true) => {
                line.push(' ');
                line.push_str(word);
            }
            (false, false) => lines.push(word.to_owned()),
        }
    }
    lines
}

/// In a rendition of ECMA-48, if there are to be colours.
fn paint(text: &str, rendition: &str, style: Style) -> String {
    if style.colour { format!("\u{1b}[{rendition}m{text}\u{1b}[0m") } else { text.to_owned() }
}

fn code(rating: Rating) -> &'static str {
    match rating {
        Rating::Good => "32",
        Rating::Doubtful => "33",
        Rating::Bad => "31",
    }
}

const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colour: false, width: None };

    fn servers(style: Style) -> Grid {
        let mut grid = Grid::new(style, &["NAME", "~HEALTH", ">PACKETS", ">BYTES"]).expendable(&["BYTES"]);
        grid.row([cell("web-1"), rated("healthy", Rating::Good), cell(12), cell(3400)]);
        grid.row([
            cell("a-very-long-name-12"),
            rated("unhealthy: connection refused", Rating::Bad),
            cell(7),
            cell(""),
        ]);
        grid
    }

    #[test]
    fn without_a_terminal_everything_is_shown() {
        let expected = "\
NAME                 HEALTH                         PACKETS  BYTES
web-1                healthy                             12   3400
a-very-long-name-12  unhealthy: connection refused        7
";
        assert_eq!(servers(PLAIN).render(), expected);
    }

    #[test]
    fn a_narrow_terminal_shortens_texts_and_drops_columns() {
        let expected = "\
NAME                HEALTH              PACKETS
web-1               healthy                  12
a-very-lo…-name-12  unhealthy: connec…        7
";
        let narrow = Style { colour: false, width: Some(47) };
        assert_eq!(servers(narrow).render(), expected);
    }

    #[test]
    fn colours_take_no_room() {
        let coloured = servers(Style { colour: true, width: Some(47) }).render();
        assert!(coloured.contains("\u{1b}[32mhealthy\u{1b}[0m           "), "{coloured:?}");
        assert!(coloured.contains("\u{1b}[31munhealthy: connec…\u{1b}[0m"), "{coloured:?}");
        assert!(!coloured.contains("\u{1b}[1m\u{1b}[0m"), "{coloured:?}");
    }

    #[test]
    fn what_may_not_be_cut_goes_on_in_the_next_line() {
        let mut grid = Grid::new(Style { colour: false, width: Some(30) }, &["SERVICE", "web"]).wrapping();
        grid.row([cell("allow"), cell("198.51.100.0/24, 192.0.2.0/24")]);
        assert_eq!(grid.render(), "SERVICE  web\nallow    198.51.100.0/24,\n         192.0.2.0/24\n");
    }
}
