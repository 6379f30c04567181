//! bpf-linker, which turns the compiler's LLVM bitcode into a BPF object.
//!
//! It has to be built against the LLVM that the eBPF toolchain uses, or a newer one: bitcode isn't readable backwards.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::Apt,
    process::{self, say},
    toolchain::{self, Toolchain},
};

const VERSION: &str = "0.13.0";
/// What links against LLVM needs its development files, and those need these.
const LIBRARIES: [&str; 4] = ["g++", "pkg-config", "zlib1g-dev", "libzstd-dev"];

/// Whether there is a bpf-linker that starts; one that doesn't lacks the LLVM it was built for.
pub(crate) fn works() -> bool {
    let Some(linker) = toolchain::find_program("bpf-linker") else {
        return false;
    };
    let mut command = Command::new(linker);
    toolchain::clean_env(&mut command);
    process::output(command.arg("--version")).is_some()
}

/// The major version of the LLVM in a toolchain.
pub(crate) fn llvm_of(toolchain: &Toolchain) -> Result<u32> {
    let version = process::output(toolchain.command("rustc").arg("-vV"))
        .with_context(|| format!("{toolchain} does not run: `rustc -vV` failed"))?;
    llvm_major(&version).with_context(|| format!("{toolchain} names no LLVM version in `rustc -vV`"))
}

/// The Debian package with the development files of an LLVM.
pub(crate) fn llvm_package(llvm: u32) -> String {
    format!("llvm-{llvm}-dev")
}

/// Builds and installs bpf-linker for the LLVM of `toolchain`.
pub(crate) fn install(toolchain: &Toolchain, apt: Option<&mut Apt>) -> Result<()> {
    let llvm = llvm_of(toolchain)?;
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let feature = format!("llvm-{llvm}");
    let install =
        ["install", "bpf-linker", "--version", VERSION, "--no-default-features", "--features", &feature];
    let Some(apt) = apt else {
        bail!(
            "bpf-linker is missing. Install the development files of LLVM {llvm}, then run\n  \
             LLVM_PREFIX=<where they are> cargo {}",
            install.join(" ")
        );
    };

    let mut packages: Vec<_> = LIBRARIES.map(str::to_owned).into();
    packages.extend([llvm_package(llvm), format!("libpolly-{llvm}-dev")]);
    apt.install(&packages)?;
    say(format!("building bpf-linker {VERSION} for LLVM {llvm} (about a minute)"));
    let mut cargo = toolchain.command("cargo");
    // --force: a bpf-linker that doesn't start counts as installed for cargo.
    cargo.args(install).args(["--locked", "--force"]).env("LLVM_PREFIX", &prefix).current_dir(Path::new("/"));
    process::run(&mut cargo).context("could not install bpf-linker")?;
    if !works() {
        bail!("bpf-linker was installed and does not start: run `bpf-linker --version` to see why");
    }
    Ok(())
}

fn llvm_major(version: &str) -> Option<u32> {
    let version = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_version_is_read_from_rustc() {
        let version = "rustc 1.96.0\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(version), Some(22));
        assert_eq!(llvm_major("release: 1.96.0\nLLVM version: 23"), Some(23));
        assert_eq!(llvm_major("release: 1.96.0\n"), None);
    }
}
