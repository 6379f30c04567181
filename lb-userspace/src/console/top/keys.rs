//! What keys do.

use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    app::{App, Ask},
    dialog::Dialog,
    rows::{self, Row, View},
};
use crate::{
    console::{Rating, news::Notice},
    domain::Admin,
};

impl App {
    /// Does what the key says; returns what only the daemon, or the terminal, can do.
    pub(super) fn key(&mut self, key: KeyEvent, now: Instant) -> Option<Ask> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return self.control(key.code);
        }
        self.outcome = None;
        if self.dialog.is_some() {
            return self.answer(key.code, now);
        }
        if self.helping {
            self.helping = false;
            return None;
        }
        if self.list.typing {
            self.type_filter(key.code);
            return None;
        }
        match key.code {
            KeyCode::Char('q') => return Some(Ask::Quit),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.helping = true,
            KeyCode::Char('/') => self.list.typing = true,
            KeyCode::Char('s') => self.sort(),
            KeyCode::Char('r') => {
                self.list.reversed = !self.list.reversed;
                self.arrange();
            }
            KeyCode::Char('1') => self.switch(View::Services),
            KeyCode::Char('2') => self.switch(View::Backends),
            KeyCode::Char('3') => self.switch(View::Drops),
            KeyCode::Tab => self.switch(match self.view {
                View::Services | View::Service(_) => View::Backends,
                View::Backends => View::Drops,
                View::Drops => View::Services,
            }),
            KeyCode::Enter | KeyCode::Right => self.open_selected(),
            KeyCode::Esc if !self.list.filter.is_empty() => {
                self.list.filter.clear();
                self.arrange();
            }
            KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => self.back(),
            KeyCode::Char('d') => self.ask_about(Admin::Draining, now),
            KeyCode::Char('e') => self.ask_about(Admin::Active, now),
            KeyCode::Char('p' | ' ') => {
                self.paused = !self.paused;
                return (!self.paused).then_some(Ask::Look);
            }
            KeyCode::Char('+' | '=') => self.change_interval(Step::Longer),
            KeyCode::Char('-') => self.change_interval(Step::Shorter),
            code => self.travel(code),
        }
        None
    }

    fn control(&mut self, code: KeyCode) -> Option<Ask> {
        match code {
            KeyCode::Char('c') => return Some(Ask::Quit),
            KeyCode::Char('l') => return Some(Ask::Redraw),
            KeyCode::Char('d') => self.travel(KeyCode::PageDown),
            KeyCode::Char('u') => self.travel(KeyCode::PageUp),
            _ => {}
        }
        None
    }

    /// Only a `y` is a yes, and only one that comes after a pause: what is asked about happens to people's connections, and text
    /// that was pasted by mistake may well have a `d` and a `y` in it.
    fn answer(&mut self, code: KeyCode, now: Instant) -> Option<Ask> {
        let paused = self.dialog.as_mut().is_some_and(|dialog| dialog.paused(now));
        match code {
            KeyCode::Char('y' | 'Y') if paused => {
                let Dialog { service, backend, admin, .. } = self.dialog.take()?;
                Some(Ask::Set { service, backend, admin })
            }
            KeyCode::Char('y' | 'Y') => {
                self.say("that came too fast to be meant: y again, if it is".to_owned());
                None
            }
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
                self.dialog = None;
                self.say("nothing changed".to_owned());
                None
            }
            _ => None,
        }
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(c) if self.list.filter.len() < LONGEST_FILTER => {
                self.list.filter.extend(c.to_lowercase());
            }
            KeyCode::Backspace => drop(self.list.filter.pop()),
            KeyCode::Enter | KeyCode::Down | KeyCode::Up => self.list.typing = false,
            KeyCode::Esc => {
                self.list.typing = false;
                self.list.filter.clear();
            }
            _ => return,
        }
        self.arrange();
    }

    fn sort(&mut self) {
        self.list.sort = self.list.sort.next();
        self.list.reversed = false;
        self.arrange();
    }

    fn open_selected(&mut self) {
        match self.selected() {
            Some(Row::Service(at)) => {
                let name = self.status.services.get(at).map(|service| service.name.clone());
                name.into_iter().for_each(|name| self.open(View::Service(name)));
            }
            Some(Row::Backend(..) | Row::Drop(_)) | None => {}
        }
    }

    fn ask_about(&mut self, admin: Admin, now: Instant) {
        let Some((service, backend)) = self.selected().and_then(|row| self.backend(row)) else {
            return self.say("choose a backend: Enter opens a service, 2 lists all backends".to_owned());
        };
        match Dialog::about(service, backend, admin, now) {
            Ok(dialog) => self.dialog = Some(dialog),
            Err(why) => self.say(why),
        }
    }

    fn travel(&mut self, code: KeyCode) {
        let (at, page) = (self.list.at(), self.list.height.max(1));
        let to = match code {
            KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => at + 1,
            KeyCode::PageUp => at.saturating_sub(page),
            KeyCode::PageDown => at + page,
            KeyCode::Home | KeyCode::Char('g') => return self.list.go_first(),
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            _ => return,
        };
        self.list.go(to, |row| rows::identity(&self.status, row));
    }

    fn change_interval(&mut self, step: Step) {
        let now = self.interval;
        let found = match step {
            Step::Longer => INTERVALS.iter().find(|interval| **interval > now),
            Step::Shorter => INTERVALS.iter().rev().find(|interval| **interval < now),
        };
        self.interval = found.copied().unwrap_or(now);
    }

    fn say(&mut self, text: String) {
        self.outcome = Some(Notice { text, rating: Rating::Doubtful });
    }
}

enum Step {
    Longer,
    Shorter,
}

const INTERVALS: [Duration; 7] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(60),
];
const LONGEST_FILTER: usize = 60;
