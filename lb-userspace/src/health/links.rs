//! This host's own links: while none of the interfaces that it is attached to has one, failed checks speak of it and of
//! nobody else.
//!
//! The kernel tells when a link changes, but it may take its time (losses are told once a second at the most), and a check
//! may fail at once. So the links are looked at whenever a check has failed, and the kernel's count of losses tells of what
//! was over by then.

mod record;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::interfaces;
use record::{Look, Record};

pub(super) use record::Phase;

/// The links of the interfaces that are configured. Without any, or where they can't be looked at, every check counts.
#[derive(Default)]
pub struct Links {
    names: Arc<[String]>,
    record: Mutex<Record>,
    /// Somebody waits for a look. One serves all who do, and goes on when they are gone.
    wanted: Notify,
    /// When the latest that has ended began.
    looked: watch::Sender<Option<Instant>>,
    phase: watch::Sender<Phase>,
}

impl Links {
    pub fn new(interfaces: &[String]) -> Self {
        let record = Mutex::new(Record::of(interfaces.len()));
        Self { names: interfaces.into(), record, ..Self::default() }
    }

    /// Why failed checks don't count now, in words; `None`: they do.
    pub fn why_checks_are_held(&self) -> Option<String> {
        let names = self.names.join(", ");
        match *self.phase.borrow() {
            Phase::Counting => None,
            Phase::Dark => Some(format!("no interface has a link: {names}")),
            Phase::Settling => Some(format!("no interface had a link until a moment ago: {names}")),
        }
    }

    pub(super) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether a check that began then and has just failed says nothing of its backend.
    pub(super) async fn excuse(&self, began: Instant) -> bool {
        self.looked_at().await;
        self.record().excuses(began)
    }

    /// Whether there has been a link for so short a time that checks which could have passed may not have.
    pub(super) async fn is_settling(&self) -> bool {
        // That there is a link again may not have been told yet.
        if *self.phase.borrow() == Phase::Dark && !self.looked_at().await {
            return true;
        }
        *self.phase.borrow() == Phase::Settling
    }

