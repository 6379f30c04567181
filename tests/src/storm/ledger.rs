//! What became of requests.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use super::fault::Load;
use super::judge::Failure;

/// Filled by the clients while they run.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    answered: BTreeMap<Load, u64>,
    /// Connections that were to live for a while.
    pub(super) connections: u64,
    /// Those that clients hold, by the backend that answered.
    open: BTreeMap<String, u64>,
    /// Microseconds from when a request was made to its last byte.
    took: BTreeMap<Load, Histogram<u64>>,
    pub(super) failures: Vec<Failure>,
}

impl Ledger {
    pub(super) fn new() -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, 60_000_000, 3).context("make a histogram");
        let took = BTreeMap::from([(Load::Web, histogram()?), (Load::Live, histogram()?)]);
        Ok(Self {
            answered: BTreeMap::new(),
            connections: 0,
            open: BTreeMap::new(),
            took,
            failures: Vec::new(),
        })
    }

    pub(super) fn answer(&mut self, load: Load, took: Duration) {
        *self.answered.entry(load).or_default() += 1;
        if let Some(histogram) = self.took.get_mut(&load) {
            histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// A long-lived connection is there.
    pub(super) fn hold(&mut self, backend: &str) {
        *self.open.entry(backend.to_owned()).or_default() += 1;
    }

    /// It is gone, however it ended.
    pub(super) fn release(&mut self, backend: &str) {
        if let Some(open) = self.open.get_mut(backend) {
            *open -= 1;
        }
    }

    pub(super) fn open(&self, backend: &str) -> u64 {
        self.open.get(backend).copied().unwrap_or_default()
    }

    pub(super) fn answered(&self, load: Load) -> u64 {
        self.answered.get(&load).copied().unwrap_or_default()
    }

    pub(super) fn failed(&self, load: Load) -> u64 {
        self.failures.iter().filter(|failure| failure.load == load).count() as u64
    }

    /// Milliseconds that this part of the answered requests took at most.
    pub(super) fn milliseconds(&self, load: Load, part: f64) -> f64 {
        self.took.get(&load).map_or(0.0, |took| took.value_at_quantile(part) as f64 / 1_000.0)
    }
}
