//! Signs of life: this member's for etcd, and the watch's for this member.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::{self, MissedTickBehavior};

use super::{
    book::{Entry, Event, Revision},
    etcd::{Client, EtcdError, Lease},
    permit::Bond,
    view::Views,
};

/// What a watch has told, and the look at everything before it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<Known>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    newest: Revision,
    keys: HashSet<String>,
}

/// What a watch has told so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    newest: Revision,
    keys: usize,
}

impl Heard {
    pub(super) fn list(&self, entries: &[Entry]) {
        let mut known = self.lock();
        known.newest = entries.iter().map(|entry| entry.revision).max().unwrap_or_default();
        known.keys = entries.iter().map(|entry| entry.key.clone()).collect();
    }

    pub(super) fn hear(&self, events: &[Event]) {
        let mut known = self.lock();
        for event in events {
            match event {
                Event::Put(entry) => {
                    known.newest = known.newest.max(entry.revision);
                    known.keys.insert(entry.key.clone());
                }
                Event::Deleted { key } => {
                    known.keys.remove(key);
                }
            }
        }
    }

    fn figures(&self) -> Figures {
        let Known { newest, keys } = &*self.lock();
        Figures { newest: *newest, keys: keys.len() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a watch lags behind what etcd has, which it may do for a moment. A connection that something on the way has
/// forgotten looks like one on which nothing happens.
#[derive(Debug, Default)]
struct Doubt(Option<Figures>);

impl Doubt {
    /// `heard` of the watch, and what etcd `has`. Returns whether the watch is as it was when it lagged behind already.
    fn is_certain(&mut self, heard: Figures, has: (Revision, usize)) -> bool {
        // What was heard meanwhile may be newer.
        let lags = |heard: &Figures| has.0 > heard.newest || (has.0 == heard.newest && has.1 != heard.keys);
        let lagging = Some(heard).filter(lags);
        let certain = lagging.is_some() && self.0 == lagging;
        self.0 = lagging;
        certain
    }
}

/// Renews the lease, if there is one, and asks whether the watch has told everything. Ends with what is wrong.
pub(super) async fn keep_alive(
    client: Arc<Client>,
    views: Views,
    lease: Option<Lease>,
    ttl: Duration,
    heard: Heard,
) -> EtcdError {
    let mut turn = time::interval((ttl / 3).min(LONGEST));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turn.tick().await;
    let all = views.rules.keys.all();
    let mut doubt = Doubt::default();
    loop {
        turn.tick().await;
        let endpoint = || client.endpoint().to_string();
        if let Some(lease) = lease {
            let asked = Instant::now();
            match client.renew(lease).await {
                Ok(true) => views.change(|view| view.bond = Some(bond(lease, asked, ttl))),
                Ok(false) => {
                    views.change(|view| view.bond = None);
                    let message = "the lease of this member is over".to_owned();
                    return EtcdError::Refused { endpoint: endpoint(), message };
                }
                Err(error) => return error,
            }
        }
        match client.newest(&all).await {
            Ok(has) if doubt.is_certain(heard.figures(), has) => {
                let why = "its watch says nothing of what it has".to_owned();
                return EtcdError::Broken { endpoint: endpoint(), why };
            }
            Ok(_) => views.change(|view| view.heard = Instant::now()),
            Err(error) => return error,
        }
    }
}

/// What a lease of `ttl` holds together that etcd was asked for then, or to renew.
pub(super) fn bond(lease: Lease, asked: Instant, ttl: Duration) -> Bond {
    Bond { lease: lease.number(), until: asked + ttl.saturating_sub(BACK) }
}

/// However long a lease lasts, a member of etcd that has lost the others is left soon.
const LONGEST: Duration = Duration::from_secs(2);
/// By when whoever was off the network by leave has to be on its way back: no later than etcd gives its place to another.
const BACK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(newest: Revision, keys: usize) -> Figures {
        Figures { newest, keys }
    }

    #[test]
    fn a_watch_is_doubted_when_it_lags_behind_twice_and_has_told_nothing_meanwhile() {
        let mut doubt = Doubt::default();
        assert!(!doubt.is_certain(figures(5, 3), (5, 3)));
        assert!(!doubt.is_certain(figures(5, 3), (6, 3)));
        // It has told something, and lags behind again.
        assert!(!doubt.is_certain(figures(6, 3), (7, 3)));
        assert!(doubt.is_certain(figures(6, 3), (7, 3)));
        // A key is gone, and the next change was heard of.
        assert!(!doubt.is_certain(figures(7, 3), (7, 2)));
        assert!(!doubt.is_certain(figures(7, 2), (7, 2)));
        assert!(!doubt.is_certain(figures(7, 2), (7, 1)));
        assert!(doubt.is_certain(figures(7, 2), (7, 1)));
        // Heard of after it was asked.
        assert!(!doubt.is_certain(figures(9, 2), (8, 1)));
    }

    #[test]
    fn what_is_heard_is_counted() {
        let heard = Heard::default();
        let entry = |key: &str, revision| Entry { key: key.to_owned(), value: Vec::new(), revision };
        heard.list(&[entry("a", 3), entry("b", 5)]);
        assert_eq!(heard.figures(), figures(5, 2));
        heard.hear(&[
            Event::Put(entry("b", 6)),
            Event::Put(entry("c", 6)),
            Event::Deleted { key: "a".into() },
        ]);
        assert_eq!(heard.figures(), figures(6, 2));
    }
}
