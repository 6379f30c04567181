//! Builds the eBPF program and leaves its object in `$OUT_DIR/lb-ebpf`, where the loader embeds it from.
//!
//! aya-build would do most of this, but can't pass `-Ctarget-cpu=v3`, without which the compiler emits 64-bit
//! arithmetic only and the hash costs twice as much.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

#[allow(dead_code, reason = "xtask uses the rest")]
#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use toolchain::{TOOLCHAIN_VAR, Toolchain};

const PACKAGE: &str = "lb-ebpf";
const TARGET: &str = "bpfel-unknown-none";
/// That a target feature we ask for is not stable: known, and no reason for a warning at every build.
const EXPECTED_WARNING: &str =
    "unstable feature specified for `-Ctarget-feature`: `allows-misaligned-mem-access`";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Cargo shows this stream when a build script fails.
            eprintln!("\n{message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let manifest_dir = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(var("OUT_DIR")?);
    let workspace = manifest_dir.parent().ok_or("the crate has to lie inside the workspace")?;
    if var("CARGO_CFG_TARGET_ENDIAN")? != "little" {
        return Err("Ballast runs on little-endian machines only: its object is built for bpfel".into());
    }

    let toolchain = Toolchain::find().map_err(|tried| {
        let tried: Vec<_> = tried.iter().map(ToString::to_string).collect();
        format!(
            "No toolchain here can build the eBPF program. Looked for the sources of `core` in: {}.\n\
             Run `cargo xtask setup`, or name a rustup toolchain that has the rust-src component in {TOOLCHAIN_VAR}.",
            tried.join(", ")
        )
    })?;
    watch(workspace, &toolchain);

    // One for all profiles, next to theirs: building `core` takes longer than the program. `OUT_DIR` is
    // `<target>/<profile>/build/<package>/out`.
    let target_dir = out_dir.ancestors().nth(4).unwrap_or(&out_dir).join("ebpf");
    let mut cargo = command(&toolchain, workspace, &target_dir, &var("CARGO_CFG_TARGET_ARCH")?);
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
    for message in diagnostics.split("\n\n").filter(|message| !message.contains(EXPECTED_WARNING)) {
        message.lines().for_each(|line| println!("cargo::warning={line}"));
    }

    let object = target_dir.join(TARGET).join("release").join(PACKAGE);
    fs::copy(&object, out_dir.join(PACKAGE))
        .map_err(|error| format!("could not copy {} to {}: {error}", object.display(), out_dir.display()))?;
    Ok(())
}

fn command(toolchain: &Toolchain, workspace: &Path, target_dir: &Path, arch: &str) -> Command {
    let flags = [
        // aya-ebpf chooses the host's register layout by this.
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        // BTF maps are described in BTF, which bpf-linker makes from the debug information.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // 32-bit jumps and arithmetic; in every kernel since 5.1.
        "-Ctarget-cpu=v3".into(),
        // Header fields sit at odd offsets. Without this the compiler reads them byte by byte; the kernel runs on
        // machines that don't mind.
        "-Ctarget-feature=+allows-misaligned-mem-access".into(),
    ];
    let mut cargo = toolchain.command("cargo");
    cargo.args(["build", "--quiet", "--package", PACKAGE, "--bins", "--release"]);
    cargo.args(["--target", TARGET, "-Z", "build-std=core"]);
    // A target directory of its own: the cargo that runs this script holds the lock of the usual one.
    cargo.arg("--target-dir").arg(target_dir);
    if workspace.join("Cargo.lock").is_file() {
        cargo.arg("--locked");
    }
    cargo
        .current_dir(workspace)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo
}

/// Tells cargo what the object depends on.
fn watch(workspace: &Path, toolchain: &Toolchain) {
    println!("cargo::rerun-if-env-changed={TOOLCHAIN_VAR}");
    let sources = [
        "lb-ebpf/src",
        "lb-ebpf/Cargo.toml",
        "lb-common/src",
        "lb-common/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
    ];
    let build_script = Path::new("lb-ebpf/build.rs");
    let compiler = toolchain.sysroot().map(|sysroot| sysroot.join("bin/rustc"));
    for path in
        sources.iter().map(|path| workspace.join(path)).chain([workspace.join(build_script)]).chain(compiler)
    {
        // A path that isn't there would make cargo run this at every build.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}

fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}; cargo sets it for build scripts"))
}
