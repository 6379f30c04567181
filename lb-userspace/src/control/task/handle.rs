//! The way to the task: requests to it, what it publishes, its heartbeat.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};

use crate::control::{Applied, Command, Rejected, Snapshot};

/// The way to the task, for everyone. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) heartbeat: Arc<Heartbeat>,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    /// Only say what would change.
    pub(super) dry_run: bool,
    pub(super) reply: oneshot::Sender<Result<Applied, Rejected>>,
}

impl Handle {
    /// The state as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Tells of every new snapshot.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Applies a command. When this returns, it is live or refused.
    pub async fn submit(&self, command: Command) -> Result<Applied, Rejected> {
        self.request(command, false).await
    }

    /// What a command would change.
    pub async fn plan(&self, command: Command) -> Result<Applied, Rejected> {
        self.request(command, true).await
    }

    /// Time since the task last took a turn.
    pub fn heartbeat_age(&self) -> Duration {
        self.heartbeat.age()
    }

    async fn request(&self, command: Command, dry_run: bool) -> Result<Applied, Rejected> {
        let (reply, answer) = oneshot::channel();
        let request = Request { command, dry_run, reply };
        self.requests.send(request).await.map_err(|_| Rejected::Stopping)?;
        answer.await.map_err(|_| Rejected::Stopping)?
    }
}

#[derive(Debug)]
pub(super) struct Heartbeat {
    started: Instant,
    /// Milliseconds after `started`.
    last: AtomicU64,
}

impl Heartbeat {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), last: AtomicU64::new(0) }
    }

    pub(super) fn beat(&self) {
        self.last.store(self.elapsed(), Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        Duration::from_millis(self.elapsed().saturating_sub(self.last.load(Ordering::Relaxed)))
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
