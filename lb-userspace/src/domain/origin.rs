use std::{fmt, path::PathBuf, sync::Arc};

use super::DnsName;

/// Where an object comes from, which decides what may change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Declared in the configuration file at this line (counted from 1).
    File { path: Arc<PathBuf>, line: u32 },
    /// Made over the API, and kept in the state directory.
    Cli,
    /// Agreed on by the fleet, and kept in etcd.
    Fleet,
    /// Found in a watched file of backends, at this line.
    Watched { path: Arc<PathBuf>, line: u32 },
    /// Found under this name in the DNS.
    Dns(DnsName),
}

impl Origin {
    /// Whether the API makes and removes such.
    pub const fn is_made(&self) -> bool {
        matches!(self, Self::Cli | Self::Fleet)
    }

    /// Whether it is there because it was found, and not because somebody said so one by one.
    pub const fn is_found(&self) -> bool {
        matches!(self, Self::Watched { .. } | Self::Dns(_))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } | Self::Watched { path, line } => {
                write!(f, "{}:{line}", path.display())
            }
            Self::Cli => f.write_str("cli"),
            Self::Fleet => f.write_str("fleet"),
            Self::Dns(name) => write!(f, "dns {name}"),
        }
    }
}
