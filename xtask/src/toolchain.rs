//! Which Rust toolchain builds the eBPF program.
//!
//! The program needs `core` built from source, so a toolchain will do if its sysroot has the sources of `core`;
//! being a nightly is not needed (`RUSTC_BOOTSTRAP=1` is set for the build).
//!
//! This file uses only `std`: the build script of `lb-userspace` includes it, so that `cargo build` and
//! `cargo xtask setup` never disagree.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// Names the rustup toolchain to use, instead of looking for one.
pub(crate) const TOOLCHAIN_VAR: &str = "BALLAST_EBPF_TOOLCHAIN";
/// The rustup toolchain that `cargo xtask setup` links to the distribution's compiler.
pub(crate) const LINKED_NAME: &str = "ballast-ebpf";
/// Where a sysroot keeps the sources that `-Z build-std=core` builds.
const CORE_SOURCE: &str = "lib/rustlib/src/rust/library/core/src/lib.rs";

/// A compiler and cargo that can build the eBPF program, or might.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// A toolchain known to rustup by this name.
    Rustup(String),
    /// The `cargo` and `rustc` that are on the path of a machine without rustup.
    Plain,
}

impl Toolchain {
    /// Finds a toolchain that works.
    ///
    /// # Errors
    ///
    /// Returns the toolchains that were tried when none of them works.
    pub(crate) fn find() -> Result<Self, Vec<Self>> {
        let named = env::var(TOOLCHAIN_VAR).ok().filter(|name| !name.is_empty());
        let candidates = candidates(named.as_deref(), rustup().is_some());
        choose(&candidates, |toolchain| toolchain.has_core_source()).ok_or(candidates)
    }

    /// A command that runs this toolchain's `program`, free of what the calling cargo put into the environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = match (self, rustup()) {
            (Self::Rustup(name), Some(rustup)) => {
                let mut command = Command::new(rustup);
                command.args(["run", name, program]);
                command
            }
            (Self::Rustup(_), None) | (Self::Plain, _) => Command::new(beside_cargo(program)),
        };
        clean_env(&mut command);
        command
    }

    /// The compiler's sysroot; none if there is no such toolchain.
    pub(crate) fn sysroot(&self) -> Option<PathBuf> {
        let output = self.command("rustc").args(["--print", "sysroot"]).output().ok()?;
        let sysroot = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        (output.status.success() && sysroot.is_absolute()).then_some(sysroot)
    }

    fn has_core_source(&self) -> bool {
        self.sysroot().is_some_and(|sysroot| sysroot.join(CORE_SOURCE).is_file())
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup(name) => write!(f, "rustup toolchain `{name}`"),
            Self::Plain => write!(f, "the rustc and cargo on the path"),
        }
    }
}

/// What to try, best first. A toolchain that the user named is the only one.
fn candidates(named: Option<&str>, has_rustup: bool) -> Vec<Toolchain> {
    match (named, has_rustup) {
        (Some(name), true) => vec![Toolchain::Rustup(name.into())],
        (None, true) => [LINKED_NAME, "nightly"].map(|name| Toolchain::Rustup(name.into())).into(),
        (_, false) => vec![Toolchain::Plain],
    }
}

fn choose(candidates: &[Toolchain], works: impl Fn(&Toolchain) -> bool) -> Option<Toolchain> {
    candidates.iter().find(|candidate| works(candidate)).cloned()
}

/// Finds rustup on the path, or where it installs itself: sudo tends to shorten the path.
pub(crate) fn rustup() -> Option<PathBuf> {
    find_program("rustup")
}

/// Finds a program on [`path`].
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&path()).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The caller's path with cargo's directory for programs and the administrator's directories added: a path may well
/// lack the first (no rustup, or sudo) or the others (Debian's ordinary users).
pub(crate) fn path() -> OsString {
    let own = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let dirs = env::split_paths(&own)
        .chain(home.map(|home| home.join("bin")))
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    env::join_paths(dirs).unwrap_or(own)
}

/// The named program next to the running cargo, else whatever the path has.
fn beside_cargo(program: &str) -> PathBuf {
    env::var_os("CARGO")
        .and_then(|cargo| Some(Path::new(&cargo).parent()?.join(program)))
        .filter(|file| file.is_file())
        .unwrap_or_else(|| program.into())
}

/// Takes away what the calling cargo, rustup or clippy set for *their* compiler. Another toolchain that inherits it
/// runs the wrong rustc, loads the wrong LLVM or builds for the wrong target.
pub(crate) fn clean_env(command: &mut Command) {
    command.env("PATH", path());
    for (name, _) in env::vars_os().filter(|(name, _)| belongs_to_the_caller(name)) {
        command.env_remove(name);
    }
}

fn belongs_to_the_caller(name: &OsStr) -> bool {
    const NAMES: [&str; 11] = [
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "LD_LIBRARY_PATH",
        "RUSTC",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "RUSTUP_TOOLCHAIN_SOURCE",
    ];
    const PREFIXES: [&str; 3] = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_"];
    name.to_str()
        .is_some_and(|name| NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Toolchain {
        Toolchain::Rustup(name.into())
    }

    #[test]
    fn a_named_toolchain_is_never_replaced_by_another() {
        assert_eq!(candidates(Some("mine"), true), [named("mine")]);
        assert_eq!(choose(&candidates(Some("mine"), true), |toolchain| *toolchain == named("nightly")), None);
    }

    #[test]
    fn the_linked_toolchain_comes_before_nightly() {
        let candidates = candidates(None, true);
        assert_eq!(choose(&candidates, |_| true), Some(named(LINKED_NAME)));
        assert_eq!(choose(&candidates, |toolchain| *toolchain == named("nightly")), Some(named("nightly")));
        assert_eq!(choose(&candidates, |_| false), None);
    }

    #[test]
    fn without_rustup_the_compiler_on_the_path_is_used() {
        assert_eq!(candidates(None, false), [Toolchain::Plain]);
        assert_eq!(candidates(Some("mine"), false), [Toolchain::Plain]);
    }

    #[test]
    fn the_calling_cargos_compiler_does_not_leak() {
        for name in ["RUSTC", "LD_LIBRARY_PATH", "CARGO_TARGET_DIR", "CARGO_PROFILE_RELEASE_DEBUG"] {
            assert!(belongs_to_the_caller(OsStr::new(name)), "{name}");
        }
        for name in ["CARGO_HOME", "RUSTUP_HOME", "CARGO_MAKEFLAGS", "CARGO_NET_OFFLINE", "HOME"] {
            assert!(!belongs_to_the_caller(OsStr::new(name)), "{name}");
        }
    }
}
