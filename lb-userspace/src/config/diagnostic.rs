use std::{
    fmt,
    path::{Path, PathBuf},
};

/// One thing wrong (or doubtful) in a file: where, what, and what is allowed instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    pub file: PathBuf,
    /// `None` where the file as a whole is at fault.
    pub position: Option<Position>,
    /// What is allowed, shown below the place.
    pub label: String,
    /// Anything more that helps.
    pub help: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// A place in a file, and the text that stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Counted from 1.
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
    /// The line, or the part of a long one around the place, fit for a terminal.
    pub text: String,
    /// Where the marked part of `text` starts, and its length, in characters.
    pub mark: (usize, usize),
}

/// Everything wrong with a configuration, in the order of files and lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    all: Vec<Diagnostic>,
    /// Found beyond those kept.
    more: usize,
}

impl Diagnostic {
    pub(super) fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            file: file.to_path_buf(),
            position: None,
            label: String::new(),
            help: None,
        }
    }
}

impl Diagnostics {
    pub(super) fn new(all: Vec<Diagnostic>, more: usize) -> Self {
        Self { all, more }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.all.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many were found; more than [`Self::iter`] yields where there were very many.
    pub fn count(&self) -> usize {
        self.all.len() + self.more
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self { all: vec![one], more: 0 }
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.all.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.fmt(f)?;
        }
        if self.more > 0 {
            write!(f, "\n\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity.as_str(), self.message)?;
        let file = self.file.display();
        let margin = match &self.position {
            None => {
                write!(f, "\n --> {file}")?;
                0
            }
            Some(Position { line, column, text, mark: (start, length) }) => {
                let margin = line.to_string().len();
                write!(f, "\n{:margin$}--> {file}:{line}:{column}", "")?;
                write!(f, "\n{:margin$} |\n{line} | {text}", "")?;
                write!(f, "\n{:margin$} | {:start$}{:^>length$}", "", "", "")?;
                if !self.label.is_empty() {
                    write!(f, " {}", self.label)?;
                }
                margin
            }
        };
        if let Some(help) = &self.help {
            write!(f, "\n{:margin$} = {help}", "")?;
        }
        Ok(())
    }
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}
