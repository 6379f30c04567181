//! What `ballast top` knows and does: looks and keys in, questions for the daemon out. No clocks, no sockets, no terminal.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use super::{
    dialog::Dialog,
    history::History,
    list::List,
    rows::{self, Row, View},
};
use crate::{
    api::v1,
    console::{
        Rating,
        news::{self, Notice},
        rates::{self, StatusRates},
        units::time_of_day,
    },
    domain::{Admin, Name},
};

/// Everything that is shown.
pub(super) struct App {
    pub(super) status: v1::Status,
    pub(super) rates: StatusRates,
    pub(super) history: History,
    /// When the last look was, by the clock on the wall.
    pub(super) clock: String,
    /// Why the daemon does not answer, and since when.
    pub(super) silence: Option<(String, Instant)>,
    pub(super) view: View,
    pub(super) list: List,
    /// Where a view was left that one goes back to.
    pub(super) left: Vec<(View, List)>,
    pub(super) dialog: Option<Dialog>,
    pub(super) helping: bool,
    pub(super) paused: bool,
    pub(super) interval: Duration,
    /// What became of the last command.
    pub(super) outcome: Option<Notice>,
    /// With the time of day.
    pub(super) news: VecDeque<(String, Notice)>,
    looked: Instant,
}

/// What the app wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Quit,
    /// Look now, not when it is time.
    Look,
    /// Draw everything: something else wrote to the terminal.
    Redraw,
    Set {
        service: Name,
        backend: Name,
        admin: Admin,
    },
}

impl App {
    pub(super) fn new(status: v1::Status, interval: Duration, now: Instant, wall: SystemTime) -> Self {
        let mut app = Self {
            status,
            rates: StatusRates::default(),
            history: History::default(),
            clock: time_of_day(wall),
            silence: None,
            view: View::Services,
            list: List::default(),
            left: Vec::new(),
            dialog: None,
            helping: false,
            paused: false,
            interval,
            outcome: None,
            news: VecDeque::new(),
            looked: now,
        };
        app.arrange();
        app
    }

    /// Takes what a look at the daemon brought.
    pub(super) fn look(&mut self, answer: Result<v1::Status, String>, now: Instant, wall: SystemTime) {
        let status = match answer {
            Ok(status) => status,
            Err(error) => {
                let since = self.silence.take().map_or(now, |(_, since)| since);
                self.silence = Some((error, since));
                return;
            }
        };
        self.silence = None;
        self.rates = rates::of_status(&self.status, &status, now.saturating_duration_since(self.looked));
        self.history.push(&status, &self.rates);
        self.clock = time_of_day(wall);
        for notice in news::of_status(&self.status, &status) {
            self.news.push_back((self.clock.clone(), notice));
        }
        while self.news.len() > NEWS {
            self.news.pop_front();
        }
        self.status = status;
        self.looked = now;
        if let View::Service(name) = &self.view
            && !self.status.services.iter().any(|service| service.name == *name)
        {
            let text = format!("service {name} is gone");
            self.outcome = Some(Notice { text, rating: Rating::Doubtful });
            self.back();
        }
        let is_there =
            |dialog: &Dialog| find(&self.status, dialog.service.as_str(), dialog.backend.as_str()).is_some();
        if self.dialog.as_ref().is_some_and(|dialog| !is_there(dialog)) {
            self.dialog = None;
        }
        self.arrange();
    }

    /// Takes what became of a change that was asked for.
    pub(super) fn changed(&mut self, answer: Result<v1::Changed, String>) {
        self.outcome = Some(match answer {
            Ok(changed) => Notice { text: told(&changed), rating: Rating::Good },
            Err(error) => Notice { text: error, rating: Rating::Bad },
        });
    }

    /// Chooses and orders the rows anew.
    pub(super) fn arrange(&mut self) {
        let words: Vec<_> = self.list.filter.split_whitespace().collect();
        let order = (self.list.sort, self.list.reversed);
        let rows = rows::rows(&self.status, &self.rates, &self.view, &words, order);
        self.list.put(rows, |row| rows::identity(&self.status, row));
    }

    /// Goes to another view, from which one comes back to this one.
    pub(super) fn open(&mut self, view: View) {
        let sorted = List::sorted(self.list.sort);
        let list = std::mem::replace(&mut self.list, sorted);
        self.left.push((std::mem::replace(&mut self.view, view), list));
        self.arrange();
    }

    /// Goes to a view that has nothing to do with this one.
    pub(super) fn switch(&mut self, view: View) {
        self.left.clear();
        self.list = List::sorted(self.list.sort);
        self.view = view;
        self.arrange();
    }

    /// Goes back to where one came from, if one came from somewhere.
    pub(super) fn back(&mut self) {
        if let Some((view, list)) = self.left.pop() {
            (self.view, self.list) = (view, list);
            self.arrange();
        }
    }

    /// What the cursor is on.
    pub(super) fn selected(&self) -> Option<Row> {
        self.list.selected()
    }

    pub(super) fn backend(&self, row: Row) -> Option<(&v1::Service, &v1::Backend)> {
        let Row::Backend(at, of) = row else { return None };
        let service = self.status.services.get(at)?;
        Some((service, service.backends.get(of)?))
    }
}

fn find<'a>(status: &'a v1::Status, service: &str, backend: &str) -> Option<&'a v1::Backend> {
    let service = status.services.iter().find(|one| one.name == service)?;
    service.backends.iter().find(|one| one.name == backend)
}

fn told(changed: &v1::Changed) -> String {
    let mut parts: Vec<_> = changed
        .changes
        .iter()
        .map(|change| format!("{}: {}", change.object, change.detail))
        .chain(changed.warnings.iter().map(|warning| format!("warning: {warning}")))
        .collect();
    if changed.changes.is_empty() {
        parts.push("nothing to change".to_owned());
    }
    parts.push(format!("revision {} is live", changed.revision));
    parts.join("; ")
}

const NEWS: usize = 100;
