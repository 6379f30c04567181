//! A backend that has just come into the table gets its part of new flows in steps.

use std::{collections::BTreeMap, time::Duration};

use crate::domain::Name;

/// How much of its weight a backend has while it starts.
#[derive(Clone, Copy)]
pub(super) struct Start {
    /// Whole seconds, not 0.
    duration: u64,
    /// Boot-time seconds.
    began: u64,
}

impl Start {
    /// `None` where there is no start under way. `began` is 0 for a backend that starts with all of its weight.
    pub(super) fn of(duration: Duration, began: u64, now: u64) -> Option<Self> {
        let start = Self { duration: duration.as_secs(), began };
        (began != 0 && now < began.saturating_add(start.duration)).then_some(start)
    }

    /// 0 to [`STEPS`] - 1.
    fn step(self, now: u64) -> u64 {
        now.saturating_sub(self.began) * STEPS / self.duration
    }

    /// Part of its weight in units, of which [`WHOLE`] are all.
    fn units(self, now: u64) -> u64 {
        FIRST + (WHOLE - FIRST) * self.step(now) / STEPS
    }

    /// When it has more.
    fn next(self, now: u64) -> u64 {
        self.began + ((self.step(now) + 1) * self.duration).div_ceil(STEPS)
    }
}

/// Weights with those in their start reduced, and when that changes. Tables depend on what weights are to each other alone, so
/// that all of them grow where one has to be a tenth.
pub(super) fn reduce(
    weights: &mut BTreeMap<Name, u16>,
    now: u64,
    start: impl Fn(&Name) -> Option<Start>,
) -> Option<u64> {
    let next = weights.keys().filter_map(&start).map(|start| start.next(now)).min()?;
    let largest = weights.values().copied().max().unwrap_or(1).max(1);
    let scale = WHOLE.min(u64::from(u16::MAX / largest));
    for (name, weight) in weights {
        let units = start(name).map_or(WHOLE, |start| start.units(now));
        let reduced = u64::from(*weight) * scale * units / WHOLE;
        // Never more than the largest weight times the scale.
        *weight = u16::try_from(reduced.max(1)).unwrap_or(u16::MAX);
    }
    Some(next)
}

/// Steps after the first.
const STEPS: u64 = 4;
const WHOLE: u64 = 40;
/// A tenth.
const FIRST: u64 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::testing::name;

    /// Weight of "a" as a part of that of "b", which has ten times as much, and when it next changes.
    fn part(weight: u16, duration: u64, now: u64) -> (f64, Option<u64>) {
        let mut weights = BTreeMap::from([(name("a"), weight), (name("b"), weight)]);
        let start =
            |of: &Name| Start::of(Duration::from_secs(duration), u64::from(of.as_str() == "a") * 100, now);
        let next = reduce(&mut weights, now, start);
        (f64::from(weights["a"]) / f64::from(weights["b"]), next)
    }

    #[test]
    fn a_start_takes_five_even_steps_from_a_tenth_to_all() {
        for weight in [1, 7, 1638] {
            let steps: Vec<_> = [100, 107, 108, 115, 123, 129, 130].map(|now| part(weight, 30, now)).to_vec();
            let expected = [
                (0.1, Some(108)),
                (0.1, Some(108)),
                (0.325, Some(115)),
                (0.55, Some(123)),
                (0.775, Some(130)),
                (0.775, Some(130)),
                (1.0, None),
            ];
            assert_eq!(steps, expected, "weight {weight}");
        }
    }

    #[test]
    fn weights_stay_what_they_are_while_nobody_starts() {
        let mut weights = BTreeMap::from([(name("a"), 3), (name("b"), 65_535)]);
        assert_eq!(reduce(&mut weights, 500, |_| Start::of(Duration::from_secs(30), 100, 500)), None);
        assert_eq!(weights.into_values().collect::<Vec<_>>(), [3, 65_535]);
        assert!(Start::of(Duration::ZERO, 100, 100).is_none() && Start::of(Duration::MAX, 0, 100).is_none());
    }

    proptest! {
        /// Whatever the weights and the time: in at most five steps, never down, each where it was told to be.
        #[test]
        fn a_start_never_goes_back(weight in 1u16.., duration in 1u64..3600) {
            let (mut now, mut last, mut steps) = (100, 0.0, 0);
            loop {
                let (share, next) = part(weight, duration, now);
                prop_assert!(share >= last && share <= 1.0 && share > 0.0);
                (last, steps) = (share, steps + 1);
                let Some(next) = next else { break };
                prop_assert!(next > now);
                prop_assert_eq!(part(weight, duration, next - 1).0, share);
                now = next;
            }
            prop_assert!(steps <= 5 && now == 100 + duration, "{} steps, {}", steps, now);
        }
    }
}
