use std::time::Duration;

use super::Outcome;
use crate::domain::{Health, Pace};

/// What the checks of one backend amount to. Sans-I/O: time is whatever monotonic `now` the caller passes.
///
/// - unknown → healthy at the first passed check; unknown → unhealthy after `fall` failed checks in a row;
/// - healthy → unhealthy after `fall` failed checks in a row;
/// - unhealthy → healthy after `rise` passed checks in a row, and not before the hold-down is over;
/// - anything → ineligible at the first answer that says so: the server states what it is, which is no suspicion that
///   more checks would have to confirm. Ineligible → healthy and ineligible → unhealthy as above.
///
/// Hold-down: a healthy backend that falls within [`STABLE`] of its last recovery is flapping. The first such fall
/// holds it down for [`MIN_HOLD_DOWN`], each further one twice as long as the one before, up to [`MAX_HOLD_DOWN`].
/// Until the hold-down is over passed checks are counted but don't reinstate; the first passed one after it does. A
/// fall that comes later than [`STABLE`] after the last recovery is nobody's flapping: it holds nothing down and the
/// next hold-down starts from the shortest again.
///
/// A skipped check (one that could not be made) changes nothing.
#[derive(Clone, Debug)]
pub struct Machine {
    health: Health,
    rise: u32,
    fall: u32,
    /// Checks in a row with the same outcome; at most one of the two is not 0, and none after an ineligible answer.
    passed: u32,
    failed: u32,
    /// When the backend last went from unhealthy or ineligible to healthy.
    recovered: Option<Duration>,
    /// Length of the latest hold-down; zero if the latest fall had none.
    hold_down: Duration,
    held_until: Duration,
}

/// A backend's health changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub to: Health,
    /// Outcome of the check that did it, in words.
    pub detail: String,
}

impl Machine {
    /// A machine that goes on from `initial`: a backend known as healthy needs `fall` failures like any other.
    /// `rise` and `fall` of 0 count as 1.
    pub fn new(initial: Health, rise: u32, fall: u32) -> Self {
        Self {
            health: initial,
            rise: rise.max(1),
            fall: fall.max(1),
            passed: 0,
            failed: 0,
            recovered: None,
            hold_down: Duration::ZERO,
            held_until: Duration::ZERO,
        }
    }

    pub fn health(&self) -> Health {
        self.health
    }

    pub fn pace(&self) -> Pace {
        match self.health {
            Health::Unknown => Pace::Changing,
            Health::Healthy | Health::Ineligible if self.failed > 0 => Pace::Changing,
            // One that is held down has passed often enough, and time alone is missing.
            Health::Unhealthy | Health::Ineligible if (1..self.rise).contains(&self.passed) => Pace::Changing,
            Health::Unhealthy => Pace::Down,
            Health::Healthy | Health::Ineligible => Pace::Steady,
        }
    }

    /// New thresholds; what was observed so far stays, and they count from the next check on.
    pub fn set_thresholds(&mut self, rise: u32, fall: u32) {
        self.rise = rise.max(1);
        self.fall = fall.max(1);
    }

    /// Takes the outcome of a check that ended at `now`, which never goes back.
    pub fn observe(&mut self, now: Duration, outcome: Outcome) -> Option<Transition> {
        let detail = match outcome {
            Outcome::Skipped { .. } => return None,
            Outcome::Ineligible { detail } => {
                (self.passed, self.failed) = (0, 0);
                let changed = self.health != Health::Ineligible;
                self.health = Health::Ineligible;
                return changed.then_some(Transition { to: Health::Ineligible, detail });
            }
            Outcome::Passed { detail } => {
                self.passed = self.passed.saturating_add(1);
                self.failed = 0;
                detail
            }
            Outcome::Failed { detail } => {
                self.failed = self.failed.saturating_add(1);
                self.passed = 0;
                detail
            }
        };
        let to = match self.health {
            Health::Unknown if self.passed > 0 => Health::Healthy,
            Health::Unhealthy | Health::Ineligible if self.passed >= self.rise && now >= self.held_until => {
                Health::Healthy
            }
            Health::Unknown | Health::Healthy | Health::Ineligible if self.failed >= self.fall => {
                Health::Unhealthy
            }
            _ => return None,
        };
        match (self.health, to) {
            (Health::Healthy, Health::Unhealthy) => self.hold(now),
            (Health::Unhealthy | Health::Ineligible, Health::Healthy) => self.recovered = Some(now),
            _ => {}
        }
        self.health = to;
        Some(Transition { to, detail })
    }

