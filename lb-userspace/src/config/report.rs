use std::{ops::Range, path::Path, path::PathBuf};

use toml::{Spanned, de::DeTable};

use super::{
    diagnostic::{Diagnostic, Diagnostics, Position, Severity},
    lines::Lines,
    secrets::{self, HIDDEN},
};

/// A file's text with its lines.
pub(super) struct Source {
    path: PathBuf,
    text: String,
    lines: Lines,
}

/// Where something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Index of the source.
    pub(super) file: usize,
    /// Bytes.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// What is wrong with a value, without the place.
#[derive(Debug)]
pub(super) struct Wrong {
    message: String,
    label: String,
    help: Option<String>,
}

/// Collects what is wrong while the files are read.
pub(super) struct Report<'s> {
    sources: &'s [Source],
    errors: Vec<(Place, Wrong)>,
    warnings: Vec<(Place, Wrong)>,
}

impl Source {
    pub(super) fn new(path: PathBuf, text: String) -> Self {
        let lines = Lines::of(&text);
        Self { path, text, lines }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The text as a tree. What is wrong with its syntax is reported; `file` is the source's index.
    pub(super) fn document(&self, file: usize, report: &mut Report<'_>) -> Spanned<DeTable<'_>> {
        let (document, errors) = DeTable::parse_recoverable(&self.text);
        errors.iter().for_each(|error| report.syntax(file, error));
        document
    }

    /// Number of the line that byte `at` is in, counted from 1.
    pub(super) fn line(&self, at: usize) -> u32 {
        self.lines.find(at).0
    }

    pub(super) fn diagnostic(&self, span: Range<usize>, message: &str, label: &str) -> Diagnostic {
        let wrong = Wrong::new(message, label);
        self.render(Severity::Error, span, wrong)
    }

    fn render(&self, severity: Severity, span: Range<usize>, wrong: Wrong) -> Diagnostic {
        let Wrong { message, label, help } = wrong;
        let position = Some(self.position(span));
        Diagnostic { severity, message, file: self.path.clone(), position, label, help }
    }

    fn position(&self, span: Range<usize>) -> Position {
        let (line, line_start) = self.lines.find(span.start);
        let above = &self.text[self.lines.beginning(&self.text, line_start)..line_start];
        let text = self.text[line_start..].lines().next().unwrap_or_default();
        let before = |at: usize| text.char_indices().take_while(|(index, _)| line_start + index < at).count();
        let (start, end) = (before(span.start), before(span.end));
        let column = u32::try_from(start + 1).unwrap_or(u32::MAX);
        let (text, [start, end]) = without_secrets(above, text, [start, end]);
        // A long line is shown around the place only.
        let skipped = start.saturating_sub(MAX_SHOWN / 2);
        let shown: String = text.chars().skip(skipped).take(MAX_SHOWN).map(printable).collect();
        let length = end.saturating_sub(start).clamp(1, MAX_SHOWN / 2);
        Position { line, column, text: shown.trim_end().to_owned(), mark: (start - skipped, length) }
    }
}

impl<T> At<T> {
    pub(super) fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }
}

impl Wrong {
    /// In a line, without help.
    pub(super) fn told(&self) -> String {
        format!("{}: {}", self.message, self.label)
    }

    pub(super) fn new(message: impl Into<String>, label: impl Into<String>) -> Self {
        Self { message: message.into(), label: label.into(), help: None }
    }

    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl<'s> Report<'s> {
    pub(super) fn new(sources: &'s [Source]) -> Self {
        Self { sources, errors: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn error(&mut self, place: Place, wrong: Wrong) {
        self.errors.push((place, wrong));
    }

    pub(super) fn warning(&mut self, place: Place, wrong: Wrong) {
        self.warnings.push((place, wrong));
    }

    /// Passes on what is right and reports what is wrong.
    pub(super) fn accept<T>(&mut self, place: Place, value: Result<T, Wrong>) -> Option<At<T>> {
        match value {
            Ok(value) => Some(At::new(value, place)),
            Err(wrong) => {
                self.error(place, wrong);
                None
            }
        }
    }

    pub(super) fn syntax(&mut self, file: usize, error: &toml::de::Error) {
        let span = error.span().unwrap_or(0..0);
        let mut lines = error.message().lines();
        let wrong = Wrong::new(lines.next().unwrap_or("this is not TOML"), "here the TOML syntax is broken");
        let rest = lines.collect::<Vec<_>>().join("; ");
        let wrong = if rest.is_empty() { wrong } else { wrong.help(rest) };
        self.error(Place { file, start: span.start, end: span.end }, wrong);
    }

    /// `file:line:column` of a place, for a message about another.
    pub(super) fn locate(&self, place: Place) -> String {
        let Some(source) = self.sources.get(place.file) else { return String::new() };
        let position = source.position(place.start..place.end);
        format!("{}:{}:{}", source.path.display(), position.line, position.column)
    }

    pub(super) fn stop_at_errors(&mut self) -> Result<(), Diagnostics> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let errors = std::mem::take(&mut self.errors);
        Err(self.render(Severity::Error, errors))
    }

    /// The warnings.
    ///
    /// # Errors
    ///
    /// The errors, if there are any.
    pub(super) fn finish(mut self) -> Result<Diagnostics, Diagnostics> {
        self.stop_at_errors()?;
        let warnings = std::mem::take(&mut self.warnings);
        Ok(self.render(Severity::Warning, warnings))
    }

    fn render(&self, severity: Severity, mut all: Vec<(Place, Wrong)>) -> Diagnostics {
        all.sort_by_key(|(place, _)| *place);
        let more = all.len().saturating_sub(MAX_KEPT);
        all.truncate(MAX_KEPT);
        let render = |(place, wrong): (Place, Wrong)| {
            Some(self.sources.get(place.file)?.render(severity, place.start..place.end, wrong))
        };
        Diagnostics::new(all.into_iter().filter_map(render).collect(), more)
    }
}

/// A line without what may be secret in it, and where its characters `places` are then. `above`: what the line goes on with.
fn without_secrets<const N: usize>(above: &str, line: &str, places: [usize; N]) -> (String, [usize; N]) {
    let secrets = secrets::of_line(above, line);
    let line: Vec<char> = line.chars().collect();
    let mut shown: Vec<(usize, char)> = Vec::new();
    let mut at = 0;
    for secret in &secrets {
        shown.extend((at..secret.start).zip(line[at..secret.start].iter().copied()));
        shown.extend(HIDDEN.chars().map(|c| (secret.start, c)));
        at = secret.end;
    }
    shown.extend((at..).zip(line[at..].iter().copied()));
    let moved = |place: usize| {
        // The middle of a secret is its end.
        let inside = |secret: &&Range<usize>| secret.start < place && place < secret.end;
        let place = secrets.iter().find(inside).map_or(place, |secret| secret.end);
        shown.partition_point(|(original, _)| *original < place)
    };
    (shown.iter().map(|(_, c)| *c).collect(), places.map(moved))
}

/// One character for one, and none that a terminal would obey.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// Nobody reads further, and a hostile file could hold millions.
const MAX_KEPT: usize = 100;

/// Characters of a line that are shown.
const MAX_SHOWN: usize = 160;
