#[cfg(test)]
mod tests;

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use futures_util::future::OptionFuture;
use tokio::{
    sync::watch,
    task::{self, AbortHandle, JoinHandle, JoinSet},
    time::Instant,
};

use super::{
    agenda::{Agenda, CheckId, Key, Subject, Wanted},
    links::{Links, Phase},
    probe::{self, Outcome},
    real_path::{RealPath, Way},
    sockets,
};
use crate::{
    control::{self, Command, HealthReport, Rejected, Snapshot},
    domain::Via,
    telemetry::HealthStats,
};

/// Checks every backend of every service from now on and reports transitions to the control task. Ends when the
/// control task does.
pub fn spawn(
    handle: control::Handle,
    stats: Arc<HealthStats>,
    real_path: RealPath,
    links: Arc<Links>,
) -> JoinHandle<()> {
    let snapshots = handle.watch();
    let scheduler = Scheduler::new(snapshots, stats, Some(real_path), Arc::clone(&links), sockets::budget());
    let checks = scheduler.run(move |reports| {
        let handle = handle.clone();
        async move { handle.submit(Command::Health(reports)).await.map(drop) }
    });
    tokio::spawn(async move {
        tokio::select! {
            () = checks => {}
            () = links.follow() => {}
        }
    })
}

struct Scheduler {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    stats: Arc<HealthStats>,
    /// `None` where there is no data plane.
    real_path: Option<Arc<RealPath>>,
    links: Arc<Links>,
    agenda: Agenda,
    /// The checks under way, at most `room`.
    probes: JoinSet<Finding>,
    under_way: HashMap<task::Id, UnderWay>,
    room: usize,
    /// Where the agenda's time starts.
    epoch: Instant,
    /// Reported but not yet accepted by the control task; the latest of each backend.
    pending: HashMap<Key, HealthReport>,
}

struct UnderWay {
    check: CheckId,
    abort: AbortHandle,
}

/// What a check found, and how long it took.
struct Finding {
    outcome: Outcome,
    took: Duration,
    /// It did not pass, and this host had no link meanwhile.
    excused: bool,
    /// It was answered, and others may not have been reached yet.
    early: bool,
}

impl Scheduler {
    fn new(
        snapshots: watch::Receiver<Arc<Snapshot>>,
        stats: Arc<HealthStats>,
        real_path: Option<RealPath>,
        links: Arc<Links>,
        room: usize,
    ) -> Self {
        Self {
            snapshots,
            stats,
            real_path: real_path.map(Arc::new),
            links,
            agenda: Agenda::new(fastrand::Rng::new()),
            probes: JoinSet::new(),
            under_way: HashMap::new(),
            room,
            epoch: Instant::now(),
            pending: HashMap::new(),
        }
    }

