use std::{fmt, path::PathBuf, sync::Arc};

/// Where an object comes from, which decides what may change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Declared in the configuration file at this line (counted from 1).
    File { path: Arc<PathBuf>, line: u32 },
    /// Made over the API, and kept in the state directory.
    Cli,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Cli => f.write_str("cli"),
        }
    }
}
