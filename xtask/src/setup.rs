//! `cargo xtask setup`: installs what building and testing need and this machine lacks.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::Apt,
    linker,
    process::{self, say},
    toolchain::{self, LINKED_NAME, TOOLCHAIN_VAR, Toolchain},
};

/// The distribution's own compiler, with the sources of `core`.
const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Programs that the lab and the tests run, and the Debian packages they come in.
const PROGRAMS: [(&str, &str); 31] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("ethtool", "ethtool"),
    ("tcpdump", "tcpdump"),
    ("tshark", "tshark"),
    ("curl", "curl"),
    ("sysctl", "procps"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("nginx", "nginx-light"),
    ("promtool", "prometheus"),
    // Servers that health checks are tried on. PostgreSQL's own programs are in nobody's PATH.
    ("mariadbd", "mariadb-server"),
    ("pg_ctlcluster", "postgresql"),
    ("redis-server", "redis-server"),
    ("named", "bind9"),
    ("etcd", "etcd-server"),
    // What announces VIPs, and moves them between two hosts; and what cuts the two off from each other.
    ("bird", "bird2"),
    ("vtysh", "frr"),
    ("keepalived", "keepalived"),
    ("nft", "nftables"),
    ("openssl", "openssl"),
    ("socat", "socat"),
    // What makes packages, and what they are tried with.
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("strip", "binutils"),
    ("systemd-analyze", "systemd"),
    ("man", "man-db"),
    ("adduser", "adduser"),
    // The manual is read, and completions are asked for, as users do.
    ("mandoc", "mandoc"),
    ("bash", "bash"),
    ("zsh", "zsh"),
    ("fish", "fish"),
];

/// Any of these shows the status page to its tests; of the packages, the first that the distribution has.
const BROWSERS: [&str; 5] =
    ["chromium-headless-shell", "chrome-headless-shell", "chromium", "chromium-browser", "google-chrome"];
const BROWSER_PACKAGES: [&str; 2] = ["chromium-headless-shell", "chromium"];

pub(crate) fn run() -> Result<()> {
    let toolchain = ready()?;
    say(format!("ready: the eBPF program is built with {toolchain}"));
    Ok(())
}

/// Makes everything ready, saying nothing if it is, and returns the toolchain for the eBPF program.
pub(crate) fn ready() -> Result<Toolchain> {
    let mut apt = Apt::find();
    let mut toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(tried) => {
            let tried = tried.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            install_toolchain(
                &format!("no toolchain here has the sources of `core` (tried: {tried})"),
                apt.as_mut(),
            )?
        }
    };
    if !linker::works() {
        if let Some(apt) = apt.as_mut()
            && !apt.offers(&linker::llvm_package(linker::llvm_of(&toolchain)?))?
        {
            let problem = format!("bpf-linker needs the LLVM of {toolchain}, which this distribution lacks");
            toolchain = install_toolchain(&problem, Some(apt))?;
        }
        linker::install(&toolchain, apt.as_mut())?;
    }
    install_programs(apt.as_mut())?;
    if let Some(apt) = apt.as_mut() {
        install_browser(apt)?;
    }
    Ok(toolchain)
}

/// Installs the distribution's compiler and makes it known to rustup, so that it doesn't become the default.
fn install_toolchain(problem: &str, apt: Option<&mut Apt>) -> Result<Toolchain> {
    if std::env::var_os(TOOLCHAIN_VAR).is_some() {
        bail!(
            "{problem}. {TOOLCHAIN_VAR} names the toolchain: add the rust-src component to it, or unset the variable"
        );
    }
    let Some(apt) = apt else {
        bail!(
            "{problem}. Install a toolchain with\n  rustup toolchain install nightly --profile minimal\n  \
             rustup component add rust-src --toolchain nightly"
        );
    };
    say(format!("{problem}; taking the distribution's compiler"));
    apt.install(&COMPILER_PACKAGES.map(str::to_owned))
        .context("alternatively, `rustup toolchain install nightly --component rust-src` does as well")?;
    if let Some(rustup) = toolchain::rustup() {
        say(format!("linking it as the rustup toolchain `{LINKED_NAME}`"));
        process::run(Command::new(rustup).args(["toolchain", "link", LINKED_NAME, "/usr"]))?;
    }
    Toolchain::find()
        .ok()
        .context("the distribution's compiler was installed and still lacks the sources of `core`")
}

/// Installs programs by looking for them, not for packages: nginx from elsewhere will do as well.
fn install_programs(apt: Option<&mut Apt>) -> Result<()> {
    let missing = missing(|program| toolchain::find_program(program).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    let (programs, packages): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
    let Some(apt) = apt else {
        bail!("the tests need {}: install them with this machine's package manager", programs.join(", "));
    };
    let mut packages: Vec<_> = packages.into_iter().map(str::to_owned).collect();
    packages.dedup();
    apt.install(&packages)
}

/// Where there is none to be had, the tests that need one say that they were skipped: some distributions have it in their own
/// kind of package only.
fn install_browser(apt: &mut Apt) -> Result<()> {
    if BROWSERS.into_iter().any(|program| toolchain::find_program(program).is_some()) {
        return Ok(());
    }
    for package in BROWSER_PACKAGES {
        if apt.offers(package)? {
            return apt.install(&[package.to_owned()]);
        }
    }
    say("no package of Chromium here: the status page will not be tested");
    Ok(())
}

fn missing(is_there: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
    PROGRAMS.into_iter().filter(|(program, _)| !is_there(program)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_programs_are_asked_for() {
        assert_eq!(missing(|_| true), []);
        assert_eq!(missing(|program| program != "nginx"), [("nginx", "nginx-light")]);
        assert_eq!(missing(|_| false).len(), PROGRAMS.len());
    }
}
