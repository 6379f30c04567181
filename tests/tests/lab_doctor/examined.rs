//! What `ballast doctor` says, and doing what it says.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, HttpServer, Lab, Mode, Node, Output, VIP_V4, VIP_V6};
use serde_json::Value;

pub(super) const FAMILIES: [(IpAddr, u8); 2] = [(VIP_V4, 4), (VIP_V6, 6)];

/// A report.
pub(super) struct Examined(Value);

impl Examined {
    /// Runs it for this daemon's configuration, whether the daemon runs or not.
    pub(super) fn of(daemon: &Daemon) -> Result<Self> {
        Self::with(daemon, &[])
    }

    pub(super) fn with(daemon: &Daemon, more: &[&str]) -> Result<Self> {
        let config = daemon.files().config.display().to_string();
        let args = ["doctor", "-o", "json", "--config", &config].into_iter().chain(more.iter().copied());
        Self::read(&daemon.cli(args)?)
    }

    /// Of what it printed; the exit status has to fit.
    pub(super) fn read(output: &Output) -> Result<Self> {
        let report: Value = serde_json::from_str(&output.stdout)
            .with_context(|| format!("{}: {}{}", output.status, output.stdout, output.stderr))?;
        let expected = i32::from(report["problems"] != 0);
        ensure!(output.status.code() == Some(expected), "{}: {report:#}", output.status);
        let this = Self(report);
        for severity in ["problem", "warning", "skipped", "ok"] {
            let key =
                if severity.ends_with(['m', 'g']) { format!("{severity}s") } else { severity.to_owned() };
            let count = this.findings().filter(|finding| finding["severity"] == severity).count();
            ensure!(this.0[&key] == count, "{key}: {:#}", this.0);
        }
        Ok(this)
    }

    pub(super) fn findings(&self) -> impl Iterator<Item = &Value> {
        self.0["findings"].as_array().into_iter().flatten()
    }

    /// The finding of a check about something, whatever it came to.
    pub(super) fn find(&self, check: &str, subject: &str) -> Result<&Value> {
        let found =
            self.findings().find(|finding| finding["check"] == check && finding["subject"] == subject);
        found.with_context(|| format!("no {check} of {subject}: {:#}", self.0))
    }

    /// `problem check subject` of all that are not well, sorted.
    pub(super) fn complaints(&self) -> Vec<String> {
        let bad = self
            .findings()
            .filter(|finding| finding["severity"] == "problem" || finding["severity"] == "warning");
        let mut lines: Vec<_> = bad
            .map(|finding| {
                let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
                format!("{} {} {}", word("severity"), word("check"), word("subject"))
            })
            .collect();
        lines.sort();
        lines
    }

    /// Exactly these are not well.
    pub(super) fn expect(&self, expected: &[&str]) -> Result<()> {
        let mut expected: Vec<_> = expected.iter().map(|&line| line.to_owned()).collect();
        expected.sort();
        let complaints = self.complaints();
        ensure!(complaints == expected, "expected {expected:#?}, got {complaints:#?}: {:#}", self.0);
        Ok(())
    }

    /// What a check says about something holds these words.
    pub(super) fn says(&self, check: &str, subject: &str, words: &str) -> Result<()> {
        let message = self.find(check, subject)?["message"].as_str().unwrap_or_default().to_owned();
        ensure!(message.contains(words), "{check} {subject}: {message}");
        Ok(())
    }

    /// Does what the fix of a finding says, on whom it names.
    pub(super) fn mend(&self, lab: &Lab, check: &str, subject: &str) -> Result<()> {
        let fix = &self.find(check, subject)?["fix"];
        let on = match fix["host"].as_str() {
            Some(host) => {
                lab.nodes().iter().find(|node| node.label() == host).context("a backend of the lab")?
            }
            None => lab.balancer(0),
        };
        let commands = fix["commands"].as_array().context("commands")?;
        ensure!(!commands.is_empty(), "{fix:#}");
        for command in commands {
            on.run("sh", ["-c", command.as_str().context("a command")?])?;
        }
        Ok(())
    }
}

/// A service of a mode for each family, on this port, checked by nobody.
pub(super) fn services<'a>(mode: Mode, port: u16, backends: impl IntoIterator<Item = &'a Node>) -> String {
    let backends: Vec<_> = backends.into_iter().collect();
    let of = |(vip, family): (IpAddr, u8)| {
        let name = format!("{}-{family}-{port}", mode.forwarding());
        mode.service(&name, SocketAddr::new(vip, port), "tcp", backends.iter().copied()).toml()
    };
    FAMILIES.into_iter().map(of).collect()
}

/// Servers on all addresses of all backends.
pub(super) fn servers(lab: &Lab, ports: &[u16]) -> Result<Vec<HttpServer>> {
    lab.backends().map(|node| HttpServer::start(node, ports)).collect()
}
