//! Listens to one member of etcd for as long as it answers.

use std::{sync::Arc, time::Instant};

use tokio::{task::JoinHandle, time};

use super::{
    End, RETRY, Task,
    read::{News, Reader},
};
use crate::fleet::{alive::keep_alive, etcd::EtcdError};

impl Task {
    pub(super) async fn listen(&mut self, mut reader: Reader) -> Result<(), End> {
        let mut alive = self.stay_alive();
        let mut retry = time::interval(RETRY);
        retry.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        retry.tick().await;
        loop {
            let (next_word, next_deed) = (self.next_word(), self.next_deed());
            let at = |when: Option<Instant>| time::sleep_until(when.unwrap_or_else(Instant::now).into());
            tokio::select! {
                news = reader.next() => match news {
                    News::Others => {}
                    News::Services => self.make_live().await?,
                    News::Over(error) => return Err(error.into()),
                },
                wrong = &mut alive.0 => {
                    let wrong = wrong.unwrap_or_else(|error| EtcdError::Ours(error.to_string()));
                    if wrong.is_over() {
                        self.lease = None;
                    }
                    return Err(wrong.into());
                }
                changed = self.snapshots.changed() => changed.map_err(|_| End::Stopping)?,
                // Whoever wishes something ends after this.
                _ = self.wishes.changed() => {}
                () = at(next_word), if next_word.is_some() => self.speak().await?,
                () = at(next_deed), if next_deed.is_some() => self.see_to_permit().await?,
                _ = retry.tick() => {
                    if self.lease.is_none() {
                        self.renew_lease().await?;
                        alive = self.stay_alive();
                    }
                    // Why it was refused may be over: a route, a limit, another service.
                    if self.views.now().trouble.is_some() {
                        self.make_live().await?;
                    }
                }
            }
        }
    }

    /// Beside all else: whatever takes its time, the lease goes on.
    fn stay_alive(&self) -> AbortOnDrop<EtcdError> {
        let (client, views) = (Arc::clone(&self.client), self.views.clone());
        let alive = keep_alive(client, views, self.lease, self.config.ttl, self.heard.clone());
        AbortOnDrop(tokio::spawn(alive))
    }
}

/// Ends a task when nobody waits for it any more.
pub(super) struct AbortOnDrop<T>(pub(super) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
