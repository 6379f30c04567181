use serde::Serialize;

use super::check::Check;

/// What a check came to, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Clients' packets do not get where they should, or the daemon does not start.
    Problem,
    /// It works, and not as well or as safely as it should; or it could not be told for sure.
    Warning,
    /// The check could not be made.
    Skipped,
    Ok,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Skipped => "skipped",
            Self::Ok => "ok",
        }
    }
}

/// Outcome of one check of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: Check,
    pub severity: Severity,
    /// What was looked at: an interface, `web/web-1`, a VIP; `host` where it is this machine.
    pub subject: String,
    /// What was found, in a sentence.
    pub message: String,
    /// `null` where there is nothing to do.
    pub fix: Option<Fix>,
}

/// What to do about a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// The backend to do it on; `null` is this host.
    pub host: Option<String>,
    /// To be pasted into a shell of root's, in this order.
    pub commands: Vec<String>,
    /// What no command does, or what it depends on.
    pub advice: Option<String>,
}

impl Finding {
    pub(super) fn new(check: Check, severity: Severity, subject: &str, message: impl Into<String>) -> Self {
        Self { check, severity, subject: subject.to_owned(), message: message.into(), fix: None }
    }

    pub(super) fn problem(check: Check, subject: &str, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Problem, subject, message)
    }

    pub(super) fn warning(check: Check, subject: &str, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Warning, subject, message)
    }

    pub(super) fn ok(check: Check, subject: &str, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, subject, message)
    }

    pub(super) fn skipped(check: Check, subject: &str, why: impl Into<String>) -> Self {
        Self::new(check, Severity::Skipped, subject, why)
    }

    /// Commands for this host.
    pub(super) fn run(self, commands: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.mend(|fix| fix.commands.extend(commands.into_iter().map(Into::into)))
    }

    /// Commands for a backend.
    pub(super) fn run_on(self, backend: &str, commands: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let this = self.run(commands);
        this.mend(|fix| fix.host = Some(backend.to_owned()))
    }

    pub(super) fn advise(self, advice: impl Into<String>) -> Self {
        self.mend(|fix| fix.advice = Some(advice.into()))
    }

    fn mend(mut self, change: impl FnOnce(&mut Fix)) -> Self {
        change(self.fix.get_or_insert_with(Fix::default));
        self
    }
}

/// All findings, worst first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub problems: usize,
    pub warnings: usize,
    pub skipped: usize,
    pub ok: usize,
    pub findings: Vec<Finding>,
}

impl From<Vec<Finding>> for Report {
    fn from(mut findings: Vec<Finding>) -> Self {
        // Stable: within a severity they stay in the order of the way from the host to the backends.
        findings.sort_by_key(|finding| finding.severity);
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        Self {
            problems: count(Severity::Problem),
            warnings: count(Severity::Warning),
            skipped: count(Severity::Skipped),
            ok: count(Severity::Ok),
            findings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs read it.
    #[test]
    fn a_report_counts_sorts_and_keeps_its_keys() {
        let report = Report::from(vec![
            Finding::ok(Check::Kernel, "host", "new"),
            Finding::skipped(Check::Jit, "host", "unseen"),
            Finding::warning(Check::Mtu, "web/a", "small").run(["ip link"]).advise("or not"),
            Finding::problem(Check::BackendVip, "web/b", "none").run_on("b", ["ip address"]),
        ]);
        let expected = serde_json::json!({
            "problems": 1, "warnings": 1, "skipped": 1, "ok": 1,
            "findings": [
                {"check": "backend-vip", "severity": "problem", "subject": "web/b", "message": "none",
                 "fix": {"host": "b", "commands": ["ip address"], "advice": null}},
                {"check": "mtu", "severity": "warning", "subject": "web/a", "message": "small",
                 "fix": {"host": null, "commands": ["ip link"], "advice": "or not"}},
                {"check": "jit", "severity": "skipped", "subject": "host", "message": "unseen", "fix": null},
                {"check": "kernel", "severity": "ok", "subject": "host", "message": "new", "fix": null},
            ],
        });
        assert_eq!(serde_json::to_value(&report).expect("JSON"), expected);
    }
}
