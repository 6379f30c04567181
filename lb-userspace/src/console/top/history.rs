//! What rates were a while ago, for small charts.

use std::collections::{HashMap, VecDeque};

use crate::{
    api::v1,
    console::rates::{Rate, StatusRates},
};

/// Trails of everything that is there; what is gone is forgotten.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) received: Trail,
    pub(super) dropped: Trail,
    drops: HashMap<String, Trail>,
    services: HashMap<String, ServiceTrail>,
    looks: u64,
}

#[derive(Debug, Default)]
struct ServiceTrail {
    trail: Trail,
    backends: HashMap<String, (Trail, u64)>,
    seen: u64,
}

/// The latest rates of one thing, in packets a second.
#[derive(Debug, Default)]
pub(super) struct Trail(VecDeque<f32>);

impl History {
    pub(super) fn push(&mut self, status: &v1::Status, rates: &StatusRates) {
        self.looks += 1;
        let looks = self.looks;
        self.received.push(rates.received);
        self.dropped.push(rates.verdicts.map(|verdicts| verdicts.drop));
        for (reason, rate) in &rates.drops {
            entry(&mut self.drops, reason).push(*rate);
        }
        for (service, rates) in status.services.iter().zip(&rates.services) {
            let of = entry(&mut self.services, &service.name);
            of.seen = looks;
            of.trail.push(packets(rates.rate));
            for (backend, rate) in service.backends.iter().zip(&rates.backends) {
                let (trail, seen) = entry(&mut of.backends, &backend.name);
                *seen = looks;
                trail.push(packets(*rate));
            }
            of.backends.retain(|_, (_, seen)| *seen == looks);
        }
        self.services.retain(|_, of| of.seen == looks);
    }

    pub(super) fn service(&self, service: &str) -> Option<&Trail> {
        self.services.get(service).map(|of| &of.trail)
    }

    pub(super) fn backend(&self, service: &str, backend: &str) -> Option<&Trail> {
        self.services.get(service)?.backends.get(backend).map(|(trail, _)| trail)
    }

    pub(super) fn drops(&self, reason: &str) -> Option<&Trail> {
        self.drops.get(reason)
    }
}

impl Trail {
    /// `None` where it could not be told.
    pub(super) fn push(&mut self, rate: Option<f64>) {
        if self.0.len() == LENGTH {
            self.0.pop_front();
        }
        // Sixteen digits are not to be seen in a bar.
        self.0.push_back(rate.map_or(f32::NAN, |rate| rate as f32));
    }

    /// The greatest of the last `width`.
    pub(super) fn peak(&self, width: usize) -> f32 {
        self.last(width).fold(0.0, f32::max)
    }

    /// The last `width` as bars, the greatest of them as high as a line. Where nothing is known there is nothing.
    pub(super) fn bars(&self, width: usize) -> String {
        let peak = self.peak(width);
        let bar = |rate: f32| match rate {
            rate if rate.is_nan() => ' ',
            rate if rate <= 0.0 || peak <= 0.0 => BARS[0],
            // Between 1 and the number of bars.
            rate => BARS[((rate / peak * BARS.len() as f32).ceil() as usize).clamp(1, BARS.len()) - 1],
        };
        let known = self.last(width).count();
        " ".repeat(width - known) + &self.last(width).map(bar).collect::<String>()
    }

    fn last(&self, width: usize) -> impl Iterator<Item = f32> {
        self.0.iter().skip(self.0.len().saturating_sub(width)).copied()
    }
}

fn packets(rate: Option<Rate>) -> Option<f64> {
    rate.map(|rate| rate.packets)
}

/// Like `HashMap::entry`, without a copy of a key that is there.
fn entry<'a, T: Default>(map: &'a mut HashMap<String, T>, key: &str) -> &'a mut T {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), T::default());
    }
    map.get_mut(key).expect("it is there, or was put there")
}

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// As many as a wide terminal shows.
const LENGTH: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_part_of_the_peak() {
        let mut trail = Trail::default();
        assert_eq!(trail.bars(3), "   ");
        for rate in [Some(100.0), None, Some(0.0), Some(1.0), Some(50.0)] {
            trail.push(rate);
        }
        assert_eq!(trail.bars(7), "  █ ▁▁▄");
        // Without the peak, others are higher.
        assert_eq!(trail.bars(3), "▁▁█");
        for _ in 0..2 * LENGTH {
            trail.push(Some(0.0));
        }
        assert_eq!(trail.bars(LENGTH), "▁".repeat(LENGTH));
    }
}
