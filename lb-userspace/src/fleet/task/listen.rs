//! Listens to one member of etcd for as long as it answers.

use std::{sync::Arc, time::Instant};

use futures_util::FutureExt as _;
use tokio::{task::JoinHandle, time};

use super::{End, RETRY, Task};
use crate::fleet::{
    alive::keep_alive,
    book::Event,
    etcd::{EtcdError, Watch, Watched},
};

impl Task {
    pub(super) async fn listen(&mut self, mut watch: Watch) -> Result<(), End> {
        let mut alive = self.stay_alive();
        let mut retry = time::interval(RETRY);
        retry.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        retry.tick().await;
        loop {
            let (next_word, next_deed) = (self.next_word(), self.next_deed());
            let at = |when: Option<Instant>| time::sleep_until(when.unwrap_or_else(Instant::now).into());
            tokio::select! {
                watched = watch.next() => match watched? {
                    Watched::Began => {}
                    Watched::Changes(events) => self.hear(events, &mut watch).await?,
                    Watched::Compacted => return Err(self.compacted()),
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
    fn stay_alive(&self) -> AbortOnDrop {
        let (client, views) = (Arc::clone(&self.client), self.views.clone());
        let alive = keep_alive(client, views, self.lease, self.config.ttl, self.heard.clone());
        AbortOnDrop(tokio::spawn(alive))
    }

    /// etcd says it once, and nothing more on that watch.
    fn compacted(&self) -> End {
        let why = "its history was compacted meanwhile; looking at everything again".to_owned();
        EtcdError::Broken { endpoint: self.client.endpoint().to_string(), why }.into()
    }

    /// Takes changes in, with those that have come meanwhile, and makes them live.
    async fn hear(&mut self, events: Vec<Event>, watch: &mut Watch) -> Result<(), End> {
        let Gathered { events, end } = gather(events, || watch.next().now_or_never());
        let rules = Arc::clone(&self.views.rules);
        self.heard.hear(&events);
        let mut services = false;
        self.views.change(|view| services = view.follow(&events, &rules));
        if services {
            self.make_live().await?;
        }
        match end {
            None => Ok(()),
            Some(Ok(())) => Err(self.compacted()),
            Some(Err(error)) => Err(error.into()),
        }
    }
}

/// Ends a task when nobody waits for it any more.
struct AbortOnDrop(JoinHandle<EtcdError>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Changes that belong together, and how the watch has ended after them, if it has: that it was compacted, or why.
struct Gathered {
    events: Vec<Event>,
    end: Option<Result<(), EtcdError>>,
}

/// Adds what has come meanwhile.
fn gather(mut events: Vec<Event>, mut next: impl FnMut() -> Option<Result<Watched, EtcdError>>) -> Gathered {
    let end = loop {
        match next() {
            None => break None,
            Some(Ok(Watched::Changes(more))) => events.extend(more),
            Some(Ok(Watched::Began)) => {}
            Some(Ok(Watched::Compacted)) => break Some(Ok(())),
            Some(Err(error)) => break Some(Err(error)),
        }
    };
    Gathered { events, end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_taken_in_together_and_the_end_of_a_watch_is_not_lost_behind_them() {
        let gone = |key: &str| Event::Deleted { key: key.to_owned() };
        let gathered = |script: Vec<Result<Watched, EtcdError>>| {
            let mut script = script.into_iter();
            gather(vec![gone("a")], move || script.next())
        };
        let Gathered { events, end } = gathered(vec![Ok(Watched::Changes(vec![gone("b")]))]);
        assert_eq!((events, end), (vec![gone("a"), gone("b")], None));
        let Gathered { events, end } =
            gathered(vec![Ok(Watched::Compacted), Ok(Watched::Changes(vec![gone("b")]))]);
        assert_eq!((events, end), (vec![gone("a")], Some(Ok(()))));
        let error = EtcdError::Ours("why".to_owned());
        let Gathered { end, .. } = gathered(vec![Ok(Watched::Began), Err(error.clone())]);
        assert_eq!(end, Some(Err(error)));
    }
}
