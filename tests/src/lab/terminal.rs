//! A terminal with a program on it: keys in, and what is on the screen out.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;

use super::namespace::Namespace;
use super::process::{ChildGuard, run_checked};
use super::wait::wait_until;

/// A pseudo-terminal of 80 × 24 whose program is killed when it is dropped.
#[derive(Debug)]
pub struct Terminal {
    program: ChildGuard,
    keyboard: File,
    screen: Arc<Mutex<Emulator>>,
    /// The program's end, by its name.
    path: PathBuf,
    /// Held so that what the program wrote last can be read when it is gone.
    _end: OwnedFd,
}

struct Emulator(vt100::Parser);

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Emulator")
    }
}

impl Terminal {
    /// Starts `command` in `namespace`, as the program that a terminal was opened for.
    pub fn start(namespace: &Namespace, command: &Command) -> Result<Self> {
        let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).context("open a pseudo-terminal")?;
        let path = fs::read_link(format!("/proc/self/fd/{}", pair.slave.as_raw_fd()))?;
        // The new session's first terminal is the one that Ctrl-C on it interrupts.
        let mut on_it = Command::new("setsid");
        on_it.arg("--ctty").arg(command.get_program()).args(command.get_args()).env("TERM", "xterm-256color");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => on_it.env(name, value),
                None => on_it.env_remove(name),
            };
        }
        on_it.stdin(pair.slave.try_clone()?).stdout(pair.slave.try_clone()?).stderr(pair.slave.try_clone()?);
        let program = namespace.spawn(&mut on_it)?;
        let screen = Arc::new(Mutex::new(Emulator(vt100::Parser::new(ROWS, COLUMNS, 0))));
        let keyboard = File::from(pair.master);
        let from = keyboard.try_clone()?;
        let shown = Arc::clone(&screen);
        // It ends when both this and the program are gone.
        thread::Builder::new().name("terminal".to_owned()).spawn(move || show(from, &shown))?;
        Ok(Self { program, keyboard, screen, path, _end: pair.slave })
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).context("press keys")
    }

    /// What is on the screen.
    #[must_use]
    pub fn text(&self) -> String {
        lock(&self.screen).0.screen().contents()
    }

    /// Waits until the screen shows `part`.
    pub fn wait_for(&self, part: &str, patience: Duration) -> Result<()> {
        self.wait_until(&format!("{part:?} is on the screen"), patience, |text| text.contains(part))
    }

    /// Waits until what the screen shows is as it should be.
    pub fn wait_until(&self, what: &str, patience: Duration, is_so: impl Fn(&str) -> bool) -> Result<()> {
        let waited = wait_until(what, patience, || is_so(&self.text()));
        waited.with_context(|| format!("the screen shows\n{}", self.text()))
    }

    /// Makes it another size.
    pub fn resize(&mut self, columns: u16, rows: u16) -> Result<()> {
        lock(&self.screen).0.screen_mut().set_size(rows, columns);
        let mut stty = Command::new("stty");
        stty.arg("-F").arg(&self.path).args(["cols", &columns.to_string(), "rows", &rows.to_string()]);
        run_checked(&mut stty).map(drop)
    }

    /// Sends the program a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.program.signal(signal)
    }

    /// Waits until the program has ended, and fails unless the terminal is as it was before.
    pub fn wait_exit(&mut self, patience: Duration) -> Result<ExitStatus> {
        let status = self.program.wait(patience)?;
        let as_before = || {
            let screen = lock(&self.screen);
            !screen.0.screen().alternate_screen() && !screen.0.screen().hide_cursor()
        };
        wait_until("the screen is as it was before", patience, as_before)?;
        let settings = run_checked(Command::new("stty").arg("-F").arg(&self.path).arg("-a"))?.stdout;
        for setting in ["icanon", "echo", "isig"] {
            if !settings.split_whitespace().any(|word| word.trim_end_matches(';') == setting) {
                bail!("the terminal lacks {setting}: {settings}");
            }
        }
        Ok(status)
    }
}

fn show(mut from: File, screen: &Mutex<Emulator>) {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => lock(screen).0.process(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // EIO: nobody has the other end any more.
            Err(_) => return,
        }
    }
}

fn lock(screen: &Mutex<Emulator>) -> MutexGuard<'_, Emulator> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

const COLUMNS: u16 = 80;
const ROWS: u16 = 24;
