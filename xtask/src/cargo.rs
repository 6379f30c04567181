//! The cargo that runs us, and what it built.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{process, toolchain};

/// One executable of a finished build.
pub(crate) struct Executable {
    /// The name of the package it belongs to.
    pub(crate) package: String,
    /// The name of the binary or the test.
    pub(crate) target: String,
    pub(crate) path: PathBuf,
    /// The directory that cargo runs its tests in.
    pub(crate) package_dir: PathBuf,
    /// Whether it is a test runner.
    pub(crate) is_test: bool,
}

/// The cargo that runs us, in the workspace.
pub(crate) fn command(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The linkers that the build needs may lie where only cargo's own path leads.
    command.arg(subcommand).current_dir(workspace()).env("PATH", toolchain::path());
    command
}

pub(crate) fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Runs a cargo command that builds, shows its progress, and returns the executables.
pub(crate) fn build(command: &mut Command) -> Result<Vec<Executable>> {
    build_with(command, &[])
}

/// The same of `cargo rustc`, with flags for the compiler of what is built last.
pub(crate) fn build_with(command: &mut Command, flags: &[&str]) -> Result<Vec<Executable>> {
    process::say(process::shown(command));
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    if !flags.is_empty() {
        command.arg("--").args(flags);
    }
    let mut child = command.spawn().context("could not start cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut executables = Vec::new();
    for line in BufReader::new(stdout).lines() {
        executables.extend(executable(&line.context("could not read what cargo built")?));
    }
    let status = child.wait().context("could not wait for cargo")?;
    if !status.success() {
        bail!("the build failed ({status}); what the compiler said is above");
    }
    Ok(executables)
}

/// The path of one binary.
pub(crate) fn binary<'a>(executables: &'a [Executable], target: &str) -> Result<&'a Path> {
    let found = executables.iter().find(|executable| executable.target == target && !executable.is_test);
    Ok(&found.with_context(|| format!("cargo built no binary `{target}`"))?.path)
}

fn executable(message: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(message).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let package_dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    Some(Executable {
        path: text(&message["executable"])?.into(),
        target: text(&message["target"]["name"])?,
        package: package_name(message["package_id"].as_str()?)?,
        package_dir,
        is_test: message["profile"]["test"].as_bool()?,
    })
}

/// The package's name in an id such as `path+file:///src/lb-tests#0.1.0` or `path+file:///src/tests#lb-tests@0.1.0`.
fn package_name(id: &str) -> Option<String> {
    let (place, version) = id.rsplit_once('#')?;
    match version.rsplit_once('@') {
        Some((name, _)) => Some(name.into()),
        None => Some(place.rsplit_once('/')?.1.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_known_by_its_name_not_its_directory() {
        assert_eq!(package_name("path+file:///src/xtask#0.1.0").as_deref(), Some("xtask"));
        assert_eq!(package_name("path+file:///src/tests#lb-tests@0.1.0").as_deref(), Some("lb-tests"));
        assert_eq!(package_name("nonsense"), None);
    }

    #[test]
    fn only_artifacts_with_an_executable_are_taken() {
        let binary = r#"{"reason":"compiler-artifact","package_id":"path+file:///src/xtask#0.1.0",
            "manifest_path":"/src/xtask/Cargo.toml","target":{"name":"it"},"profile":{"test":false},
            "executable":"/src/target/debug/it"}"#;
        let found = executable(binary).expect("an executable");
        assert_eq!((found.target.as_str(), found.path.as_path()), ("it", Path::new("/src/target/debug/it")));
        assert_eq!(found.package_dir, Path::new("/src/xtask"));
        assert!(executable(&binary.replace("\"/src/target/debug/it\"", "null")).is_none());
        assert!(executable(r#"{"reason":"build-finished","success":true}"#).is_none());
        assert!(executable("   Compiling it").is_none());
    }
}
