//! Sections and their lines. Each proxy has those of its `defaults` first.

use super::{Error, Notes, lacking, words};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: usize,
    /// As it stands there, without spaces around it.
    pub(super) text: String,
    /// One at least.
    pub(super) words: Vec<String>,
}

impl Line {
    pub(super) fn word(&self, number: usize) -> &str {
        self.words.get(number).map_or("", String::as_str)
    }
}

/// Of a `frontend`, `backend` or `listen`.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) head: Line,
    pub(super) lines: Vec<Line>,
}

/// What a line belongs to.
enum Place {
    Nothing,
    Global,
    Defaults(usize),
    Proxy(usize),
    /// A section of which nothing is of use.
    Other,
}

/// A `defaults` section: its name, and its lines.
type Defaults = (String, Vec<Line>);

pub(super) fn read(text: &str, notes: &mut Notes) -> Result<Vec<Section>, Error> {
    let mut sections: Vec<(Option<usize>, Section)> = Vec::new();
    let mut defaults: Vec<Defaults> = Vec::new();
    let mut place = Place::Nothing;
    for (number, text) in (1..).zip(text.lines()) {
        let words = words::words(text).ok_or(Error::Quotation { line: number })?;
        if words.is_empty() {
            continue;
        }
        let line = Line { number, text: text.trim().to_owned(), words };
        place = match line.word(0) {
            "global" => Place::Global,
            "defaults" => {
                defaults.push((line.word(1).to_owned(), Vec::new()));
                Place::Defaults(defaults.len() - 1)
            }
            "frontend" | "backend" | "listen" => {
                let from = named_defaults(&line, &defaults);
                sections.push((from, Section { head: line, lines: Vec::new() }));
                Place::Proxy(sections.len() - 1)
            }
            word if lacking::SECTIONS.contains(&word) && is_at_the_margin(text) => {
                notes.add(&line, "a section like this, and what is in it, has no equal");
                Place::Other
            }
            _ => {
                match place {
                    Place::Global => notes.add(&line, "it is about HAProxy's own process"),
                    Place::Defaults(number) => defaults[number].1.push(line),
                    Place::Proxy(number) => sections[number].1.lines.push(line),
                    Place::Nothing => notes.add(&line, "it stands in no section"),
                    Place::Other => {}
                }
                continue;
            }
        };
    }
    let with_defaults = |(from, section): (Option<usize>, Section)| {
        let inherited = from.and_then(|from| defaults.get(from)).map(|(_, lines)| lines.clone());
        let lines = inherited.unwrap_or_default().into_iter().chain(section.lines).collect();
        Section { lines, ..section }
    };
    Ok(sections.into_iter().map(with_defaults).collect())
}

/// Words like `cache` are keywords within a section, too.
fn is_at_the_margin(text: &str) -> bool {
    !text.starts_with(char::is_whitespace)
}

/// Those that the section names (`frontend web from tcp`), else the last ones before it.
fn named_defaults(head: &Line, defaults: &[Defaults]) -> Option<usize> {
    match head.word(2) {
        "from" => defaults.iter().position(|(name, _)| name == head.word(3)),
        _ => defaults.len().checked_sub(1),
    }
}
