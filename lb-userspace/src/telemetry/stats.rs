use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::domain::{Health, Name};

/// What the control task tells of its publishes.
#[derive(Debug)]
pub struct PublishStats {
    durations: Histogram,
}

/// What health checks tell of themselves.
#[derive(Debug)]
pub struct HealthStats {
    passed: Histogram,
    failed: Histogram,
    skipped: AtomicU64,
    held: AtomicU64,
    details: Mutex<Details>,
}

#[derive(Debug, Default)]
struct Details {
    transitions: BTreeMap<(Name, Name), Transitions>,
    warned: Option<Instant>,
}

/// How often a backend became what it can become since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Transitions {
    pub(super) healthy: u64,
    pub(super) unhealthy: u64,
    pub(super) ineligible: u64,
}

impl PublishStats {
    pub fn new() -> Self {
        Self { durations: Histogram::new(&PUBLISH_BOUNDS) }
    }

    /// A change was published, from the first write to a map to the last, in `duration`.
    pub fn observe(&self, duration: Duration) {
        self.durations.observe(duration);
    }

    pub(super) fn durations(&self) -> Distribution {
        self.durations.read()
    }
}

impl HealthStats {
    pub fn new() -> Self {
        Self {
            passed: Histogram::new(&CHECK_BOUNDS),
            failed: Histogram::new(&CHECK_BOUNDS),
            skipped: AtomicU64::new(0),
            held: AtomicU64::new(0),
            details: Mutex::default(),
        }
    }

    pub fn observe_check(&self, duration: Duration, passed: bool) {
        if passed { &self.passed } else { &self.failed }.observe(duration);
    }

    /// Counts a check that could not be made. Returns whether to warn of it, which is once in 10 s.
    pub fn observe_skipped(&self, now: Instant) -> bool {
        self.skipped.fetch_add(1, Relaxed);
        let mut details = self.details.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet =
            details.warned.is_some_and(|warned| now.saturating_duration_since(warned) < WARN_INTERVAL);
        if !quiet {
            details.warned = Some(now);
        }
        !quiet
    }

    /// Counts a check that did not pass and does not count, because this host had no link.
    pub fn observe_held(&self) {
        self.held.fetch_add(1, Relaxed);
    }

    pub fn observe_transition(&self, service: &Name, backend: &Name, to: Health) {
        let mut details = self.details.lock().unwrap_or_else(PoisonError::into_inner);
        let transitions = details.transitions.entry((service.clone(), backend.clone())).or_default();
        match to {
            Health::Healthy => transitions.healthy += 1,
            Health::Unhealthy => transitions.unhealthy += 1,
            Health::Ineligible => transitions.ineligible += 1,
            Health::Unknown => {}
        }
    }

    /// Forgets the backends that are no more, so that labels stay bounded.
    pub fn retain(&self, mut is_there: impl FnMut(&Name, &Name) -> bool) {
        let mut details = self.details.lock().unwrap_or_else(PoisonError::into_inner);
        details.transitions.retain(|(service, backend), _| is_there(service, backend));
    }

    pub(super) fn checks(&self) -> [(&'static str, Distribution); 2] {
        [("passed", self.passed.read()), ("failed", self.failed.read())]
    }

    pub(super) fn skipped(&self) -> u64 {
        self.skipped.load(Relaxed)
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    pub(super) fn transitions(&self) -> BTreeMap<(Name, Name), Transitions> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner).transitions.clone()
    }
}

impl Default for PublishStats {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for HealthStats {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts of durations by upper bound, in seconds.
#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64],
    counts: Mutex<Counts>,
}

#[derive(Clone, Debug)]
struct Counts {
    /// One for each bound and one for everything above.
    buckets: Vec<u64>,
    sum: Duration,
}

/// A histogram as it was at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Distribution {
    /// Upper bound in seconds, and how many were at most that; without the last bucket, whose count is `count`.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) sum: f64,
    pub(super) count: u64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = Counts { buckets: vec![0; bounds.len() + 1], sum: Duration::ZERO };
        Self { bounds, counts: Mutex::new(counts) }
    }

    fn observe(&self, duration: Duration) {
        let index = self.bounds.partition_point(|&bound| bound < duration.as_secs_f64());
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = counts.buckets.get_mut(index) {
            *bucket += 1;
        }
        counts.sum += duration;
    }

    fn read(&self) -> Distribution {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut count = 0;
        let cumulative = self.bounds.iter().zip(&counts.buckets).map(|(&bound, &bucket)| {
            count += bucket;
            (bound, count)
        });
        let buckets = cumulative.collect();
        Distribution { buckets, sum: counts.sum.as_secs_f64(), count: counts.buckets.iter().sum() }
    }
}

/// A check takes from a fraction of a millisecond on the same rack to its timeout.
const CHECK_BOUNDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// One slot to a million.
const PUBLISH_BOUNDS: [f64; 10] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1.0];
const WARN_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_bounds_belong_to_the_lower_one() {
        let stats = PublishStats::new();
        for microseconds in [50, 100, 101, 2_000_000] {
            stats.observe(Duration::from_micros(microseconds));
        }
        let read = stats.durations();
        assert_eq!(read.buckets[0], (0.0001, 2));
        assert_eq!(read.buckets[1], (0.00025, 3));
        assert_eq!(read.buckets[9], (1.0, 3));
        assert_eq!((read.count, read.sum), (4, 2.000_251));
    }

    #[test]
    fn skipped_checks_are_all_counted_and_seldom_warned_of() {
        let stats = HealthStats::new();
        let start = Instant::now();
        let warned =
            [0, 1, 9, 10, 11].map(|seconds| stats.observe_skipped(start + Duration::from_secs(seconds)));
        assert_eq!(warned, [true, false, false, true, false]);
        assert_eq!(stats.skipped(), 5);
    }

    #[test]
    fn transitions_of_removed_backends_are_forgotten() {
        let stats = HealthStats::new();
        let name = |text: &str| text.parse::<Name>().unwrap();
        stats.observe_transition(&name("web"), &name("a"), Health::Healthy);
        stats.observe_transition(&name("web"), &name("b"), Health::Unhealthy);
        stats.retain(|_, backend| backend.as_str() == "b");
        let expected = Transitions { unhealthy: 1, ..Transitions::default() };
        assert_eq!(stats.transitions(), BTreeMap::from([((name("web"), name("b")), expected)]));
    }
}
