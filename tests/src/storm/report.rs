//! What became of a storm.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::fault::{Fault, Kind, Load};
use super::fleet::Changes;
use super::judge::{Account, Accounting, Cause, Failure};
use super::ledger::Ledger;
use super::{AVAILABILITY, LONG, SHORT_AVAILABILITY, Settings};

/// What became of a storm.
#[derive(Debug)]
pub struct Report {
    settings: Settings,
    lasted: Duration,
    faults: Vec<Fault>,
    ledger: Ledger,
    failures: Vec<(Failure, Account)>,
    changes: Changes,
    /// When the router's ways changed.
    ways: Vec<Duration>,
    /// What could not be done or did not come back.
    trouble: Option<String>,
    /// What happened when, in JSON alone.
    record: Value,
}

/// So many are told one by one.
const TOLD: usize = 40;

impl Report {
    pub(super) fn new(
        settings: Settings,
        lasted: Duration,
        faults: Vec<Fault>,
        accounting: &Accounting,
        mut ledger: Ledger,
        changes: Changes,
        trouble: Option<String>,
    ) -> Self {
        let failures = std::mem::take(&mut ledger.failures);
        let judged = failures.iter().map(|failure| (failure.clone(), accounting.account(failure)));
        let judged = judged.collect();
        ledger.failures = failures;
        Self {
            settings,
            lasted,
            faults,
            ledger,
            failures: judged,
            changes,
            ways: accounting.ways.clone(),
            trouble,
            record: Value::Null,
        }
    }

    /// With what happened when, for its JSON.
    #[must_use]
    pub(super) fn with_record(self, record: Value) -> Self {
        Self { record, ..self }
    }

    /// Requests that were made.
    #[must_use]
    pub fn requests(&self) -> u64 {
        [Load::Web, Load::Live].into_iter().map(|load| self.ledger.answered(load)).sum::<u64>()
            + self.failures.len() as u64
    }

    /// Part of the requests that were answered, 0 to 1.
    #[must_use]
    pub fn availability(&self) -> f64 {
        1.0 - self.failures.len() as f64 / self.requests().max(1) as f64
    }

    /// Number of failures that nothing accounts for.
    #[must_use]
    pub fn unaccounted(&self) -> usize {
        self.failures.iter().filter(|(_, account)| *account == Account::Nothing).count()
    }

    /// Number of young connections that broke outside of any death's time.
    fn moved(&self) -> usize {
        self.failures.iter().filter(|(_, account)| *account == Account::Moved).count()
    }

