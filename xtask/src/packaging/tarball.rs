//! The archive for systems without dpkg.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    Effort, Package,
    contents::{self, Layout},
    run,
    tree::Tree,
};

const LAYOUT: Layout = Layout { zsh: "usr/share/zsh/site-functions", documentation: "usr/share/doc/ballast" };
/// What one looks for first, beside what is to be copied to `/`.
const ON_TOP: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];

pub(super) fn make(package: &Package, directory: &Path) -> Result<PathBuf> {
    let name = format!("ballast-{}-{}", package.version, env::consts::ARCH);
    let tree = Tree::create(directory.join(&name))?;
    contents::lay_out(package, &tree, &LAYOUT)?;
    for file in ON_TOP {
        tree.copy(&package.source(file), file)?;
    }
    tree.copy(&package.source("docs/install.md"), "INSTALL.md")?;

    let path = directory.join(format!("{name}.tar.xz"));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    tar.arg(format!("--mtime=@{}", package.epoch)).arg("--directory").arg(directory).arg(&name);
    let archive = run::output(&mut tar)?;
    let level = if package.effort == Effort::Best { "-6" } else { "-0" };
    let compressed = run::filter(Command::new("xz").args(["--threads=1", "--stdout", level]), &archive)?;
    fs::write(&path, compressed).with_context(|| format!("could not write {}", path.display()))?;
    fs::remove_dir_all(tree.root()).context("could not remove what was packed")?;
    Ok(path)
}
