//! Orders, as they come on stdin.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use serde::{Serialize, de::DeserializeOwned};

/// What stdin is called among the events.
pub(crate) const INPUT: u64 = u64::MAX;

/// Lines that are not complete yet, or not asked for yet.
pub(crate) struct Input {
    text: Vec<u8>,
}

impl Input {
    pub(crate) fn register(epoll: &Epoll) -> Result<Self> {
        epoll.add(io::stdin().as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, INPUT)).context("watch stdin")?;
        Ok(Self { text: Vec::new() })
    }

    /// Takes what is there. The end of stdin is that of the process: the test is over, or gone.
    pub(crate) fn read(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        let length = io::stdin().read(&mut buffer).context("read stdin")?;
        if length == 0 {
            std::process::exit(0);
        }
        self.text.extend_from_slice(buffer.get(..length).unwrap_or_default());
        Ok(())
    }

    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let Some(end) = self.text.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.text.drain(..=end).collect();
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

pub(crate) fn say(answer: &impl Serialize) -> Result<()> {
    say_line(&serde_json::to_string(answer)?)
}

/// The first thing that it says.
pub(crate) fn say_ready() -> Result<()> {
    say_line("")
}

fn say_line(line: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush().context("answer")
}
