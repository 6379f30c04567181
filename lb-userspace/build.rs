//! Builds the eBPF program and leaves its object in `$OUT_DIR/lb-ebpf`, where the loader embeds it from.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[allow(dead_code, reason = "xtask uses the rest")]
#[path = "../xtask/src/ebpf.rs"]
mod ebpf;
#[allow(dead_code, reason = "xtask uses the rest")]
#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use toolchain::{TOOLCHAIN_VAR, Toolchain};

const PACKAGE: &str = "lb-ebpf";

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

    let toolchain = ebpf::toolchain()?;
    watch(workspace, &toolchain);

    // One for all profiles, next to theirs: building `core` takes longer than the program. `OUT_DIR` is
    // `<target>/<profile>/build/<package>/out`.
    let target_dir = out_dir.ancestors().nth(4).unwrap_or(&out_dir).join("ebpf");
    let arch = var("CARGO_CFG_TARGET_ARCH")?;
    let build =
        ebpf::Build { package: PACKAGE, features: &[], workspace, target_dir: &target_dir, arch: &arch };
    let (object, warnings) = build.run(&toolchain)?;
    warnings.iter().for_each(|line| println!("cargo::warning={line}"));
    fs::copy(&object, out_dir.join(PACKAGE))
        .map_err(|error| format!("could not copy {} to {}: {error}", object.display(), out_dir.display()))?;
    Ok(())
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
