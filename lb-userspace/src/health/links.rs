//! This host's own links: while none of the interfaces that it is attached to has one, failed checks speak of it and of
//! nobody else.
//!
//! The kernel tells when a link changes, but it may take its time (losses are told once a second at the most), and a check
//! may fail at once. So the links are looked at whenever a check has failed, and the kernel's count of losses tells of what
//! was over by then.

mod record;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use tokio::{
    sync::{self, watch},
    time::Instant,
};

use crate::interfaces::{self, Carrier};
use record::Record;

pub(super) use record::Phase;

/// The links of the interfaces that are configured. Without any, or where they can't be looked at, every check counts.
#[derive(Default)]
pub struct Links {
    names: Arc<[String]>,
    record: Mutex<Record>,
    /// When the latest look began. Who looks has it, so that many who want to look at the same time make for one look.
    looked: sync::Mutex<Option<Instant>>,
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
        self.look().await;
        self.record().excuses(began)
    }

    /// Looks whenever something has changed, so that everybody is told in time. Never ends.
    pub(super) async fn follow(&self) {
        if self.names.is_empty() {
            return std::future::pending().await;
        }
        let mut phases = self.phases();
        let mut changes = None;
        loop {
            if changes.is_none() {
                changes =
                    interfaces::changes().inspect_err(|error| log::error!("following links: {error}")).ok();
            }
            self.look().await;
            let settles = self.record().settles().filter(|_| *phases.borrow_and_update() == Phase::Settling);
            // A link that settles is looked at when it has, and one of which nobody tells now and then.
            let pause = settles.or_else(|| changes.is_none().then(|| Instant::now() + RETRY));
            tokio::select! {
                told = next(&mut changes) => if told.is_none() { changes = None },
                _ = phases.changed() => {}
                () = tokio::time::sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => {}
            }
        }
    }

    /// Looks, unless somebody begins to meanwhile.
    async fn look(&self) {
        if self.names.is_empty() {
            return;
        }
        let asked = Instant::now();
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|looked| looked >= asked) {
            return;
        }
        let began = Instant::now();
        let names = Arc::clone(&self.names);
        let known = self.record().indices();
        let look =
            move || names.iter().zip(known).map(|(name, known)| carrier(name, known)).collect::<Vec<_>>();
        let looks = tokio::task::spawn_blocking(look).await;
        *looked = Some(began);
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

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The link of an interface; `known` is the number it had. One that was given another name is still attached.
fn carrier(name: &str, known: u32) -> Option<Carrier> {
    let index = interfaces::index(name)?;
    interfaces::carrier(if index == 0 { known } else { index }).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_was_given_another_name_has_the_link_that_it_had() {
        let index = |name, known| carrier(name, known).expect("the kernel tells").index;
        assert_eq!((index("lo", 0), index("no-such-if", 1)), (1, 1));
        assert_eq!((index("no-such-if", 0), index("no-such-if", 0x7fff_fff0)), (0, 0));
    }
}
