//! What goes where.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{
    Package, run,
    tree::{self, Tree},
};

/// Where files are whose place differs from system to system.
pub(super) struct Layout {
    pub(super) zsh: &'static str,
    /// What else is packed of the program's documentation goes here.
    pub(super) documentation: &'static str,
}

/// Files of the sources and their places.
const FILES: [(&str, &str); 9] = [
    ("packaging/systemd/ballast.service", "usr/lib/systemd/system/ballast.service"),
    ("packaging/systemd/ballast-pins.service", "usr/lib/systemd/system/ballast-pins.service"),
    ("packaging/systemd/ballast.sysusers", "usr/lib/sysusers.d/ballast.conf"),
    ("packaging/systemd/ballast.tmpfiles", "usr/lib/tmpfiles.d/ballast.conf"),
    ("packaging/config/config.toml", "usr/share/ballast/config.toml"),
    ("packaging/grafana/ballast.json", "usr/share/ballast/grafana/ballast.json"),
    ("packaging/bird/ballast.conf", "usr/share/ballast/bird/ballast.conf"),
    ("packaging/frr/frr.conf", "usr/share/ballast/frr/frr.conf"),
    ("packaging/prometheus/ballast.rules.yml", "usr/share/ballast/prometheus/ballast.rules.yml"),
];

/// The program that keepalived tells of changes.
const NOTIFY: (&str, &str) = ("packaging/keepalived/notify", "usr/share/ballast/keepalived/notify");

/// What takes the place of the host's BPF file system for the daemon, and where in it its own directory is bound.
const EMPTY: &str = "usr/lib/ballast/bpf/ballast";

/// Lays out everything that is in both packages.
pub(super) fn lay_out(package: &Package, tree: &Tree, layout: &Layout) -> Result<()> {
    program(package, tree)?;
    for (from, to) in FILES {
        tree.copy(&package.source(from), to)?;
    }
    let (from, to) = NOTIFY;
    tree.file(to, &read(&package.source(from))?, 0o755)?;
    tree.directory(EMPTY)?;
    completions(package, tree, layout)?;
    man_pages(package, tree)?;
    documentation(package, tree, layout.documentation)
}

/// Without what only debuggers read.
fn program(package: &Package, tree: &Tree) -> Result<()> {
    tree.file("usr/bin/ballast", &[], 0o755)?;
    let stripped = tree.root().join("usr/bin/ballast");
    let mut strip = Command::new("strip");
    strip.args(["--strip-unneeded", "--remove-section=.comment", "-o"]).arg(&stripped).arg(&package.program);
    run::output(&mut strip).map(drop)
}

fn completions(package: &Package, tree: &Tree, layout: &Layout) -> Result<()> {
    let shells = [
        ("bash", "usr/share/bash-completion/completions/ballast".to_owned()),
        ("zsh", format!("{}/_ballast", layout.zsh)),
        ("fish", "usr/share/fish/vendor_completions.d/ballast.fish".to_owned()),
    ];
    for (shell, path) in shells {
        let script = run::output(Command::new(&package.program).args(["completions", shell]))?;
        ensure!(!script.is_empty(), "`ballast completions {shell}` printed nothing");
        tree.file(&path, &script, 0o644)?;
    }
    Ok(())
}

fn man_pages(package: &Package, tree: &Tree) -> Result<()> {
    let written = Tree::create(tree.root().with_file_name("man"))?;
    run::output(Command::new(&package.program).arg("man").arg(written.root()))?;
    let pages = written.files()?;
    ensure!(!pages.is_empty(), "`ballast man` wrote nothing");
    for page in pages {
        let name = page.to_str().context("a page's name is no UTF-8")?;
        let bytes = read(&written.root().join(&page))?;
        tree.file(&format!("usr/share/man/{name}.gz"), &run::gzip(&bytes)?, 0o644)?;
    }
    fs::remove_dir_all(written.root()).context("could not remove the man pages' draft")
}

/// With README.md and docs/ beside each other as in the sources, so that their links lead somewhere.
fn documentation(package: &Package, tree: &Tree, directory: &str) -> Result<()> {
    tree.copy(&package.source("README.md"), &format!("{directory}/README.md"))?;
    let mut files = Vec::new();
    tree::walk(&package.source("docs"), &mut files)?;
    for file in files {
        let path = file.strip_prefix(&package.workspace)?.to_str().context("a name is no UTF-8")?;
        tree.copy(&file, &format!("{directory}/{path}"))?;
    }
    let third_party = run::gzip(package.third_party.as_bytes())?;
    tree.file(&format!("{directory}/third-party.txt.gz"), &third_party, 0o644)
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("could not read {}", path.display()))
}
