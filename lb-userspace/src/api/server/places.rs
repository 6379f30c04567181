//! Places for clients: so many are served at a time, and whoever keeps the server waiting gives way to whoever comes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

#[derive(Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    awaited: Arc<Mutex<Awaited>>,
}

/// Clients that have something to send or to read, the one that the server has waited for longest first.
#[derive(Default)]
struct Awaited {
    last: u64,
    clients: BTreeMap<u64, Arc<Notify>>,
}

/// Given back when it is dropped.
pub(super) struct Place {
    awaited: Arc<Mutex<Awaited>>,
    /// Of this client among the awaited ones; 0 is none.
    number: AtomicU64,
    lost: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), awaited: Arc::default() }
    }

    /// A place for a client that has just come. Where none is free, the client that has kept the server waiting for longest
    /// loses its own; where the server is at work for all of them, this waits.
    pub(super) async fn take(&self) -> Option<Place> {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                if let Some((_, client)) = lock(&self.awaited).clients.pop_first() {
                    client.notify_one();
                }
                Arc::clone(&self.free).acquire_owned().await.ok()?
            }
        };
        let (awaited, lost) = (Arc::clone(&self.awaited), Arc::default());
        let place = Place { awaited, number: AtomicU64::new(0), lost, _permit: permit };
        place.await_client();
        Some(place)
    }
}

impl Place {
    /// The client has something to do, and may lose its place until it has done it.
    pub(super) fn await_client(&self) {
        let mut awaited = lock(&self.awaited);
        awaited.last += 1;
        let number = awaited.last;
        awaited.clients.insert(number, Arc::clone(&self.lost));
        // It may be awaited already: of two numbers one would stay for ever.
        awaited.clients.remove(&self.number.swap(number, Relaxed));
    }

    /// The server is at work for the client. Not for one that has just lost its place: it is told that it was too slow, and
    /// nothing may be done for it.
    #[must_use]
    pub(super) fn work(&self) -> bool {
        self.leave()
    }

    /// Whether the client was waited for.
    fn leave(&self) -> bool {
        lock(&self.awaited).clients.remove(&self.number.swap(0, Relaxed)).is_some()
    }

    /// Returns when somebody else needs the place.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Nothing panics while it holds the lock.
fn lock(awaited: &Mutex<Awaited>) -> MutexGuard<'_, Awaited> {
    awaited.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn nothing_is_done_for_a_client_that_gave_way() {
        let places = Places::new(1);
        let first = places.take().await.expect("a place");
        assert!(first.work());
        first.await_client();
        let second = tokio::time::timeout(Duration::from_millis(10), places.take()).await;
        assert!(second.is_err(), "the first has it still");
        assert!(!first.work(), "and has been told to go");
        drop(first);
        assert!(places.take().await.expect("a place").work());
    }
}