    async fn run<F: Future<Output = Result<(), Rejected>>>(
        mut self,
        submit: impl Fn(Vec<HealthReport>) -> F,
    ) {
        let mut next_report = Instant::now();
        let mut pending_since = None;
        let mut reporting = pin!(None);
        let mut phases = self.links.phases();
        self.follow();
        loop {
            self.start_due();
            let next_due = self.agenda.next_due().map(|due| self.epoch + due);
            let wait = next_due.filter(|_| self.probes.len() < self.room);
            pending_since = match self.pending.is_empty() {
                true => None,
                false => pending_since.or_else(|| Some(Instant::now())),
            };
            let report_at = match pending_since {
                // Others are about to have their first verdicts, too, and those of a service go into its table together.
                Some(since) if self.agenda.awaits_first_checks() => next_report.max(since + REPORT_INTERVAL),
                _ => next_report,
            };
            tokio::select! {
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.follow();
                }
                Some(ended) = self.probes.join_next_with_id() => self.take(ended),
                Ok(()) = phases.changed() => {
                    // By then neighbours are known, and all who are well pass together.
                    if *phases.borrow_and_update() == Phase::Counting {
                        self.hurry();
                    }
                }
                () = tokio::time::sleep_until(wait.unwrap_or(self.epoch)), if wait.is_some() => {}
                // But for first checks the first transition goes at once; those of the following 100 ms go together.
                () = tokio::time::sleep_until(report_at), if reporting.is_none() && !self.pending.is_empty() => {
                    while let Some(ended) = self.probes.try_join_next_with_id() {
                        self.take(ended);
                    }
                    next_report = Instant::now() + REPORT_INTERVAL;
                    let reports = self.pending.clone();
                    let answer = submit(reports.values().cloned().collect());
                    reporting.set(Some(async { (answer.await, reports) }));
                }
                // Checks go on while the control task is busy.
                Some((answer, reports)) = OptionFuture::from(reporting.as_mut().as_pin_mut()) => {
                    reporting.set(None);
                    match answer {
                        Ok(()) => {
                            self.pending.retain(|key, report| reports.get(key) != Some(report));
                            pending_since = None;
                        }
                        Err(Rejected::Stopping) => return,
                        Err(error) => {
                            log::error!("health of {} backends not applied, trying again: {error}",
                                reports.len());
                            next_report = Instant::now() + RETRY_INTERVAL;
                        }
                    }
                }
            }
        }
    }

    fn start_due(&mut self) {
        while self.probes.len() < self.room {
            let Some((check, subject)) = self.agenda.start(self.epoch.elapsed()) else { return };
            let started = Instant::now();
            let (real_path, links) = (self.real_path.clone(), Arc::clone(&self.links));
            let abort = self.probes.spawn(async move {
                let outcome = made(&subject, real_path.as_deref()).await;
                let took = started.elapsed();
                // Who answers otherwise was reached.
                let is_doubtful = matches!(outcome, Outcome::Failed { .. } | Outcome::Skipped { .. });
                let excused = is_doubtful && links.excuse(started).await;
                let early = !is_doubtful && links.is_settling().await;
                Finding { outcome, took, excused, early }
            });
            self.under_way.insert(abort.id(), UnderWay { check, abort });
        }
    }

    /// Checks whoever has no verdict yet, now that checks count.
    fn hurry(&mut self) {
        let void = self.agenda.hurry_unknown(self.epoch.elapsed());
        self.under_way.retain(|_, UnderWay { check, abort }| {
            let goes_on = !void.contains(check);
            if !goes_on {
                abort.abort();
            }
            goes_on
        });
    }

    fn take(&mut self, ended: Result<(task::Id, Finding), task::JoinError>) {
        let (task, finding) = match ended {
            Ok((task, finding)) => (task, Some(finding)),
            Err(error) => {
                if error.is_panic() {
                    log::error!("a bug: a health check panicked: {error}");
                }
                (error.id(), None)
            }
        };
        let Some(UnderWay { check, .. }) = self.under_way.remove(&task) else { return };
        let (outcome, early) = match finding {
            Some(Finding { excused: true, .. }) => {
                self.stats.observe_held();
                // Said once for all of them, and not of each backend.
                let held = Outcome::Skipped { detail: "this host had no link".to_owned() };
                self.agenda.finished(check, self.epoch.elapsed(), &held);
                return;
            }
            Some(Finding { outcome, took, early, .. }) => {
                self.count(&outcome, took);
                (outcome, early)
            }
            None => (Outcome::Skipped { detail: "the check did not end".to_owned() }, false),
        };
        for remark in self.agenda.remarks(check, &outcome) {
            let HealthReport { service, backend, detail, .. } = &remark;
            log::info!("backend {service}/{backend}: {detail}");
            self.pending.insert(key(&remark), remark);
        }
        let now = self.epoch.elapsed();
        let reports = match early {
            // Whoever is the first of a service makes its table wait for the others, who are checked when failures count.
            true => self.agenda.finished_early(check, now, &outcome),
            false => self.agenda.finished(check, now, &outcome),
        };
        for report in reports {
            self.tell(report);
        }
    }

    fn count(&self, outcome: &Outcome, took: Duration) {
        match outcome {
            // An ineligible server answered as it should.
            Outcome::Passed { .. } | Outcome::Ineligible { .. } => self.stats.observe_check(took, true),
            Outcome::Failed { .. } => self.stats.observe_check(took, false),
            Outcome::Skipped { detail } => {
                if self.stats.observe_skipped(Instant::now().into_std()) {
                    log::warn!("a health check could not be made: {detail}");
                }
            }
        }
    }

    fn tell(&mut self, report: HealthReport) {
        let HealthReport { service, backend, health, detail, .. } = &report;
        log::info!("backend {service}/{backend} is {}: {detail}", health.as_str());
        self.stats.observe_transition(service, backend, *health);
        self.pending.insert(key(&report), report);
    }

    /// Checks the backends of the latest snapshot, and no others.
    fn follow(&mut self) {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let wanted = snapshot.services.iter().flat_map(|view| {
            view.backends.iter().map(|backend| Wanted {
                key: Key {
                    service: view.service.name.clone(),
                    backend: backend.name.clone(),
                    address: backend.address,
                },
                health: backend.health,
                check: view.service.health.clone(),
                way: (view.service.health.via == Via::Vip).then(|| Way {
                    vip: view.service.vip.address,
                    index: backend.index,
                    tunnels: view.service.forwarding.tunnels(),
                }),
            })
        });
        for report in self.agenda.follow(self.epoch.elapsed(), wanted.collect()) {
            self.pending.insert(key(&report), report);
        }
        for UnderWay { check, abort } in self.under_way.values() {
            if !self.agenda.wants(*check) {
                abort.abort();
            }
        }
        self.pending.retain(|key, _| self.agenda.knows(key));
        let there = self.agenda.names();
        self.stats.retain(|service, backend| there.contains(&(service, backend)));
    }
}

/// What one check finds.
async fn made(subject: &Subject, real_path: Option<&RealPath>) -> Outcome {
    match (&subject.way, real_path) {
        (None, _) => probe::check(&subject.check, subject.address).await,
        (Some(way), Some(real_path)) => real_path.check(&subject.check, subject.address, way).await,
        (Some(_), None) => Outcome::Skipped { detail: "there is no data plane to carry it".to_owned() },
    }
}

fn key(report: &HealthReport) -> Key {
    Key { service: report.service.clone(), backend: report.backend.clone(), address: report.address }
}

/// At most ten changes a second come from health.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
