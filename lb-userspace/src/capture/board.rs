//! What there is to tell of captures: of the one that runs, and how much was captured since the daemon started.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Read by whoever tells of captures. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    running: Option<Running>,
    /// Of those that have ended.
    ended: Counts,
}

/// A capture that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub client: Client,
    /// Which packets are wanted, in words.
    pub filter: String,
    pub counts: Counts,
    begun: Instant,
}

impl Running {
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// Who captures, as it was when it connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    pub uid: u32,
    /// `None`: it is in another PID namespace.
    pub process: Option<u32>,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.uid)?;
        match self.process {
            Some(process) => write!(f, ", process {process}"),
            None => Ok(()),
        }
    }
}

/// Packets of captures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed to the listener.
    pub captured: u64,
    /// Wanted, and not handed to it.
    pub missed: u64,
}

impl Board {
    /// The capture that runs, if one does.
    pub fn running(&self) -> Option<Running> {
        self.lock().running.clone()
    }

    /// Of all captures since the daemon started.
    pub fn totals(&self) -> Counts {
        let written = self.lock();
        let running = written.running.as_ref().map(|running| running.counts).unwrap_or_default();
        written.ended.and(running)
    }

    /// Writes down that one has begun, until what this returns is dropped. There is one at a time.
    pub(super) fn begin(&self, client: Client, filter: String) -> Entry {
        let running = Running { client, filter, counts: Counts::default(), begun: Instant::now() };
        self.lock().running = Some(running);
        Entry(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        // What is written is whole at any moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn and(self, more: Self) -> Self {
        Self { captured: self.captured + more.captured, missed: self.missed + more.missed }
    }
}

/// A line on the board.
#[derive(Debug)]
pub(super) struct Entry(Board);

impl Entry {
    /// So many so far.
    pub(super) fn count(&self, counts: Counts) {
        if let Some(running) = &mut self.0.lock().running {
            running.counts = counts;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut written = self.0.lock();
        if let Some(running) = written.running.take() {
            written.ended = written.ended.and(running.counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_on_the_board_while_it_runs_and_its_packets_are_counted_for_good() {
        let board = Board::default();
        assert_eq!((board.running(), board.totals()), (None, Counts::default()));
        for round in 1..3 {
            let client = Client { uid: 7, process: Some(4711) };
            let entry = board.begin(client, "everything".to_owned());
            entry.count(Counts { captured: 2, missed: 0 });
            entry.count(Counts { captured: 5, missed: 1 });
            let running = board.running().expect("it runs");
            assert_eq!(
                (running.client.to_string(), running.counts.captured),
                ("user 7, process 4711".into(), 5)
            );
            let all = Counts { captured: 5 * round, missed: round };
            assert_eq!(board.totals(), all);
            drop(entry);
            assert_eq!((board.running(), board.totals()), (None, all));
        }
    }
}
