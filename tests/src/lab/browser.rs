//! A headless Chromium in a namespace, driven by the DevTools protocol over a pipe.

use std::collections::VecDeque;
use std::env;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::namespace::Namespace;
use super::process::ChildGuard;
use super::wait::wait_until;

/// By the names of distributions and of those who package it themselves; the smallest first.
const PROGRAMS: [&str; 5] =
    ["chromium-headless-shell", "chrome-headless-shell", "chromium", "chromium-browser", "google-chrome"];
/// For an answer, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A browser with one page. Dropping it ends the process.
pub struct Browser {
    to: ChildStdin,
    process: ChildGuard,
    from: Receiver<Value>,
    session: String,
    next: u64,
    events: VecDeque<Value>,
    log: PathBuf,
}

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    /// A phone: the page is as wide as it says, and there is a finger instead of a mouse.
    pub is_phone: bool,
    pub is_dark: bool,
}

impl Browser {
    /// The browser of this machine, if it has one.
    #[must_use]
    pub fn program() -> Option<PathBuf> {
        let path = env::var_os("PATH")?;
        let directories: Vec<_> = env::split_paths(&path).collect();
        let places = PROGRAMS.iter().flat_map(|name| directories.iter().map(move |at| at.join(name)));
        places.into_iter().find(|place| place.is_file())
    }

    /// Starts it inside `namespace`; its files go to `directory`.
    pub fn start(program: &Path, namespace: &Namespace, directory: &Path) -> Result<Self> {
        let home = directory.join("browser");
        fs::create_dir_all(&home).with_context(|| format!("make {}", home.display()))?;
        let log = home.join("log");
        // The protocol is spoken over descriptors 3 and 4.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>&2"]).arg(program);
        command.args([
            "--headless",
            "--remote-debugging-pipe",
            // It runs as root, alone with one page of ours.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-breakpad",
            "--no-first-run",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
        ]);
        command.arg(format!("--user-data-dir={}", home.display()));
        // A group of its own: what distributions call the browser is a script that starts it.
        command.env("HOME", &home).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(&log).context("make the browser's log")?);
        let mut process = namespace.spawn(&mut command)?;
        let to = process.child().stdin.take().context("its input is a pipe")?;
        let output = process.child().stdout.take().context("its output is a pipe")?;
        let (sender, from) = channel();
        thread::spawn(move || {
            let messages = BufReader::new(output).split(0);
            for message in messages.map_while(Result::ok) {
                // What makes no sense is no answer to anything.
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let session = String::new();
        let mut this = Self { to, process, from, session, next: 0, events: VecDeque::new(), log };
        this.open_page()?;
        Ok(this)
    }

    fn open_page(&mut self) -> Result<()> {
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attached = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.call("Target.attachToTarget", attached)?;
        attached["sessionId"].as_str().context("a session")?.clone_into(&mut self.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(())
    }

    /// Goes to an address and waits until it is loaded.
    pub fn open(&mut self, url: &str) -> Result<()> {
        self.events.retain(|event| event["method"] != "Page.loadEventFired");
        let went = self.call("Page.navigate", json!({ "url": url }))?;
        if let Some(error) = went["errorText"].as_str() {
            bail!("{url} can't be opened: {error}");
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive(deadline).with_context(|| format!("load {url}"))?;
            self.events.push_back(event);
        }
        Ok(())
    }

    /// The value of an expression on the page.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", asked)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, what: &str, timeout: Duration, expression: &str) -> Result<()> {
        let mut last = Ok(Value::Null);
        let waited = wait_until(what, timeout, || {
            last = self.value(expression);
            last.as_ref().is_ok_and(|value| *value == true)
        });
        waited.with_context(|| match last {
            Ok(value) => format!("{expression} is {value}"),
            Err(error) => format!("{error:#}"),
        })
    }

    /// Shows the page like this from now on.
    pub fn look(&mut self, screen: Screen) -> Result<()> {
        let Screen { width, height, is_phone, is_dark } = screen;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        self.call("Emulation.setTouchEmulationEnabled", json!({ "enabled": is_phone }))?;
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media).map(drop)
    }

    /// Whether pages that are opened from now on may run scripts.
    pub fn run_scripts(&mut self, run: bool) -> Result<()> {
        self.call("Emulation.setScriptExecutionDisabled", json!({ "value": !run })).map(drop)
    }

    /// What is on the screen, as PNG in Base64.
    pub fn screenshot(&mut self) -> Result<String> {
        let shot =
            self.call("Page.captureScreenshot", json!({ "format": "png", "optimizeForSpeed": false }))?;
        Ok(shot["data"].as_str().context("a picture")?.to_owned())
    }

    /// Every address that was asked for so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str()).map(str::to_owned).collect()
    }

    /// What the page's console shows so far: errors and warnings of scripts, of the network, and of policies.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let is_one = |event: &&Value| {
            let params = &event["params"];
            match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Runtime.consoleAPICalled") => params["type"] != "log",
                Some("Log.entryAdded") => params["entry"]["level"] != "verbose",
                _ => false,
            }
        };
        self.events.iter().filter(is_one).map(ToString::to_string).collect()
    }

    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let sent = self.to.write_all(format!("{message}\0").as_bytes()).and_then(|()| self.to.flush());
        sent.with_context(|| self.told(method))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut message = self.receive(deadline).with_context(|| method.to_owned())?;
            if message["id"] != id {
                self.events.push_back(message);
            } else if let Some(error) = message.get("error") {
                bail!("{method}: {error}");
            } else {
                return Ok(message["result"].take());
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Value> {
        match self.from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(message) => Ok(message),
            Err(RecvTimeoutError::Timeout) => bail!("the browser does not answer within {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("{}", self.told("it ended")),
        }
    }

    fn told(&self, what: &str) -> String {
        format!("{what}; the browser says: {}", fs::read_to_string(&self.log).unwrap_or_default())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Those that have ended are no loss.
        let _ = i32::try_from(self.process.id()).map(|group| killpg(Pid::from_raw(group), Signal::SIGKILL));
    }
}
