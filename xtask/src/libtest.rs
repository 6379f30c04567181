//! What Rust's test runner says, as numbers.

/// The outcome of some tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    /// The names of those that failed.
    pub(crate) failed: Vec<String>,
    /// Why those that could not run here could not. Tests of the long tier are not among them.
    pub(crate) skipped: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }

    /// Counts tests as skipped that returned early and were counted as passed.
    pub(crate) fn skip(&mut self, reasons: Vec<String>) {
        self.passed = self.passed.saturating_sub(reasons.len());
        self.skipped.extend(reasons);
    }

    /// The line that ends every run of tests, for people and machines.
    pub(crate) fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

/// Reads the output of one or more runs, line by line.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    report: Report,
    /// The names of the run that is being read.
    names: Vec<String>,
    in_failures: bool,
}

impl Reader {
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.report.passed += count(result, "passed");
            let names = std::mem::take(&mut self.names);
            let unnamed = count(result, "failed").saturating_sub(names.len());
            self.report.failed.extend(names);
            self.report.failed.extend(vec!["(a test without a name)".to_owned(); unnamed]);
            self.in_failures = false;
        } else if line == "failures:" {
            // It comes twice: first with each test's output, then with the names alone.
            self.names.clear();
            self.in_failures = true;
        } else if self.in_failures {
            self.names.extend(line.strip_prefix("    ").map(str::to_owned));
        } else if let Some((test, reason)) =
            line.strip_prefix("test ").and_then(|line| line.split_once(" ... ignored"))
            && !reason.starts_with(", long:")
        {
            self.report.skipped.push(format!("{test}: ignored{reason}"));
        }
    }

    /// The outcome of the runs read, the last of which ended as `success` says; `name` is what to call it.
    pub(crate) fn finish(mut self, success: bool, name: &str) -> Report {
        if !success && self.report.failed.is_empty() {
            self.report.failed.push(format!("{name} (it did not run to its end)"));
        }
        self.report
    }
}

/// The number before `what` in `ok. 4 passed; 0 failed; 1 ignored; …`.
fn count(result: &str, what: &str) -> usize {
    let part = result.split([';', '.']).find_map(|part| part.trim().strip_suffix(what));
    part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str, success: bool) -> Report {
        let mut reader = Reader::default();
        output.lines().for_each(|line| reader.line(line));
        reader.finish(success, "suite")
    }

    #[test]
    fn results_of_several_runs_add_up() {
        let output = "\nrunning 2 tests\ntest a ... ok\ntest b ... ok\n\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\n\
            running 1 test\ntest c ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out\n";
        assert_eq!(read(output, true).line(), "3 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn failures_are_named() {
        let output = "running 3 tests\ntest a ... ok\ntest m::b ... FAILED\ntest c ... FAILED\n\nfailures:\n\n\
            ---- m::b stdout ----\n    indented output\npanicked\n\nfailures:\n    c\n    m::b\n\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let report = read(output, false);
        assert_eq!(report.failed, ["c", "m::b"]);
        assert_eq!(report.line(), "1 passed, 2 failed, 0 skipped");
    }

    #[test]
    fn a_run_that_dies_is_a_failure() {
        assert_eq!(read("running 1 test\ntest a ... ", false).line(), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn the_long_tier_is_left_out_and_other_ignored_tests_are_skipped() {
        let output = "test a ... ignored, long: two hours\ntest b ... ignored\ntest c ... ignored, needs a NIC\n\
            test result: ok. 0 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(read(output, true).skipped, ["b: ignored", "c: ignored, needs a NIC"]);
    }

    #[test]
    fn a_test_that_returned_early_did_not_pass() {
        let mut report = Report { passed: 3, ..Report::default() };
        report.skip(vec!["no bpffs".into()]);
        assert_eq!(report.line(), "2 passed, 0 failed, 1 skipped");
    }
}
