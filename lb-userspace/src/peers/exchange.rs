//! Where the task that has the sockets, the one that owns the maps, and those who ask how it is going meet.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::{Endpoint, FlowFate, PeersStatus, status};

pub struct Exchange {
    endpoint: Mutex<Endpoint>,
    /// There may be something to send.
    news: Notify,
    /// There is something for the owner of the maps to do at once.
    work: Notify,
    figures: Mutex<Figures>,
}

/// What the owner of the maps says.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) fates: BTreeMap<FlowFate, u64>,
    pub(super) is_joining: bool,
}

impl Exchange {
    /// A load balancer is joining until it knows better.
    pub fn new(endpoint: Endpoint, is_joining: bool) -> Self {
        let figures = Figures { is_joining, ..Figures::default() };
        Self {
            endpoint: Mutex::new(endpoint),
            news: Notify::new(),
            work: Notify::new(),
            figures: Mutex::new(figures),
        }
    }

    /// For a moment: nobody waits for anything with it.
    pub fn endpoint(&self) -> MutexGuard<'_, Endpoint> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be something to send, and this is what has become of what came.
    pub fn tell(&self, fates: &BTreeMap<FlowFate, u64>, is_joining: bool) {
        let figures = Figures { fates: fates.clone(), is_joining };
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
        self.news.notify_one();
    }

    /// Peers have said something, the tables have changed, or flows are new that peers have to know.
    pub fn give_work(&self) {
        self.work.notify_one();
    }

    /// Waits for that. What comes while nobody waits is not lost.
    pub async fn work(&self) {
        self.work.notified().await;
    }

    /// Has whoever sends look whether there is something to send.
    pub(super) fn wake(&self) {
        self.news.notify_one();
    }

    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Whether this load balancer is new and may not know yet where flows belong: traffic had better wait.
    pub fn is_joining(&self) -> bool {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).is_joining
    }

    /// How it is going, at boot time `now`.
    pub fn status(&self, now: Duration) -> PeersStatus {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status::of(&self.endpoint(), figures, now)
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}
