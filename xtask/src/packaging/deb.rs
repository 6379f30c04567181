//! The Debian package, made by the distribution's dpkg-deb.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    Effort, Package,
    contents::{self, Layout, read},
    debian_architecture, run,
    tree::Tree,
};

const LAYOUT: Layout =
    Layout { zsh: "usr/share/zsh/vendor-completions", documentation: "usr/share/doc/ballast" };
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
/// The packaging's number of the version.
const REVISION: u32 = 1;

pub(super) fn make(package: &Package, directory: &Path) -> Result<PathBuf> {
    let tree = Tree::create(directory.join("deb"))?;
    contents::lay_out(package, &tree, &LAYOUT)?;
    // The daemon's configuration is the administrator's alone: an example that changed would have every upgrade ask.
    tree.directory("etc/ballast/conf.d")?;
    let version = format!("{}-{REVISION}", package.version);
    legal_and_changes(package, &tree, &version)?;

    let depends = libraries(&tree.root().join("usr/bin/ballast"), directory)?;
    let files = tree.files()?;
    tree.file("DEBIAN/control", control(&version, &depends, size(&tree, &files)?).as_bytes(), 0o644)?;
    let sums = run::output(Command::new("md5sum").arg("--").args(&files).current_dir(tree.root()))?;
    tree.file("DEBIAN/md5sums", &sums, 0o644)?;
    for script in SCRIPTS {
        let text = read(&package.source(&format!("packaging/debian/{script}")))?;
        tree.file(&format!("DEBIAN/{script}"), &text, 0o755)?;
    }

    let path = directory.join(format!("ballast_{version}_{}.deb", debian_architecture()));
    let mut build = Command::new("dpkg-deb");
    // One thread: how many there are shows in what is compressed.
    build.args(["--root-owner-group", "--threads-max=1"]);
    build.args(match package.effort {
        Effort::Best => ["-Zxz", "-z6"],
        Effort::Least => ["-Zgzip", "-z1"],
    });
    build.arg("--build").arg(tree.root()).arg(&path).env("SOURCE_DATE_EPOCH", package.epoch.to_string());
    run::output(&mut build)?;
    fs::remove_dir_all(tree.root()).context("could not remove what was packed")?;
    Ok(path)
}

fn legal_and_changes(package: &Package, tree: &Tree, version: &str) -> Result<()> {
    let directory = LAYOUT.documentation;
    tree.copy(&package.source("packaging/debian/copyright"), &format!("{directory}/copyright"))?;
    let overrides = package.source("packaging/debian/lintian-overrides");
    tree.copy(&overrides, "usr/share/lintian/overrides/ballast")?;
    let changes = run::gzip(&read(&package.source("CHANGELOG.md"))?)?;
    tree.file(&format!("{directory}/changelog.gz"), &changes, 0o644)?;
    let date = run::output(
        Command::new("date").args(["--utc", "--rfc-email"]).arg(format!("--date=@{}", package.epoch)),
    )?;
    let changes = format!(
        "ballast ({version}) unstable; urgency=medium\n\n  * What is new is in changelog.gz.\n\n -- {}  {}",
        maintainer(),
        String::from_utf8_lossy(&date)
    );
    tree.file(&format!("{directory}/changelog.Debian.gz"), &run::gzip(changes.as_bytes())?, 0o644)
}

/// `libc6 (>= 2.34), libgcc-s1 (>= 4.2)`
fn libraries(program: &Path, directory: &Path) -> Result<String> {
    // It looks for a source package around it.
    let source = Tree::create(directory.join("shlibdeps"))?;
    source.file("debian/control", b"Source: ballast\n\nPackage: ballast\nArchitecture: any\n", 0o644)?;
    let program = fs::canonicalize(program).context("could not find the program")?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.args(["-O", "--ignore-missing-info"]).arg("-e").arg(program).current_dir(source.root());
    let printed = String::from_utf8(run::output(&mut command)?).context("dpkg-shlibdeps prints no UTF-8")?;
    fs::remove_dir_all(source.root()).context("could not remove dpkg-shlibdeps' directory")?;
    // A program without shared libraries has none.
    Ok(printed.trim().strip_prefix("shlibs:Depends=").unwrap_or_default().to_owned())
}

fn control(version: &str, libraries: &str, size: u64) -> String {
    let libraries = if libraries.is_empty() { String::new() } else { format!("{libraries}, ") };
    format!(
        "Package: ballast\n\
         Version: {version}\n\
         Architecture: {}\n\
         Maintainer: {}\n\
         Installed-Size: {size}\n\
         Depends: {libraries}systemd | systemd-standalone-sysusers\n\
         Recommends: iproute2\n\
         Section: net\n\
         Priority: optional\n\
         Description: layer 4 load balancer in XDP\n \
         Ballast forwards TCP and UDP in the network driver's path, by a table that maps\n \
         each client to a backend and that its daemon rewrites while traffic flows:\n \
         with health checks, a configuration that is checked before it is applied,\n \
         metrics for every backend and a name for every dropped packet. Backends\n \
         answer directly (l2-dsr, ipip, gue) or through it (dnat, nat).\n \
         .\n \
         Forwarding goes on when the daemon stops or is upgraded. It ends with `ballast\n \
         detach`, or when the package is purged.\n",
        debian_architecture(),
        maintainer(),
    )
}

/// As Debian's own tools know whoever packs it.
fn maintainer() -> String {
    let named = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    format!(
        "{} <{}>",
        named("DEBFULLNAME", "The Ballast authors"),
        named("DEBEMAIL", "ballast@localhost.localdomain")
    )
}

/// KiB on the target's disk, as Debian's policy counts them.
fn size(tree: &Tree, files: &[PathBuf]) -> Result<u64> {
    let mut kib = 0;
    for file in files {
        let path = tree.root().join(file);
        kib += path
            .metadata()
            .with_context(|| format!("could not look at {}", path.display()))?
            .len()
            .div_ceil(1024);
    }
    Ok(kib)
}
