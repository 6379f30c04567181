//! When the router's ways to a VIP change: then flows move from one load balancer to another.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::diary::Diary;
use super::topology::VIPS;
use crate::lab::{ChildGuard, Node};

/// Watches from when it is made until it is dropped.
pub(super) struct Ways {
    changes: Arc<Mutex<Vec<Duration>>>,
    _process: ChildGuard,
}

impl Ways {
    /// Times are from `began`.
    pub(super) fn watch(router: &Node, began: Instant, diary: &Diary) -> Result<Self> {
        let mut command = Command::new("ip");
        let mut process =
            router.spawn(command.args(["-oneline", "monitor", "route"]).stdout(Stdio::piped()))?;
        let lines = BufReader::new(process.child().stdout.take().context("a piped stdout")?).lines();
        let changes = Arc::new(Mutex::new(Vec::new()));
        let (noted, diary) = (changes.clone(), diary.clone());
        let vips = VIPS.map(|vip| vip.to_string());
        // Ends with the process, whose end of the pipe is the only one.
        thread::Builder::new().name("ways".to_owned()).spawn(move || {
            let is_of_vip =
                |line: &String| line.split_whitespace().any(|word| vips.iter().any(|vip| word == vip));
            lines.map_while(Result::ok).filter(is_of_vip).for_each(|line| {
                diary.note(format!("ways: {line}"));
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(began.elapsed());
            });
        })?;
        Ok(Self { changes, _process: process })
    }

    /// All of them so far.
    pub(super) fn changes(&self) -> Vec<Duration> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
