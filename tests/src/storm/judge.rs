//! What accounts for which failure, and which failures nothing accounts for. Pure.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::fault::{Cost, Kind, Load, Target, seconds};

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cause {
    Refused,
    /// Or closed before the answer was complete.
    Reset,
    TimedOut,
    /// Not what was asked for, or by another backend than before.
    WrongAnswer,
    /// The client could not even ask.
    NotAsked,
}

/// A request that failed. Times are from the storm's begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Failure {
    pub(super) load: Load,
    #[serde(serialize_with = "seconds")]
    pub(super) asked: Duration,
    #[serde(serialize_with = "seconds")]
    pub(super) failed: Duration,
    /// When the connection was begun.
    #[serde(serialize_with = "seconds")]
    pub(super) opened: Duration,
    pub(super) cause: Cause,
    /// Who had answered on this connection before.
    pub(super) backend: Option<String>,
    pub(super) client: String,
}

/// The time in which a fault may cost requests: from when it begins until it has to be detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Number of the fault in the plan.
    pub(super) fault: usize,
    pub(super) kind: Kind,
    pub(super) target: Target,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

impl Window {
    /// Whether it accounts for a failure: the request was under way in that time, of a kind that the fault costs, failed
    /// as it makes requests fail, and was to the backend that was struck, as far as is known.
    pub(super) fn accounts_for(&self, failure: &Failure) -> bool {
        let nature = self.kind.nature();
        let is_of_target = |load: Option<Load>| {
            let backend = failure.backend.as_ref();
            load.is_none_or(|load| load == failure.load)
                && backend.is_none_or(|backend| *backend == self.target.to_string())
        };
        let is_of_fault = match nature.cost {
            Cost::Nothing => false,
            Cost::OfBalancer => true,
            Cost::OfBackend(load) => is_of_target(load),
        };
        let under_way = failure.asked <= self.until && failure.failed >= self.from;
        is_of_fault && under_way && nature.causes.contains(&failure.cause)
    }
}

/// A connection that the router has sent elsewhere is asked something again within this time.
const SOON: Duration = Duration::from_secs(1);

/// What accounts for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// The fault of this number.
    Fault(usize),
    /// The router sent the connection to another load balancer because this one was gone, and that one had not heard of it yet.
    Lost,
    /// The same because a load balancer was withdrawn or came back: no death is to blame.
    Moved,
    Nothing,
}

/// All that accounts for failures.
#[derive(Debug, Clone, Default)]
pub(super) struct Accounting {
    pub(super) windows: Vec<Window>,
    /// When the router's ways to the VIPs changed.
    pub(super) ways: Vec<Duration>,
    /// In which time a load balancer's peers have heard of a connection.
    pub(super) heard: Duration,
}

impl Accounting {
    pub(super) fn account(&self, failure: &Failure) -> Account {
        // Of several that could have done it the one that began when the request was made.
        let could = self.windows.iter().filter(|window| window.accounts_for(failure));
        let window = could.min_by_key(|window| window.from.abs_diff(failure.asked));
        match window {
            Some(window) => Account::Fault(window.fault),
            None => self.account_for_move(failure),
        }
    }

