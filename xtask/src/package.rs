//! `cargo xtask package`: a .deb and a tarball. What is in them is in the library's `packaging/`, which the tests use, too.

mod linked;
mod third_party;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use xtask::packaging::{Effort, Package, TOOLS};

use crate::{
    apt::Apt,
    build, cargo, ebpf,
    process::{self, say},
    setup, toolchain,
};

/// How the program finds the C library.
#[derive(Clone, Copy)]
enum Linking {
    /// The distribution's, with its security updates.
    Dynamic,
    /// Inside: it runs on whatever kernel is new enough. Nothing here asks for names of users or hosts by the C library, which
    /// is what that can't do.
    Static,
}

pub(crate) fn run() -> Result<()> {
    setup::ready()?;
    install_tools()?;
    let triple = triple()?;
    let metadata = metadata(&triple)?;
    let directory = target_directory(&metadata)?.join("package");
    fs::create_dir_all(&directory).with_context(|| format!("could not make {}", directory.display()))?;
    let package = |linking| {
        Ok::<_, anyhow::Error>(Package {
            program: program(linking, &triple, &directory)?,
            workspace: cargo::workspace().to_owned(),
            version: version(&metadata)?,
            epoch: epoch()?,
            third_party: third_party::list(&metadata)? + &linked::list(linking)?,
            effort: Effort::Best,
        })
    };
    let deb = package(Linking::Dynamic)?.deb(&directory)?;
    examine(&deb)?;
    let tarball = package(Linking::Static)?.tarball(&directory)?;
    for made in [deb, tarball] {
        println!("{}", made.display());
    }
    Ok(())
}

fn install_tools() -> Result<()> {
    let apt = Apt::find();
    // Who makes packages elsewhere does without what only Debian has.
    let checker = apt.is_some().then_some(CHECKER);
    let missing = |(program, _): &(&str, &str)| toolchain::find_program(program).is_none();
    let (programs, packages): (Vec<_>, Vec<_>) = TOOLS.into_iter().chain(checker).filter(missing).unzip();
    match apt {
        _ if programs.is_empty() => Ok(()),
        Some(mut apt) => apt.install(&packages.into_iter().map(str::to_owned).collect::<Vec<_>>()),
        None => bail!("packages are made with {}: install them first", programs.join(", ")),
    }
}

/// Builds the program, and copies it to where the next build leaves it alone.
fn program(linking: Linking, triple: &str, directory: &Path) -> Result<PathBuf> {
    // Of the program's own crate alone: what it is linked with is the same either way, and built once.
    let (name, flags): (_, &[_]) = match linking {
        Linking::Dynamic => ("ballast.dynamic", &["-Ctarget-feature=-crt-static"]),
        Linking::Static => ("ballast.static", &["-Ctarget-feature=+crt-static"]),
    };
    let mut command = cargo::command("rustc");
    // With a target, so that flags are not those of what runs while it is built.
    command.args(["--release", "--package", build::PACKAGE, "--bin", build::BINARY, "--target", triple]);
    command
        .env("CARGO_ENCODED_RUSTFLAGS", ebpf::remappings(cargo::workspace()).join("\x1f"))
        .env_remove("RUSTFLAGS");
    let built = cargo::build_with(&mut command, flags)?;
    let program = directory.join(name);
    fs::copy(cargo::binary(&built, build::BINARY)?, &program)
        .with_context(|| format!("could not write {}", program.display()))?;
    Ok(program)
}

/// This machine, as the compiler calls it.
fn triple() -> Result<String> {
    let version = process::output(Command::new("rustc").arg("-vV").env("PATH", toolchain::path()));
    let host = version.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("host: ")));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}

fn metadata(triple: &str) -> Result<Value> {
    let mut command = cargo::command("metadata");
    command.args(["--format-version=1", "--locked", "--filter-platform", triple]);
    let printed = process::output(&mut command).context("`cargo metadata` failed")?;
    serde_json::from_str(&printed).context("`cargo metadata` printed no JSON")
}

fn target_directory(metadata: &Value) -> Result<PathBuf> {
    Ok(metadata["target_directory"].as_str().context("cargo names no target directory")?.into())
}

fn version(metadata: &Value) -> Result<String> {
    let packages = metadata["packages"].as_array().context("cargo names no packages")?;
    let own = packages.iter().find(|package| package["name"] == build::PACKAGE);
    Ok(own.and_then(|own| own["version"].as_str()).context("cargo names no version")?.to_owned())
}

/// When the sources were what they are.
fn epoch() -> Result<u64> {
    let given = env::var("SOURCE_DATE_EPOCH").ok();
    let committed = || {
        let mut git = Command::new("git");
        git.args(["log", "-1", "--format=%ct"]).current_dir(cargo::workspace());
        process::output(&mut git)
    };
    let seconds = given.or_else(committed).context("this is no git repository: set SOURCE_DATE_EPOCH")?;
    seconds.trim().parse().with_context(|| format!("`{}` is no number of seconds", seconds.trim()))
}

/// Debian's checker of packages, and the package that it comes in.
const CHECKER: (&str, &str) = ("lintian", "lintian");

/// What Debian would find wrong, but for what `packaging/debian/lintian-overrides` gives a reason for, is an error.
fn examine(deb: &Path) -> Result<()> {
    if toolchain::find_program(CHECKER.0).is_none() {
        say("lintian is not installed: the package is not checked against Debian's policy");
        return Ok(());
    }
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--allow-root"]).arg(deb);
    say(process::shown(&lintian));
    process::run(&mut lintian)
}
