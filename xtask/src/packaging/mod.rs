//! Packages: a .deb and a tarball of a program that is built already.

mod contents;
mod deb;
mod run;
mod tarball;
mod tree;

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// Debian packages with the programs that make one: `dpkg-shlibdeps`, `strip`, `dpkg-deb`.
pub const TOOLS: [(&str, &str); 3] =
    [("dpkg-shlibdeps", "dpkg-dev"), ("strip", "binutils"), ("dpkg-deb", "dpkg")];

/// What is packed.
#[derive(Clone, Debug)]
pub struct Package {
    /// The program. It also writes its own completions and man pages.
    pub program: PathBuf,
    /// Where the sources are.
    pub workspace: PathBuf,
    /// As in `Cargo.toml`.
    pub version: String,
    /// Seconds after 1970 that everything inside is dated: the commit's, so that it makes the same bytes every time.
    pub epoch: u64,
    /// Whose code is in the program, and the terms it is under.
    pub third_party: String,
    pub effort: Effort,
}

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// For shipping.
    Best,
    /// For trying out.
    Least,
}

impl Package {
    /// Makes `ballast_VERSION_ARCH.deb` in `directory`, with what lies under `directory/deb` on the way. Returns its path.
    ///
    /// # Errors
    ///
    /// A tool is missing or fails, or the program can't write its man pages.
    pub fn deb(&self, directory: &Path) -> Result<PathBuf> {
        deb::make(self, directory)
    }

    /// Makes `ballast-VERSION-MACHINE.tar.xz`: the same files, and README and licences. As [`Self::deb`].
    ///
    /// # Errors
    ///
    /// As [`Self::deb`].
    pub fn tarball(&self, directory: &Path) -> Result<PathBuf> {
        tarball::make(self, directory)
    }

    fn source(&self, path: &str) -> PathBuf {
        self.workspace.join(path)
    }
}

/// This machine's name in Debian.
#[must_use]
pub fn debian_architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
