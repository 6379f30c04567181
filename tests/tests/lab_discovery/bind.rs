//! BIND, with a zone of one name that tests change.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use lb_tests::lab::{ChildGuard, Node, wait_until};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::scene::SOON;

/// The name.
pub(crate) const NAME: &str = "web.example.org";

pub(crate) struct Bind {
    node: Node,
    directory: TempDir,
    process: Option<ChildGuard>,
    serial: u32,
    ttl: u32,
}

impl Bind {
    /// A server on port 53 of `node` by which the name has these addresses.
    pub(crate) fn start(node: &Node, ttl: u32, addresses: &[IpAddr]) -> Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("ballast-bind-").tempdir().context("make a directory")?;
        let path = directory.path().display().to_string();
        let options = format!(
            "options {{ directory \"{path}\"; pid-file none; listen-on {{ any; }}; recursion no; dnssec-validation no; }};\n\
             controls {{ }};\nzone \"example.org\" {{ type primary; file \"{path}/zone\"; }};\n"
        );
        fs::write(directory.path().join("named.conf"), options)?;
        let mut bind = Self { node: node.clone(), directory, process: None, serial: 0, ttl };
        bind.write(addresses)?;
        bind.run()?;
        Ok(bind)
    }

    /// Gives the name other addresses, at once.
    pub(crate) fn change(&mut self, addresses: &[IpAddr]) -> Result<()> {
        self.write(addresses)?;
        let process = self.process.as_mut().context("it does not run")?;
        process.signal(Signal::SIGHUP)?;
        let loaded = format!("loaded serial {}\n", self.serial);
        self.wait(&loaded)
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.take().context("it does not run")?.kill()
    }

    /// Starts it again, with these addresses.
    pub(crate) fn restart(&mut self, addresses: &[IpAddr]) -> Result<()> {
        self.write(addresses)?;
        self.run()
    }

    fn write(&mut self, addresses: &[IpAddr]) -> Result<()> {
        self.serial += 1;
        let Self { serial, ttl, .. } = self;
        let mut zone =
            format!("$TTL {ttl}\n@ SOA ns hostmaster {serial} 60 60 60 60\n@ NS ns\nns A 192.0.2.53\n");
        for address in addresses {
            let record = if address.is_ipv4() { "A" } else { "AAAA" };
            zone += &format!("web {record} {address}\n");
        }
        let draft = self.path("zone.new");
        fs::write(&draft, zone)?;
        fs::rename(draft, self.path("zone")).context("put a zone in place")
    }

    fn run(&mut self) -> Result<()> {
        let log = fs::File::create(self.path("log")).context("make a log")?;
        let mut command = Command::new("named");
        command.args(["-g", "-n", "1", "-c"]).arg(self.path("named.conf"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(self.node.spawn(&mut command)?);
        self.wait("running\n")
    }

    fn wait(&self, said: &str) -> Result<()> {
        let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
        wait_until(&format!("BIND says {said:?}"), SOON, || log().contains(said)).with_context(log)
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.directory.path()).join(name)
    }
}
