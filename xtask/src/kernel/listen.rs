//! From what a guest says to a report.

use super::says::Says;
use crate::libtest::{Reader, Report};

/// Listens to one guest.
pub(crate) struct Listener {
    /// Put before every test's name.
    kernel: String,
    /// Suites that have not begun yet.
    awaited: Vec<String>,
    current: Option<(String, Reader)>,
    report: Report,
    skipped: Vec<String>,
    done: bool,
}

impl Listener {
    /// For a guest that runs these suites on the kernel of this name.
    pub(crate) fn new(kernel: &str, suites: Vec<String>) -> Self {
        Self {
            kernel: kernel.into(),
            awaited: suites,
            current: None,
            report: Report::default(),
            skipped: Vec::new(),
            done: false,
        }
    }

    pub(crate) fn line(&mut self, line: &str) {
        match Says::read(line) {
            None => self.current.iter_mut().for_each(|(_, reader)| reader.line(line)),
            Some(Says::Begin(suite)) => {
                self.end(false);
                self.awaited.retain(|awaited| awaited != suite);
                self.current = Some((suite.into(), Reader::default()));
            }
            Some(Says::End { well }) => self.end(well),
            Some(Says::Skipped(reason)) => self.skipped.push(format!("{}: {reason}", self.kernel)),
            Some(Says::Done) => self.done = true,
        }
    }

    fn end(&mut self, well: bool) {
        let Some((suite, reader)) = self.current.take() else { return };
        let mut report = reader.finish(well, &suite);
        for name in report.failed.iter_mut().chain(&mut report.skipped) {
            *name = format!("{}: {name}", self.kernel);
        }
        self.report.add(report);
    }

    /// Whether the guest came to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// The outcome, now that the guest is gone.
    pub(crate) fn finish(mut self) -> Report {
        self.end(false);
        let failed = &mut self.report.failed;
        failed
            .extend(self.awaited.iter().map(|suite| format!("{}: {suite} (it was never run)", self.kernel)));
        if !self.done && failed.is_empty() {
            failed.push(format!("{}: the machine stopped before it was done", self.kernel));
        }
        self.report.skip(self.skipped);
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";

    fn report(said: &[&str]) -> Report {
        let mut listener = Listener::new("Linux 6.1", vec!["a".into(), "b".into()]);
        said.iter().for_each(|line| listener.line(line));
        listener.finish()
    }

    #[test]
    fn suites_that_end_well_count() {
        let said = ["guest: begin a", GOOD, "guest: end well", "guest: begin b", GOOD, "guest: end well"];
        let report = report(&[said.as_slice(), &["guest: skipped t: no veth", "guest: done"]].concat());
        assert_eq!(report.line(), "3 passed, 0 failed, 1 skipped");
        assert_eq!(report.skipped, ["Linux 6.1: t: no veth"]);
    }

    #[test]
    fn a_suite_that_was_never_run_failed() {
        let report = report(&["guest: begin a", GOOD, "guest: end well", "guest: done"]);
        assert_eq!(report.failed, ["Linux 6.1: b (it was never run)"]);
    }

    #[test]
    fn a_machine_that_stops_within_a_suite_failed() {
        let report = report(&["guest: begin b", GOOD, "guest: end well", "guest: begin a", "test t ... "]);
        assert_eq!(report.failed, ["Linux 6.1: a (it did not run to its end)"]);
    }

    #[test]
    fn a_suite_that_ends_badly_failed_whatever_it_says() {
        let said = ["guest: begin a", GOOD, "guest: end badly", "guest: begin b", GOOD, "guest: end well"];
        assert_eq!(report(&said).failed, ["Linux 6.1: a (it did not run to its end)"]);
    }

    #[test]
    fn a_machine_that_stops_before_it_is_done_failed() {
        let said = ["guest: begin a", GOOD, "guest: end well", "guest: begin b", GOOD, "guest: end well"];
        assert_eq!(report(&said).failed, ["Linux 6.1: the machine stopped before it was done"]);
    }
}
