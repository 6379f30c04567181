//! A `lab-peer` process, seen from the test.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Serialize, de::DeserializeOwned};

use super::super::namespace::Namespace;
use super::super::process::ChildGuard;

/// For the longest order, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const BINARY: &str = "lab-peer";

/// Killed when dropped.
#[derive(Debug)]
pub(super) struct Peer {
    orders: ChildStdin,
    answers: Receiver<String>,
    process: ChildGuard,
}

impl Peer {
    /// Starts one, and waits for its first line, an empty one.
    pub(super) fn start(namespace: &Namespace, args: &[String]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = namespace.spawn(&mut command)?;
        let orders = process.child().stdin.take().context("a piped stdin")?;
        let output = process.child().stdout.take().context("a piped stdout")?;
        let (sender, answers) = channel();
        // Ends with the process, whose end of the pipe is the only one.
        thread::Builder::new().name(BINARY.to_owned()).spawn(move || {
            let lines = BufReader::new(output).lines();
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
        })?;
        let mut peer = Self { orders, answers, process };
        peer.line().with_context(|| format!("start `{BINARY} {}`", args.join(" ")))?;
        Ok(peer)
    }

    pub(super) fn order(&mut self, order: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(order)? + "\n";
        self.orders.write_all(line.as_bytes()).with_context(|| format!("tell a {BINARY} something"))
    }

    /// The answer to an order.
    pub(super) fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("a {BINARY} said {line}"))
    }

    fn line(&mut self) -> Result<String> {
        self.answers.recv_timeout(TIMEOUT).map_err(|error| {
            let status = self.process.exit_status();
            anyhow!("no answer from a {BINARY} ({status:?}): {error}")
        })
    }
}

/// Next to the test, or to the directory it is in.
fn binary() -> Result<PathBuf> {
    let own = env::current_exe().context("find the own executable")?;
    let found =
        own.ancestors().skip(1).take(2).map(|directory| directory.join(BINARY)).find(|path| path.exists());
    found.with_context(|| format!("no {BINARY} near {}: `cargo test` builds it", own.display()))
}
