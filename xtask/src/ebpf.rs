//! How eBPF crates are built.
//!
//! aya-build would do most of this, but can't pass `-Ctarget-cpu=v3`, without which the compiler emits 64-bit
//! arithmetic only and the hash costs twice as much.
//!
//! This file uses only `std` and `toolchain.rs`: the build script of `lb-userspace` includes both, so that the program
//! that is measured is built like the program that ships.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::toolchain::{TOOLCHAIN_VAR, Toolchain};

/// One object to build.
pub(crate) struct Build<'a> {
    pub(crate) package: &'a str,
    pub(crate) features: &'a [&'a str],
    pub(crate) workspace: &'a Path,
    /// Not the usual target directory: a cargo that runs a build script holds the lock of that.
    pub(crate) target_dir: &'a Path,
    /// The host's, by which aya-ebpf chooses the layout of registers.
    pub(crate) arch: &'a str,
}

impl Build<'_> {
    /// Builds the object; returns where it is and what the compiler warned of.
    ///
    /// # Errors
    ///
    /// What to tell the user.
    pub(crate) fn run(&self, toolchain: &Toolchain) -> Result<(PathBuf, Vec<String>), String> {
        let mut cargo = self.command(toolchain);
        let output = cargo.output().map_err(|error| format!("could not start {cargo:?}: {error}"))?;
        let diagnostics = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!(
                "Building the eBPF program with {toolchain} failed ({}):\n\n{diagnostics}\n\
                 If a tool is missing (bpf-linker, the sources of `core`), `cargo xtask setup` installs it.",
                output.status
            ));
        }
        // The compiler parts its messages by empty lines.
        let warnings = diagnostics.split("\n\n").filter(|message| !message.contains(EXPECTED_WARNING));
        let object = self.target_dir.join(TARGET).join("release").join(self.package);
        Ok((object, warnings.flat_map(str::lines).map(str::to_owned).collect()))
    }

    fn command(&self, toolchain: &Toolchain) -> Command {
        let mut flags = vec![
            format!("--cfg=bpf_target_arch=\"{}\"", self.arch),
            // BTF maps are described in BTF, which bpf-linker makes from the debug information.
            "-Cdebuginfo=2".into(),
            "-Clink-arg=--btf".into(),
            // 32-bit jumps and arithmetic; in every kernel since 5.1.
            "-Ctarget-cpu=v3".into(),
            // Header fields sit at odd offsets. Without this the compiler reads them byte by byte; the kernel runs on
            // machines that don't mind.
            "-Ctarget-feature=+allows-misaligned-mem-access".into(),
        ];
        // BTF names sources.
        flags.extend(remappings(self.workspace));
        flags.extend(toolchain.sysroot().map(|sysroot| remap(&sysroot.join("lib/rustlib/src/rust"), "rust")));
        let mut cargo = toolchain.command("cargo");
        cargo.args(["build", "--quiet", "--package", self.package, "--bins", "--release"]);
        cargo.args(["--target", TARGET, "-Z", "build-std=core"]);
        cargo.arg("--target-dir").arg(self.target_dir);
        if !self.features.is_empty() {
            cargo.arg("--features").arg(self.features.join(","));
        }
        if self.workspace.join("Cargo.lock").is_file() {
            cargo.arg("--locked");
        }
        cargo
            .current_dir(self.workspace)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        cargo
    }
}

/// Flags by which the same sources make the same bytes wherever they lie, and name no place of this machine.
pub(crate) fn remappings(workspace: &Path) -> Vec<String> {
    let mut flags = vec![remap(workspace, "ballast")];
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    // Where there is none, sources come from the workspace.
    let registries = home.and_then(|home| home.join("registry/src").read_dir().ok());
    flags
        .extend(registries.into_iter().flatten().flatten().map(|registry| remap(&registry.path(), "crates")));
    flags
}

fn remap(from: &Path, to: &str) -> String {
    format!("--remap-path-prefix={}={to}", from.display())
}

/// Finds a toolchain that can build eBPF crates, for those who can't install one.
///
/// # Errors
///
/// What to tell the user.
#[allow(dead_code, reason = "xtask has `setup` for this")]
pub(crate) fn toolchain() -> Result<Toolchain, String> {
    Toolchain::find().map_err(|tried| {
        let tried: Vec<_> = tried.iter().map(ToString::to_string).collect();
        format!(
            "No toolchain here can build the eBPF program. Looked for the sources of `core` in: {}.\n\
             Run `cargo xtask setup`, or name a rustup toolchain that has the rust-src component in {TOOLCHAIN_VAR}.",
            tried.join(", ")
        )
    })
}

const TARGET: &str = "bpfel-unknown-none";
/// That a target feature we ask for is not stable: known, and no reason for a warning at every build.
const EXPECTED_WARNING: &str =
    "unstable feature specified for `-Ctarget-feature`: `allows-misaligned-mem-access`";