    /// What accounts for a failure that no fault does: a young connection that was reset, as another backend's host resets it,
    /// when the ways changed.
    fn account_for_move(&self, failure: &Failure) -> Account {
        let broke_at = |ways: Duration| {
            failure.cause == Cause::Reset
                && failure.opened <= ways
                && ways <= failure.opened + self.heard
                && ways <= failure.failed
                && failure.asked <= ways + SOON
        };
        let is_loss = |ways: Duration| {
            let mut losses =
                self.windows.iter().filter(|window| window.kind.nature().cost == Cost::OfBalancer);
            losses.any(|window| window.from <= ways && ways <= window.until)
        };
        let moves: Vec<_> = self.ways.iter().copied().filter(|ways| broke_at(*ways)).collect();
        match moves.is_empty() {
            true => Account::Nothing,
            false if moves.into_iter().any(is_loss) => Account::Lost,
            false => Account::Moved,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed out",
            Self::WrongAnswer => "wrong answer",
            Self::NotAsked => "not asked",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = match self.load {
            Load::Web => "request",
            Load::Live => "request on a long-lived connection",
        };
        let (asked, failed) = (self.asked.as_secs_f64(), self.failed.as_secs_f64());
        write!(f, "{load} of {}, asked at {asked:.3} s, {} at {failed:.3} s", self.client, self.cause)?;
        if self.load == Load::Live {
            write!(f, ", opened at {:.3} s", self.opened.as_secs_f64())?;
        }
        self.backend.as_ref().map_or(Ok(()), |backend| write!(f, ", of {backend}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    fn failure(load: Load, asked: u64, failed: u64, cause: Cause, backend: Option<&str>) -> Failure {
        let (client, backend) = ("10.100.0.1".to_owned(), backend.map(str::to_owned));
        let opened = ms(asked - 1_000);
        Failure { load, asked: ms(asked), failed: ms(failed), opened, cause, backend, client }
    }

    /// backend2's web server is killed at 10 s, lb1 is cut off at 20 s, lb0's daemon is killed at 30 s, backend4's server
    /// of long-lived connections at 40 s.
    fn accounting() -> Accounting {
        let kinds = [
            (Kind::WebKilled, Target::Backend(2)),
            (Kind::BalancerCut, Target::Balancer(1)),
            (Kind::DaemonKilled, Target::Balancer(0)),
            (Kind::LiveKilled, Target::Backend(4)),
        ];
        let window = |(fault, (kind, target))| {
            let from = 10_000 * (fault as u64 + 1);
            Window { fault, kind, target, from: ms(from), until: ms(from + 800) }
        };
        let windows = kinds.into_iter().enumerate().map(window).collect();
        // lb1 is gone from the router's ways, and comes back to them.
        Accounting { windows, ways: vec![ms(20_300), ms(35_000)], heard: ms(600) }
    }

    fn account(failure: &Failure) -> Option<usize> {
        match accounting().account(failure) {
            Account::Fault(fault) => Some(fault),
            Account::Nothing => None,
            Account::Lost | Account::Moved => panic!("{failure}"),
        }
    }

    #[test]
    fn a_failure_in_the_time_a_death_takes_to_be_detected_is_accounted_for() {
        let of = |failure| account(&failure);
        assert_eq!(of(failure(Load::Web, 10_100, 10_101, Cause::Refused, None)), Some(0));
        // Asked before, and broken by the death.
        assert_eq!(of(failure(Load::Web, 9_999, 10_002, Cause::Reset, None)), Some(0));
        assert_eq!(of(failure(Load::Live, 20_300, 25_300, Cause::TimedOut, Some("backend1"))), Some(1));
        assert_eq!(of(failure(Load::Live, 40_050, 40_051, Cause::Reset, Some("backend4"))), Some(3));
    }

    #[test]
    fn of_two_faults_the_one_counts_that_began_when_the_request_was_made() {
        let window = |fault, kind, from| Window {
            fault,
            kind,
            target: Target::Balancer(1),
            from: ms(from),
            until: ms(from + 600),
        };
        let windows = vec![window(0, Kind::BackendUnplugged, 10_000), window(1, Kind::BalancerFlaps, 14_900)];
        let accounting = Accounting { windows, ..Accounting::default() };
        let unanswered = failure(Load::Web, 10_100, 15_100, Cause::TimedOut, None);
        assert_eq!(accounting.account(&unanswered), Account::Fault(0));
    }

    #[test]
    fn a_failure_outside_of_that_time_is_found() {
        let of = |failure| account(&failure);
        // Before any fault, between two, a moment too late, after all.
        for (asked, failed) in [(5_000, 5_001), (15_000, 15_001), (10_801, 10_802), (50_000, 50_001)] {
            assert_eq!(of(failure(Load::Web, asked, failed, Cause::Refused, None)), None, "{asked}");
        }
        // It had failed before.
        assert_eq!(of(failure(Load::Web, 9_000, 9_999, Cause::Refused, None)), None);
    }

    #[test]
    fn a_failure_that_the_fault_can_not_have_caused_is_found() {
        let of = |failure| account(&failure);
        // The other service; another backend; a moved connection while a load balancer is cut off; a dead daemon.
        for unaccounted in [
            failure(Load::Live, 10_100, 10_101, Cause::Reset, Some("backend2")),
            failure(Load::Live, 40_050, 40_051, Cause::Reset, Some("backend5")),
            failure(Load::Live, 20_100, 20_101, Cause::Reset, Some("backend1")),
            failure(Load::Web, 30_100, 30_101, Cause::Refused, None),
            failure(Load::Web, 30_100, 35_100, Cause::TimedOut, None),
        ] {
            assert_eq!(of(unaccounted.clone()), None, "{unaccounted}");
        }
        // Nothing accounts for a wrong answer.
        for asked in [10_100, 20_100, 30_100, 40_100] {
            let wrong = failure(Load::Live, asked, asked + 1, Cause::WrongAnswer, Some("backend4"));
            assert_eq!(of(wrong), None);
        }
    }

    #[test]
    fn only_a_connection_too_young_to_be_heard_of_may_break_when_the_ways_change() {
        let reset = |opened: u64, asked: u64| {
            let failure = failure(Load::Live, asked, asked + 1, Cause::Reset, Some("backend1"));
            accounting().account(&Failure { opened: ms(opened), ..failure })
        };
        assert_eq!(reset(20_200, 20_350), Account::Lost);
        assert_eq!(reset(19_600, 20_350), Account::Nothing, "it was old enough");
        assert_eq!(reset(20_200, 20_250), Account::Nothing, "it broke before");
        assert_eq!(reset(20_400, 20_500), Account::Nothing, "it was opened after that");
        assert_eq!(reset(20_200, 21_400), Account::Nothing, "it broke long after that");
        assert_eq!(reset(34_900, 35_050), Account::Moved);
        assert_eq!(reset(34_300, 35_050), Account::Nothing, "it was old enough");
        let wrong = failure(Load::Live, 20_350, 20_351, Cause::WrongAnswer, Some("backend1"));
        assert_eq!(accounting().account(&Failure { opened: ms(20_200), ..wrong }), Account::Nothing);
    }
}
