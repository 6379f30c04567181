//! What `--wait` says while it waits: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;

/// Shows how far it is.
pub(super) enum Progress {
    Bar { bar: ProgressBar, course: Course },
    Lines(Lines),
}

impl Progress {
    /// `what`: `drain web/web-1`.
    pub(super) fn new(what: String) -> Self {
        if !stderr().is_terminal() {
            return Self::Lines(Lines::new(what));
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        bar.set_prefix(what);
        bar.set_style(style(WITHOUT_END));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self::Bar { bar, course: Course::default() }
    }

    /// `left`: flows that hold it up, where they are known; `missing`: the same in words.
    pub(super) fn update(&mut self, left: Option<u64>, missing: &str, now: Instant) {
        match self {
            Self::Lines(lines) => {
                if let Some(line) = lines.next(missing, now) {
                    output::complain(&line);
                }
            }
            Self::Bar { bar, course } => {
                bar.set_message(missing.to_owned());
                match left {
                    None => bar.set_style(style(WITHOUT_END)),
                    Some(left) => {
                        let (gone, most) = course.at(left);
                        bar.set_style(style(WITH_END));
                        bar.set_length(most);
                        bar.set_position(gone);
                    }
                }
            }
        }
    }

    /// A message, past the bar.
    pub(super) fn say(&self, message: &str) {
        match self {
            Self::Bar { bar, .. } => bar.suspend(|| output::complain(message)),
            Self::Lines(_) => output::complain(message),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Self::Bar { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}

/// How many flows there were at most, since that is where the bar begins.
#[derive(Debug, Default)]
pub(super) struct Course {
    most: u64,
}

impl Course {
    /// How many are gone, and of how many.
    pub(super) fn at(&mut self, left: u64) -> (u64, u64) {
        self.most = self.most.max(left);
        (self.most - left, self.most)
    }
}

/// Lines for a log: when something is new, but not all the time.
#[derive(Debug)]
pub(super) struct Lines {
    what: String,
    last: Option<(String, Instant)>,
}

impl Lines {
    pub(super) fn new(what: String) -> Self {
        Self { what, last: None }
    }

    /// The line to write now, if any.
    pub(super) fn next(&mut self, missing: &str, now: Instant) -> Option<String> {
        let due = self.last.as_ref().is_none_or(|(told, at)| told != missing && now - *at >= BETWEEN_LINES);
        if !due {
            return None;
        }
        self.last = Some((missing.to_owned(), now));
        Some(format!("waiting for {}: {missing}", self.what))
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("#>-")
}

const WITH_END: &str = "{prefix} [{bar:24}] {msg}";
const WITHOUT_END: &str = "{prefix} {spinner} {msg}";
const BETWEEN_LINES: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_begins_at_the_most_flows_there_were() {
        let mut course = Course::default();
        assert_eq!(course.at(10), (0, 10));
        assert_eq!(course.at(4), (6, 10));
        assert_eq!(course.at(12), (0, 12));
        assert_eq!(course.at(0), (12, 12));
    }

    #[test]
    fn a_log_gets_a_line_when_it_is_time_and_there_is_something_new() {
        let begun = Instant::now();
        let mut lines = Lines::new("drain web/web-1".to_owned());
        let mut at = |seconds, missing| lines.next(missing, begun + Duration::from_secs(seconds));
        assert_eq!(at(0, "9 flows left").as_deref(), Some("waiting for drain web/web-1: 9 flows left"));
        assert_eq!(at(9, "8 flows left"), None);
        assert_eq!(at(10, "9 flows left"), None);
        assert_eq!(at(11, "7 flows left").as_deref(), Some("waiting for drain web/web-1: 7 flows left"));
        assert_eq!(at(20, "1 flow left"), None);
    }
}
