//! What the guest says on its serial line about the test suites it runs, between the lines of the suites themselves. The
//! guest's side is `tests/src/bin/kernel-guest`, which includes this file.

use std::fmt;

/// One of the guest's own lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Says<'a> {
    /// This suite starts.
    Begin(&'a str),
    /// The suite that began last has ended: well, or not.
    End { well: bool },
    /// A test was skipped: its name and the reason.
    Skipped(&'a str),
    /// All suites have run; nothing follows.
    Done,
}

const MARK: &str = "guest: ";

impl fmt::Display for Says<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(suite) => write!(f, "{MARK}begin {suite}"),
            Self::End { well: true } => write!(f, "{MARK}end well"),
            Self::End { well: false } => write!(f, "{MARK}end badly"),
            Self::Skipped(reason) => write!(f, "{MARK}skipped {reason}"),
            Self::Done => write!(f, "{MARK}done"),
        }
    }
}

impl<'a> Says<'a> {
    /// `None` for a line of a suite.
    pub(crate) fn read(line: &'a str) -> Option<Self> {
        let (word, rest) = line.strip_prefix(MARK)?.split_once(' ').unwrap_or((line.strip_prefix(MARK)?, ""));
        match (word, rest) {
            ("begin", suite) => Some(Self::Begin(suite)),
            ("end", how) => Some(Self::End { well: how == "well" }),
            ("skipped", reason) => Some(Self::Skipped(reason)),
            ("done", "") => Some(Self::Done),
            _ => None,
        }
    }
}