    /// Whether it was passed.
    ///
    /// # Errors
    ///
    /// Says what was not.
    pub fn verdict(&self) -> Result<()> {
        if let Some(trouble) = &self.trouble {
            bail!("{trouble}");
        }
        if self.unaccounted() > 0 {
            bail!("{} requests failed that nothing accounts for", self.unaccounted());
        }
        let is_long = self.settings.length >= LONG;
        if is_long && self.moved() > 0 {
            bail!("{} connections broke as a load balancer was withdrawn or came back", self.moved());
        }
        let wanted = if is_long { AVAILABILITY } else { SHORT_AVAILABILITY };
        if self.availability() < wanted {
            bail!(
                "{:.4} % of the requests were answered, not {} %",
                self.availability() * 100.0,
                wanted * 100.0
            );
        }
        Ok(())
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        // Writing to a String can't fail.
        let mut text = String::new();
        let _ =
            writeln!(text, "\n{:.1} minutes, seed {}", self.lasted.as_secs_f64() / 60.0, self.settings.seed);
        for (load, name) in [
            (Load::Web, "requests with a connection each"),
            (Load::Live, "requests on long-lived connections"),
        ] {
            let (answered, failed) = (self.ledger.answered(load), self.ledger.failed(load));
            let took = [0.5, 0.99, 0.999].map(|part| self.ledger.milliseconds(load, part));
            let _ = writeln!(
                text,
                "{:>9} {name}: {failed} failed; half answered within {:.1} ms, 99 % {:.1}, 99.9 % {:.1}",
                answered + failed,
                took[0],
                took[1],
                took[2]
            );
        }
        let _ = writeln!(text, "{:>9} long-lived connections", self.ledger.connections);
        let Changes { made, again, refused, slowest } = &self.changes;
        let _ = writeln!(
            text,
            "{made:>9} changes of the fleet's services, {again} of them asked for again while etcd had no leader, the slowest in \
             {:.1} s;\n{refused:>9} more refused, as had to be without etcd",
            slowest.as_secs_f64()
        );
        let _ = writeln!(text, "\n faults  failures");
        for (kind, count) in self.by_kind() {
            let causes = self.causes(
                |account| matches!(account, Account::Fault(fault) if self.faults[fault].kind == kind),
            );
            let _ = writeln!(text, "{count:>7}  {:>8}  {kind}{}", total(&causes), listed(&causes));
        }
        for (account, name) in [
            (
                Account::Lost,
                "connections that nobody else had heard of yet when their load balancer was gone",
            ),
            (Account::Moved, "the same when one was withdrawn or came back, outside of any death's time"),
            (Account::Nothing, "nothing accounts for them"),
        ] {
            let causes = self.causes(|of| of == account);
            let _ = writeln!(text, "{:>7}  {:>8}  {name}{}", "", total(&causes), listed(&causes));
        }
        for (failure, _) in self.failures.iter().filter(|(_, of)| *of == Account::Nothing).take(TOLD) {
            let _ = writeln!(text, "  {failure}{}", self.before(failure.failed));
        }
        if let Some(trouble) = &self.trouble {
            let _ = writeln!(text, "\nnot as it was: {trouble}");
        }
        let _ = write!(
            text,
            "\n{} of {} requests failed{}\navailability {:.4} %",
            self.failures.len(),
            self.requests(),
            listed(&self.causes(|_| true)),
            self.availability() * 100.0
        );
        text
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let load = |load| {
            let took = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];
            let took: BTreeMap<_, _> =
                took.map(|(name, part)| (name, self.ledger.milliseconds(load, part))).into();
            json!({
                "requests": self.ledger.answered(load) + self.ledger.failed(load),
                "failed": self.ledger.failed(load),
                "milliseconds": took,
            })
        };
        let failures = self.failures.iter().map(|(failure, account)| match account {
            Account::Fault(fault) => json!({ "failure": failure, "account": "fault", "fault": fault }),
            Account::Lost => json!({ "failure": failure, "account": "lost" }),
            Account::Moved => json!({ "failure": failure, "account": "moved" }),
            Account::Nothing => json!({ "failure": failure, "account": null }),
        });
        json!({
            "seed": self.settings.seed,
            "seconds": self.lasted.as_secs_f64(),
            "slack_milliseconds": self.settings.slack.as_millis() as u64,
            "faults": self.faults,
            "web": load(Load::Web),
            "live": load(Load::Live),
            "live_connections": self.ledger.connections,
            "changes": self.changes,
            "requests": self.requests(),
            "failed": self.failures.len(),
            "unaccounted": self.unaccounted(),
            "availability": self.availability(),
            "failures": failures.collect::<Vec<_>>(),
            "trouble": self.trouble,
            "passed": self.verdict().is_ok(),
            "record": self.record,
        })
    }

    fn by_kind(&self) -> BTreeMap<Kind, usize> {
        let mut counts = BTreeMap::new();
        self.faults.iter().for_each(|fault| *counts.entry(fault.kind).or_default() += 1);
        counts
    }

    fn causes(&self, counts: impl Fn(Account) -> bool) -> BTreeMap<Cause, usize> {
        let mut causes = BTreeMap::new();
        for (failure, _) in self.failures.iter().filter(|(_, account)| counts(*account)) {
            *causes.entry(failure.cause).or_default() += 1;
        }
        causes
    }

    /// What was going on.
    fn before(&self, moment: Duration) -> String {
        let current = self.faults.iter().filter(|fault| fault.begins <= moment && moment <= fault.settled);
        let faults = current.map(|fault| format!("{:.1} s {fault}", fault.begins.as_secs_f64()));
        let moved = self.ways.iter().rfind(|ways| **ways <= moment);
        let moved = moved.map(|ways| format!("{:.3} s the router's ways changed", ways.as_secs_f64()));
        let told: Vec<_> = faults.chain(moved).collect();
        if told.is_empty() { String::new() } else { format!(" [{}]", told.join("; ")) }
    }
}