    /// Waits for a look that begins from now on. What was known before has to do where the kernel does not answer in time,
    /// which returns `false`: it answers nobody while somebody changes interfaces.
    async fn looked_at(&self) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let asked = Instant::now();
        let mut looked = self.looked.subscribe();
        self.wanted.notify_one();
        let look = looked.wait_for(|began| began.is_some_and(|began| began >= asked));
        tokio::time::timeout(PATIENCE, look).await.is_ok()
    }

    /// Looks whenever something has changed, so that everybody is told in time, and when somebody wants to know. Never ends.
    pub(super) async fn follow(&self) {
        if self.names.is_empty() {
            return std::future::pending().await;
        }
        let mut changes = None;
        let (mut next_try, mut has_failed) = (Instant::now(), false);
        loop {
            if changes.is_none() && next_try <= Instant::now() {
                let tried = interfaces::changes();
                if let Err(error) = &tried
                    && !has_failed
                {
                    log::error!("links are looked at once a second, for they can't be followed: {error}");
                }
                has_failed = tried.is_err();
                changes = tried.ok();
                next_try = Instant::now() + RETRY;
            }
            self.look().await;
            tokio::time::sleep(APART).await;
            // One that settles is looked at when it has, and before, for its addresses may not be of use yet.
            let settling = self.record().settles().filter(|_| *self.phase.borrow() == Phase::Settling);
            let settling = settling.map(|settles| settles.min(Instant::now() + OFTEN));
            let next_look = settling.or_else(|| changes.is_none().then_some(next_try));
            tokio::select! {
                told = next(&mut changes) => if told.is_none() { changes = None },
                () = self.wanted.notified() => {}
                () = tokio::time::sleep_until(next_look.unwrap_or(next_try)), if next_look.is_some() => {}
            }
        }
    }

    async fn look(&self) {
        let began = Instant::now();
        let names = Arc::clone(&self.names);
        let (known, is_settling) = {
            let record = self.record();
            (record.indices(), record.is_settling())
        };
        let looks = tokio::task::spawn_blocking(move || looks(&names, &known, is_settling)).await;
        let now = Instant::now();
        let phase = {
            let mut record = self.record();
            // Where looking ended badly nothing is known.
            record.note(now, looks.unwrap_or_else(|_| vec![None; self.names.len()]));
            record.phase(now)
        };
        self.phase.send_if_modified(|known| {
            let was = std::mem::replace(known, phase);
            self.tell(was, phase);
            was != phase
        });
        self.looked.send_replace(Some(began));
    }

    fn tell(&self, was: Phase, is: Phase) {
        let names = self.names.join(", ");
        match (was, is) {
            (Phase::Counting, Phase::Dark) => {
                log::warn!(
                    "no interface has a link ({names}): failed health checks don't count until one has"
                );
            }
            (Phase::Counting, Phase::Settling) => {
                log::warn!(
                    "no interface had a link ({names}) for a moment: failed health checks of that time don't count"
                );
            }
            (Phase::Dark | Phase::Settling, Phase::Counting) => {
                log::info!("there is a link again ({names}): failed health checks count as ever");
            }
            _ => {}
        }
    }

    /// As if the kernel had told.
    #[cfg(test)]
    pub(super) fn pretend(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the interfaces look; `known` are the numbers they had.
fn looks(names: &[String], known: &[u32], is_settling: bool) -> Vec<Option<Look>> {
    let detecting = if is_settling { interfaces::detecting().unwrap_or_default() } else { HashSet::new() };
    let look = |(name, known): (&String, &u32)| {
        let carrier = interfaces::carrier(index(name, *known)?).ok()?;
        Some(Look { carrier, is_detecting: detecting.contains(&carrier.index) })
    };
    names.iter().zip(known).map(look).collect()
}

/// The number of an interface. One that was given another name has the one that it had, and is still attached.
fn index(name: &str, known: u32) -> Option<u32> {
    interfaces::index(name).map(|index| if index == 0 { known } else { index })
}

/// Waits for news, and takes all that there are.
async fn next(changes: &mut Option<BoxStream<'static, ()>>) -> Option<()> {
    let Some(changes) = changes else { return std::future::pending().await };
    let told = changes.next().await;
    while changes.next().now_or_never().flatten().is_some() {}
    told
}

/// Before news are asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a check that has failed waits for the kernel's answer; it has one of the places for checks meanwhile.
const PATIENCE: Duration = Duration::from_millis(500);

/// Between the looks at a link that settles.
const OFTEN: Duration = Duration::from_millis(100);

/// Between any two looks, however many checks fail.
const APART: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_was_given_another_name_has_the_link_that_it_had() {
        let index = |name, known| {
            let looks = looks(&[String::from(name)], &[known], false);
            looks[0].expect("the kernel tells").carrier.index
        };
        assert_eq!((index("lo", 0), index("no-such-if", 1)), (1, 1));
        assert_eq!((index("no-such-if", 0), index("no-such-if", 0x7fff_fff0)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_look_that_does_not_end_judges_by_the_one_before() {
        let links = Links::new(&["no-such-if".to_owned()]);
        let start = Instant::now();
        assert!(!links.excuse(start).await);
        assert_eq!(start.elapsed(), PATIENCE);
        links.look().await;
        assert!(links.excuse(start).await);
        // Whoever passes may have been the first to be reached.
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(links.is_settling().await);
    }

    #[tokio::test]
    async fn one_look_serves_all_who_wait_and_goes_on_without_them() {
        let links = Arc::new(Links::new(&["no-such-if".to_owned()]));
        let start = Instant::now();
        let follower = Arc::clone(&links);
        let follower = tokio::spawn(async move { follower.follow().await });
        let mut looks = links.looked.subscribe();
        let checks: Vec<_> = (0..100)
            .map(|_| {
                let links = Arc::clone(&links);
                tokio::spawn(async move { links.excuse(start).await })
            })
            .collect();
        for (number, check) in (0..).zip(checks) {
            match number % 2 {
                0 => check.abort(),
                _ => assert!(check.await.expect("it ends")),
            }
        }
        assert!(looks.borrow_and_update().is_some());
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        follower.abort();
    }
}
