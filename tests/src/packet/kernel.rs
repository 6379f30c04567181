//! The kernel that runs the tests.

use std::fmt;

use anyhow::{Context, Result};
use nix::sys::utsname::uname;

/// A series of kernels, such as 6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    pub major: u32,
    pub minor: u32,
}

impl Series {
    /// The running kernel's.
    pub fn running() -> Result<Self> {
        let system = uname().context("ask for the kernel's release")?;
        let release = system.release().to_string_lossy();
        Self::of(&release).with_context(|| format!("understand the kernel's release {release:?}"))
    }

    fn of(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_its_series() {
        for release in ["6.12.117+deb12-amd64", "6.12-rc1", "6.12"] {
            assert_eq!(Series::of(release), Some(Series { major: 6, minor: 12 }), "{release}");
        }
        assert_eq!(Series::of("6"), None);
        assert_eq!(Series::of("next-20260101"), None);
    }

    #[test]
    fn series_are_ordered_by_number() {
        assert!(Series { major: 6, minor: 1 } < Series { major: 6, minor: 12 });
        assert!(Series { major: 5, minor: 15 } < Series { major: 6, minor: 1 });
    }
}
