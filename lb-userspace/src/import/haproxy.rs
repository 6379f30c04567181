//! HAProxy's configuration (2.x): frontends, backends and `listen` sections become services.
//!
//! `words` and `sections` take the text apart, `proxy`, `server` and `check` understand what is in a section, `write` makes
//! services of it.

mod check;
mod lacking;
mod proxy;
mod sections;
mod server;
mod words;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::{Choices, Imported, Note};
use proxy::{Kind, Proxy};
use sections::Line;

/// Why nothing comes of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {line}: a quotation does not end")]
    Quotation { line: usize },
    /// The user has to say more.
    #[error(
        "line {line}: `{text}` is every address of that family, and a service of Ballast has its own: name it with \
         --vip ADDRESS"
    )]
    NoVip { line: usize, text: String },
    #[error("there is no `frontend` or `listen` section with servers, so there is nothing to balance")]
    Nothing,
}

/// What becomes of `text`.
///
/// # Errors
///
/// If it makes no sense at all, or something is missing that only the user knows. What has no equal is a note, not an
/// error.
pub fn import(text: &str, choices: &Choices) -> Result<Imported, Error> {
    let mut notes = Notes::default();
    let sections = sections::read(text, &mut notes)?;
    let proxies: Vec<Proxy> = sections.iter().map(|section| Proxy::read(section, &mut notes)).collect();
    let config = write::write(&proxies, choices, &mut notes)?;
    for proxy in proxies.iter().filter(|proxy| proxy.kind == Kind::Backend) {
        let is_used = |other: &Proxy| other.default_backend.as_deref() == Some(&proxy.name);
        if !proxies.iter().any(is_used) {
            notes.add(&proxy.line, "no frontend sends everything to it, so it is left out");
        }
    }
    Ok(Imported { config, notes: notes.0.into_iter().collect() })
}

/// Each once, also where a `defaults` section gives a line to many.
#[derive(Debug, Default)]
struct Notes(BTreeSet<Note>);

impl Notes {
    fn add(&mut self, line: &Line, why: impl Into<String>) {
        self.0.insert(Note { line: line.number, text: line.text.clone(), why: why.into() });
    }
}