fn total(causes: &BTreeMap<Cause, usize>) -> usize {
    causes.values().sum()
}

fn listed(causes: &BTreeMap<Cause, usize>) -> String {
    let told: Vec<_> = causes.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
    if told.is_empty() { String::new() } else { format!(": {}", told.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::fault::Target;
    use super::super::judge::Window;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A web server is killed at 10 s, and requests fail at these times.
    fn report(length: Duration, answered: u64, failed: &[u64]) -> Report {
        let (kind, target) = (Kind::WebKilled, Target::Backend(1));
        let faults =
            vec![Fault { kind, target, begins: 10 * SECOND, ends: 15 * SECOND, settled: 20 * SECOND }];
        let window = Window { fault: 0, kind, target, from: 10 * SECOND, until: 11 * SECOND };
        let accounting = Accounting { windows: vec![window], ..Accounting::default() };
        let mut ledger = Ledger::new().expect("the bounds are fine");
        (0..answered).for_each(|_| ledger.answer(Load::Web, SECOND / 1_000));
        ledger.failures.extend(failed.iter().map(|at| Failure {
            load: Load::Web,
            asked: SECOND.mul_f64(*at as f64),
            failed: SECOND.mul_f64(*at as f64),
            opened: SECOND.mul_f64(*at as f64),
            cause: Cause::Refused,
            backend: None,
            client: "10.100.0.1".into(),
        }));
        Report::new(
            Settings::steady(1, length),
            length,
            faults,
            &accounting,
            ledger,
            Changes::default(),
            None,
        )
    }

    #[test]
    fn requests_that_a_death_costs_are_borne_as_long_as_they_are_few() {
        let passed = report(LONG, 19_999, &[10]);
        assert_eq!((passed.requests(), passed.unaccounted()), (20_000, 0));
        passed.verdict().expect("99.995 % are enough");
        assert!(report(LONG, 9_000, &[10]).verdict().is_err(), "99.989 % in half an hour");
        report(LONG / 10, 9_000, &[10]).verdict().expect("and are enough in three minutes");
        assert!(report(LONG / 10, 900, &[10]).verdict().is_err());
    }

    #[test]
    fn half_an_hour_has_no_connection_that_broke_as_a_load_balancer_came_back() {
        let of = |length| {
            let mut report = report(length, 100_000, &[40]);
            report.failures.iter_mut().for_each(|(_, account)| *account = Account::Moved);
            report
        };
        assert!(of(LONG).verdict().is_err());
        of(LONG / 10).verdict().expect("processes may wait for their turn for so long");
    }

    #[test]
    fn one_request_that_no_fault_accounts_for_is_too_many_and_is_told() {
        let failed = report(LONG, 1_000_000, &[10, 40]);
        assert_eq!(failed.unaccounted(), 1);
        assert!(failed.verdict().is_err());
        assert!(failed.text().contains("asked at 40.000 s, refused"), "{}", failed.text());
        assert_eq!(failed.json()["unaccounted"], 1);
        assert_eq!(failed.json()["passed"], false);
        assert_eq!(failed.json()["failures"][0]["fault"], 0);
        assert_eq!(failed.json()["failures"][1]["account"], Value::Null);
    }

    #[test]
    fn what_does_not_come_back_is_told_and_not_passed() {
        let mut report = report(LONG, 1_000_000, &[]);
        report.verdict().expect("nothing failed");
        report.trouble = Some("lb1 is away".into());
        assert!(report.verdict().is_err_and(|error| error.to_string() == "lb1 is away"));
        assert!(report.text().contains("lb1 is away"));
    }
}
