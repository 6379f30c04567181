//! Columns that fit the terminal. Texts are shortened a little, then columns are dropped, then texts are shortened more:
//! a line never wraps, and a number is shown whole or not at all.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What a column is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Never shortened.
    Number,
    /// A name or an address: shortened in its middle, since they differ at their ends.
    Name,
    /// Words: shortened at their end.
    Prose,
}

#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub kind: Kind,
    /// What its widest cell takes, in columns of the terminal.
    pub width: usize,
}

/// The width of each column so that all of them fit into `room` with `gap` between each two; `None` for one that has to
/// go. `expendable` are the columns that may go, the first ones first; when these are not enough, the last ones go.
pub fn fit(columns: &[Column], expendable: &[usize], room: usize, gap: usize) -> Vec<Option<usize>> {
    let mut widths: Vec<_> = columns.iter().map(|column| Some(column.width)).collect();
    shorten_columns(columns, &mut widths, room, gap, COMFORT);
    let last_ones = (1..columns.len()).rev();
    for dropped in expendable.iter().copied() {
        if taken(&widths, gap) <= room {
            break;
        }
        drop_column(&mut widths, dropped);
        // With more room than before, texts may be as long as they like again.
        restore(columns, &mut widths);
        shorten_columns(columns, &mut widths, room, gap, COMFORT);
    }
    shorten_columns(columns, &mut widths, room, gap, LEAST);
    for dropped in last_ones {
        if taken(&widths, gap) <= room {
            break;
        }
        drop_column(&mut widths, dropped);
    }
    if let Some(Some(first)) = widths.first_mut() {
        *first = (*first).min(room);
    }
    widths
}

/// `text` in at most `width` columns of the terminal, with an ellipsis where something is left out.
pub fn shorten(text: &str, kind: Kind, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let Some(room) = width.checked_sub(1) else { return String::new() };
    let end = match kind {
        Kind::Name => room / 2,
        Kind::Number | Kind::Prose => 0,
    };
    let head = taking(text.chars(), room - end);
    let tail: String = taking(text.chars().rev(), end).chars().rev().collect();
    format!("{head}…{tail}")
}

/// Columns of the terminal that `text` takes.
pub fn width(text: &str) -> usize {
    text.width()
}

fn taking(chars: impl Iterator<Item = char>, room: usize) -> String {
    let mut left = room;
    let fits = |c: &char| {
        let fits = left.checked_sub(c.width().unwrap_or(0));
        left = fits.unwrap_or(0);
        fits.is_some()
    };
    chars.take_while(fits).collect()
}

/// Takes from the widest text, time and again, until all fits or none is wider than `least`.
fn shorten_columns(columns: &[Column], widths: &mut [Option<usize>], room: usize, gap: usize, least: usize) {
    while taken(widths, gap) > room {
        let may = |(at, width): (usize, &Option<usize>)| {
            let kind = columns.get(at)?.kind;
            width.filter(|width| kind != Kind::Number && *width > least).map(|width| (width, at))
        };
        let Some((width, at)) = widths.iter().enumerate().filter_map(may).max() else { return };
        if let Some(slot) = widths.get_mut(at) {
            *slot = Some(width - 1);
        }
    }
}

fn restore(columns: &[Column], widths: &mut [Option<usize>]) {
    for (width, column) in widths.iter_mut().zip(columns) {
        *width = width.map(|_| column.width);
    }
}

fn drop_column(widths: &mut [Option<usize>], at: usize) {
    if let Some(width) = widths.get_mut(at) {
        *width = None;
    }
}

fn taken(widths: &[Option<usize>], gap: usize) -> usize {
    let shown: Vec<_> = widths.iter().flatten().collect();
    shown.iter().copied().sum::<usize>() + gap * shown.len().saturating_sub(1)
}

/// What a text is left while there are columns to drop.
const COMFORT: usize = 20;
/// What a text is left in any case.
const LEAST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column { kind: Kind::Name, width: 30 },
        Column { kind: Kind::Prose, width: 40 },
        Column { kind: Kind::Number, width: 12 },
        Column { kind: Kind::Number, width: 12 },
    ];

    fn widths(room: usize) -> Vec<Option<usize>> {
        fit(&COLUMNS, &[2, 3], room, 2)
    }

    #[test]
    fn texts_give_way_before_columns_do_and_numbers_are_whole_or_gone() {
        let cases = [
            (200, [Some(30), Some(40), Some(12), Some(12)]),
            (100, [Some(30), Some(40), Some(12), Some(12)]),
            (90, [Some(30), Some(30), Some(12), Some(12)]),
            (70, [Some(20), Some(20), Some(12), Some(12)]),
            (69, [Some(27), Some(26), None, Some(12)]),
            (55, [Some(27), Some(26), None, None]),
            (30, [Some(14), Some(14), None, None]),
            (16, [Some(8), None, None, None]),
            (5, [Some(5), None, None, None]),
        ];
        for (room, expected) in cases {
            let found = widths(room);
            assert!(taken(&found, 2) <= room, "{room}: {found:?}");
            assert_eq!(found, expected, "{room}");
        }
    }

    #[test]
    fn names_lose_their_middle_and_words_their_end() {
        for (text, kind, width, expected) in [
            ("web-1", Kind::Name, 5, "web-1"),
            ("payments-12", Kind::Name, 8, "paym…-12"),
            ("connection refused", Kind::Prose, 8, "connect…"),
            ("日本語", Kind::Prose, 5, "日本…"),
            ("日本語", Kind::Prose, 4, "日…"),
            ("abc", Kind::Name, 1, "…"),
            ("abc", Kind::Name, 0, ""),
        ] {
            assert_eq!(shorten(text, kind, width), expected);
        }
    }
}
