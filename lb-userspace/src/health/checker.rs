use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};

use super::{
    machine::{Machine, Transition, next_check},
    probe::{self, Outcome},
};
use crate::{
    control::HealthReport,
    domain::{Health, HealthCheck, Name, Probe},
    telemetry::HealthStats,
};

/// Which backend a checker is for. Another address is another backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) service: Name,
    pub(super) backend: Name,
    pub(super) address: SocketAddr,
}

/// What all checkers share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) reports: mpsc::UnboundedSender<HealthReport>,
    /// One permit a socket.
    pub(super) sockets: Arc<Semaphore>,
    pub(super) stats: Arc<HealthStats>,
    /// Where the machines' time starts.
    pub(super) epoch: Instant,
}

/// Checks one backend for ever.
pub(super) struct Checker {
    key: Key,
    shared: Shared,
    machine: Machine,
    /// Changes while the checker runs.
    check: watch::Receiver<HealthCheck>,
}

impl Checker {
    pub(super) fn new(
        key: Key,
        initial: Health,
        check: watch::Receiver<HealthCheck>,
        shared: Shared,
    ) -> Self {
        let (rise, fall) = (check.borrow().rise, check.borrow().fall);
        Self { key, shared, machine: Machine::new(initial, rise, fall), check }
    }

    /// Ends when the sender of the health check is dropped.
    pub(super) async fn run(mut self) {
        let mut check = self.check.borrow_and_update().clone();
        let mut due = Instant::now() + first_check(self.machine.health(), check.interval, fastrand::f64());
        loop {
            if check.probe == Probe::None {
                if self.machine.health() != Health::Healthy {
                    self.machine = Machine::new(Health::Healthy, check.rise, check.fall);
                    self.report(Transition { to: Health::Healthy, detail: "not checked".to_owned() });
                }
                if self.check.changed().await.is_err() {
                    return;
                }
            } else {
                tokio::select! {
                    changed = self.check.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep_until(due) => {
                        // Counted from when the check was due, so that waiting for a socket or a slow answer
                        // lengthens no interval.
                        due += next_check(check.interval, fastrand::f64());
                        self.once(&check).await;
                        due = due.max(Instant::now());
                    }
                }
            }
            let latest = self.check.borrow_and_update().clone();
            if latest != check {
                check = latest;
                self.machine.set_thresholds(check.rise, check.fall);
                // The new interval counts from now, unless the next check comes sooner anyway.
                due = due.min(Instant::now() + check.interval.mul_f64(fastrand::f64()));
            }
        }
    }

    async fn once(&mut self, check: &HealthCheck) {
        // The semaphore is never closed.
        let Ok(_socket) = self.shared.sockets.acquire().await else { return };
        let address = self.key.address;
        let target = SocketAddr::new(address.ip(), check.port.unwrap_or(address.port()));
        let started = Instant::now();
        let outcome = probe::check(&check.probe, target, check.timeout).await;
        match &outcome {
            // An ineligible server answered as it should.
            Outcome::Passed { .. } | Outcome::Ineligible { .. } => {
                self.shared.stats.observe_check(started.elapsed(), true)
            }
            Outcome::Failed { .. } => self.shared.stats.observe_check(started.elapsed(), false),
            Outcome::Skipped { detail } => {
                if self.shared.stats.observe_skipped(started.into_std()) {
                    let Key { service, backend, .. } = &self.key;
                    log::warn!("a check of backend {service}/{backend} could not be made: {detail}");
                }
            }
        }
        if let Some(transition) = self.machine.observe(self.shared.epoch.elapsed(), outcome) {
            self.report(transition);
        }
    }

    fn report(&self, transition: Transition) {
        let Key { service, backend, address } = self.key.clone();
        log::info!("backend {service}/{backend} is {}: {}", transition.to.as_str(), transition.detail);
        self.shared.stats.observe_transition(&service, &backend, transition.to);
        let (health, detail) = (transition.to, transition.detail);
        // Nobody listens only while the daemon stops.
        let _ = self.shared.reports.send(HealthReport { service, backend, address, health, detail });
    }
}

/// Delay of a checker's first check. A backend without a verdict waits for it, so it comes soon; the others are
/// spread over the interval.
fn first_check(health: Health, interval: Duration, random: f64) -> Duration {
    interval.mul_f64(random * if health == Health::Unknown { 0.1 } else { 1.0 })
}
