//! Packages on Debian and its relatives.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{process, toolchain};

/// apt, if this is a machine that has it.
pub(crate) struct Apt {
    /// Whether the lists were fetched already: once a run is enough.
    updated: bool,
}

impl Apt {
    pub(crate) fn find() -> Option<Self> {
        toolchain::find_program("apt-get").map(|_| Self { updated: false })
    }

    /// Installs those of the packages that are missing.
    pub(crate) fn install(&mut self, packages: &[String]) -> Result<()> {
        let missing = missing(packages);
        if missing.is_empty() {
            return Ok(());
        }
        self.update()?;
        process::say(format!("installing {}", missing.join(" ")));
        let services = Services::hold(&missing)?;
        let mut install = apt_get()?;
        install.args(["install", "--yes", "--no-install-recommends"]).args(&missing);
        let installed = process::run(&mut install).with_context(|| {
            format!("could not install {}; install them yourself and try again", missing.join(" "))
        });
        let released = services.release();
        installed.and(released)
    }

    /// Whether the distribution has a package of this name.
    pub(crate) fn offers(&mut self, package: &str) -> Result<bool> {
        if !missing(&[package.to_owned()]).is_empty() {
            self.update()?;
        }
        let shown = process::output(Command::new("apt-cache").args(["show", "--no-all-versions", package]));
        Ok(shown.is_some_and(|text| !text.trim().is_empty()))
    }

    /// Fetches the lists of packages, once.
    pub(crate) fn update(&mut self) -> Result<()> {
        if !self.updated {
            process::say("fetching the lists of packages");
            process::run(apt_get()?.arg("update")).context("could not fetch the lists of packages")?;
            self.updated = true;
        }
        Ok(())
    }
}

/// Keeps the packages' services from starting: we want nginx and promtool, not a web server on this host's port 80.
struct Services(Vec<String>);

impl Services {
    fn hold(packages: &[String]) -> Result<Self> {
        // Without systemd as the init system nothing starts: the scripts obey RUNLEVEL=1.
        if !Path::new("/run/systemd/system").is_dir() {
            return Ok(Self(Vec::new()));
        }
        let services = packages.iter().filter_map(|package| service(package)).map(str::to_owned).collect();
        let held = Self(services);
        held.systemctl(&["mask", "--runtime"])?;
        Ok(held)
    }

    fn release(&self) -> Result<()> {
        self.systemctl(&["unmask", "--runtime"])?;
        self.systemctl(&["disable"])
    }

    fn systemctl(&self, verb: &[&str]) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        process::run(process::as_root("systemctl")?.arg("--quiet").args(verb).args(&self.0))
    }
}

/// The service that a package would start.
fn service(package: &str) -> Option<&'static str> {
    match package {
        "nginx-light" => Some("nginx.service"),
        "haproxy" => Some("haproxy.service"),
        "prometheus" => Some("prometheus.service"),
        "mariadb-server" => Some("mariadb.service"),
        "postgresql" => Some("postgresql.service"),
        "redis-server" => Some("redis-server.service"),
        "bind9" => Some("named.service"),
        "etcd-server" => Some("etcd.service"),
        "bird2" => Some("bird.service"),
        "frr" => Some("frr.service"),
        "keepalived" => Some("keepalived.service"),
        _ => None,
    }
}

/// apt-get that asks nothing and waits for another apt-get to finish.
fn apt_get() -> Result<Command> {
    let mut command = process::as_root("env")?;
    // Given by env, because sudo may drop variables.
    command.args(["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get"]);
    command.args(["-qq", "--option=DPkg::Lock::Timeout=120", "--option=Dpkg::Use-Pty=0"]);
    Ok(command)
}

fn missing(packages: &[String]) -> Vec<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]).args(packages);
    // It fails when it doesn't know one of them, and still shows the others.
    let shown = query.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    not_installed(packages, &shown.unwrap_or_default())
}

fn not_installed(packages: &[String], shown: &str) -> Vec<String> {
    let installed: Vec<_> = shown.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    packages.iter().filter(|package| !installed.contains(&package.as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_counts_only_when_it_is_fully_installed() {
        let packages = ["curl", "nginx-light", "prometheus"].map(str::to_owned);
        let shown = "curl installed\nnginx-light config-files\n";
        assert_eq!(not_installed(&packages, shown), ["nginx-light", "prometheus"]);
        assert_eq!(not_installed(&packages, ""), packages);
    }
}