    fn hold(&mut self, now: Duration) {
        let flapping = self.recovered.is_some_and(|recovered| now.saturating_sub(recovered) < STABLE);
        self.hold_down =
            if flapping { (self.hold_down * 2).clamp(MIN_HOLD_DOWN, MAX_HOLD_DOWN) } else { Duration::ZERO };
        self.held_until = now + self.hold_down;
    }
}

/// Time from the start of a check to the start of the next: `interval` shortened by 0 to 20 %, so that the checks of
/// many load balancers don't fall into step. `random` is in [0, 1).
pub fn next_check(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(1.0 - 0.2 * random.clamp(0.0, 1.0))
}

/// A backend that has been up this long since its recovery is not flapping any more.
pub const STABLE: Duration = Duration::from_secs(60);
pub const MIN_HOLD_DOWN: Duration = Duration::from_secs(1);
pub const MAX_HOLD_DOWN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passed() -> Outcome {
        Outcome::Passed { detail: "HTTP 200".into() }
    }

    fn failed() -> Outcome {
        Outcome::Failed { detail: "HTTP 503".into() }
    }

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_new_backend_is_healthy_at_its_first_passed_check() {
        let mut machine = Machine::new(Health::Unknown, 2, 3);
        assert_eq!(machine.observe(at(0), failed()), None);
        let transition = machine.observe(at(1), passed());
        assert_eq!(transition, Some(Transition { to: Health::Healthy, detail: "HTTP 200".into() }));
    }

    #[test]
    fn a_backend_healthy_before_a_restart_needs_fall_failures_in_a_row() {
        let mut machine = Machine::new(Health::Healthy, 2, 3);
        for (time, outcome) in [failed(), failed(), passed(), failed(), failed()].into_iter().enumerate() {
            assert_eq!(machine.observe(at(time as u64), outcome), None);
        }
        let transition = machine.observe(at(9), failed());
        assert_eq!(transition, Some(Transition { to: Health::Unhealthy, detail: "HTTP 503".into() }));
    }

    #[test]
    fn skipped_checks_neither_break_nor_lengthen_a_row() {
        let mut machine = Machine::new(Health::Healthy, 1, 2);
        assert_eq!(machine.observe(at(0), failed()), None);
        for _ in 0..5 {
            assert_eq!(machine.observe(at(1), Outcome::Skipped { detail: "no descriptor".into() }), None);
        }
        assert_eq!(machine.observe(at(2), failed()).map(|transition| transition.to), Some(Health::Unhealthy));
    }

    #[test]
    fn hold_down_doubles_while_flapping_and_is_forgotten_after_a_stable_time() {
        let mut machine = Machine::new(Health::Healthy, 1, 1);
        let mut now = 0;
        // Time from each fall to the reinstatement, with a check passed each 100 ms.
        let mut outage = |up_for: u64| {
            now += up_for;
            assert!(machine.observe(at(now), failed()).is_some());
            let fell = now;
            loop {
                now += 100;
                if machine.observe(at(now), passed()).is_some() {
                    return now - fell;
                }
            }
        };
        let flapping: Vec<u64> = [10_000; 9].into_iter().map(&mut outage).collect();
        assert_eq!(flapping, [100, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(outage(60_000), 100);
        assert_eq!(outage(59_999), 1_000);
    }

    #[test]
    fn an_interval_is_shortened_by_at_most_a_fifth() {
        let interval = Duration::from_secs(10);
        assert_eq!(next_check(interval, 0.0), interval);
        assert_eq!(next_check(interval, 0.5), Duration::from_secs(9));
        assert_eq!(next_check(interval, 1.0), Duration::from_secs(8));
    }

    #[test]
    fn an_ineligible_answer_counts_at_once_and_a_change_of_mind_takes_rise_checks() {
        let mut machine = Machine::new(Health::Healthy, 2, 3);
        let replica = || Outcome::Ineligible { detail: "replica".into() };
        let told = Some(Transition { to: Health::Ineligible, detail: "replica".into() });
        assert_eq!(machine.observe(at(0), replica()), told);
        assert_eq!(machine.observe(at(1), replica()), None);
        assert_eq!(machine.observe(at(2), passed()), None);
        assert_eq!(machine.observe(at(3), replica()), None);
        assert_eq!(machine.observe(at(4), passed()), None);
        assert_eq!(machine.observe(at(5), passed()).map(|transition| transition.to), Some(Health::Healthy));
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Seen {
        Pass,
        Fail,
        Skip,
        Misfit,
    }

    /// The rules read off the whole history each time, with no state of its own but the transitions so far.
    fn model(initial: Health, rise: usize, fall: usize, history: &[(u64, Seen)]) -> Vec<(u64, Health)> {
        let mut transitions: Vec<(u64, Health)> = Vec::new();
        let mut seen: Vec<Seen> = Vec::new();
        for &(now, outcome) in history {
            if outcome == Seen::Skip {
                continue;
            }
            seen.push(outcome);
            let last = |count: usize, wanted: Seen| {
                seen.len() >= count && seen.iter().rev().take(count).all(|&outcome| outcome == wanted)
            };
            let health = transitions.last().map_or(initial, |&(_, health)| health);
            let to = match health {
                Health::Unknown if last(1, Seen::Pass) => Health::Healthy,
                Health::Ineligible if outcome == Seen::Misfit => continue,
                _ if outcome == Seen::Misfit => Health::Ineligible,
                Health::Unhealthy | Health::Ineligible
                    if last(rise, Seen::Pass) && now >= released(initial, &transitions) =>
                {
                    Health::Healthy
                }
                Health::Unhealthy => continue,
                _ if last(fall, Seen::Fail) => Health::Unhealthy,
                _ => continue,
            };
            transitions.push((now, to));
        }
        transitions
    }

    /// When the hold-down of the latest fall ends: 2^(n-1) s after it, n being how many falls in a row (this one the
    /// last) each came within 60 s of the recovery before it.
    fn released(initial: Health, transitions: &[(u64, Health)]) -> u64 {
        let health_before = |index: usize| if index == 0 { initial } else { transitions[index - 1].1 };
        let recovery_before = |index: usize| {
            let earlier = (0..index).rev();
            let mut recoveries = earlier
                .filter(|&at| transitions[at].1 == Health::Healthy && health_before(at) != Health::Unknown);
            recoveries.next().map(|at| transitions[at].0)
        };
        let falls: Vec<usize> = (0..transitions.len())
            .filter(|&at| transitions[at].1 == Health::Unhealthy && health_before(at) == Health::Healthy)
            .collect();
        let flaps = falls
            .iter()
            .rev()
            .take_while(|&&fall| recovery_before(fall).is_some_and(|up| transitions[fall].0 - up < 60_000))
            .count();
        match falls.last() {
            Some(&fall) if flaps > 0 => transitions[fall].0 + (1_000u64 << (flaps - 1).min(10)).min(60_000),
            _ => 0,
        }
    }

    fn outcome_rows() -> impl Strategy<Value = Vec<(u64, Seen)>> {
        // Rows of equal outcomes, so that thresholds above 1 are met often; steps around the hold-downs' lengths.
        let outcome = prop_oneof![4 => Just(Seen::Pass), 4 => Just(Seen::Fail), 1 => Just(Seen::Skip), 1 => Just(Seen::Misfit)];
        let step = prop_oneof![6 => 1u64..900, 3 => 900u64..5_000, 1 => 20_000u64..80_000];
        prop::collection::vec((outcome, step, 1usize..5), 0..60).prop_map(|rows| {
            let mut now = 0;
            let mut history = Vec::new();
            for (outcome, step, count) in rows {
                for _ in 0..count {
                    now += step;
                    history.push((now, outcome));
                }
            }
            history
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn machine_agrees_with_the_model(
            initial in prop::sample::select(Health::ALL.to_vec()),
            rise in 1u32..4,
            fall in 1u32..4,
            history in outcome_rows(),
        ) {
            let mut machine = Machine::new(initial, rise, fall);
            let mut transitions = Vec::new();
            for &(now, seen) in &history {
                let outcome = match seen {
                    Seen::Pass => passed(),
                    Seen::Fail => failed(),
                    Seen::Skip => Outcome::Skipped { detail: String::new() },
                    Seen::Misfit => Outcome::Ineligible { detail: "replica".into() },
                };
                if let Some(transition) = machine.observe(at(now), outcome) {
                    transitions.push((now, transition.to));
                }
            }
            prop_assert_eq!(transitions, model(initial, rise as usize, fall as usize, &history));
        }
    }
}
