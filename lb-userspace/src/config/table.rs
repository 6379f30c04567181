use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    key::{Key, Named, Reads},
    report::{At, Place, Report, Wrong},
    secrets,
};
use crate::similar;

/// A TOML table being read. What is never asked for is an unknown key.
pub(super) struct Table<'a> {
    /// As the file writes it: `[daemon]`.
    title: &'static str,
    place: Place,
    entries: &'a DeTable<'a>,
    known: Vec<&'static str>,
    /// Read already, under another meaning than whoever asks for them now gives them.
    taken: Vec<&'static str>,
}

/// A value of a table.
pub(super) struct Item<'a> {
    pub(super) key: &'static str,
    pub(super) place: Place,
    value: &'a DeValue<'a>,
}

impl<'a> Table<'a> {
    /// A whole file.
    pub(super) fn document(file: usize, document: &'a Spanned<DeTable<'a>>) -> Self {
        let place = Place { file, start: 0, end: 1 };
        Self { title: "the file", place, entries: document.get_ref(), known: Vec::new(), taken: Vec::new() }
    }

    /// A text that is one table.
    pub(super) fn titled(title: &'static str, document: &'a Spanned<DeTable<'a>>) -> Self {
        Self { title, ..Self::document(0, document) }
    }

    /// The table's header.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Whether the key is there, which does not make it a known one.
    pub(super) fn has(&self, key: impl Named) -> bool {
        let key = key.name();
        self.entries.get(key).is_some() && !self.taken.contains(&key)
    }

    /// The value under `key` if it is `text`. Whoever asks for the key afterwards finds none.
    pub(super) fn take(&mut self, key: impl Named, text: &str) -> Option<Item<'a>> {
        let key = key.name();
        let is_text = |item: &Item<'_>| matches!(item.value, DeValue::String(value) if value == text);
        let item = self.get(key).filter(is_text)?;
        self.taken.push(key);
        Some(item)
    }

    pub(super) fn get(&mut self, key: impl Named) -> Option<Item<'a>> {
        let key = key.name();
        if self.taken.contains(&key) {
            return None;
        }
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let value = self.entries.get(key)?;
        Some(Item { key, place: within(self.place.file, value), value: value.get_ref() })
    }

    /// Like [`Self::get`], and an error where there is no such key.
    pub(super) fn require(&mut self, key: impl Named, report: &mut Report<'_>) -> Option<Item<'a>> {
        let key = key.name();
        let item = self.get(key);
        if item.is_none() {
            let message = format!("{} has no `{key}`", self.title);
            report.error(self.place, Wrong::new(message, format!("`{key}` is required")));
        }
        item
    }

    /// The value under `key`, `Some(None)` without one. `None` if it was wrong, which is reported.
    pub(super) fn read<T: Reads>(
        &mut self,
        key: &'static Key<T>,
        report: &mut Report<'_>,
    ) -> Option<Option<At<T::Value>>> {
        match self.get(key) {
            Some(item) => key.takes.read(&item, report).map(Some),
            None => Some(None),
        }
    }

    /// The value under `key`, or `default` without one. `None` if it was wrong, which is reported.
    pub(super) fn read_or<T: Reads>(
        &mut self,
        key: &'static Key<T>,
        default: T::Value,
        report: &mut Report<'_>,
    ) -> Option<At<T::Value>> {
        let place = self.place;
        self.read(key, report).map(|value| value.unwrap_or_else(|| At::new(default, place)))
    }

    /// The value under `key`. `None` if there is none or it was wrong, which is reported.
    pub(super) fn required<T: Reads>(
        &mut self,
        key: &'static Key<T>,
        report: &mut Report<'_>,
    ) -> Option<At<T::Value>> {
        let item = self.require(key, report)?;
        key.takes.read(&item, report)
    }

    /// The table under `key`.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        title: &'static str,
        report: &mut Report<'_>,
    ) -> Option<Table<'a>> {
        self.get(key)?.table(title, report)
    }

    /// Every table of the array under `key`.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
        title: &'static str,
        report: &mut Report<'_>,
    ) -> Vec<Table<'a>> {
        let Some(item) = self.get(key) else { return Vec::new() };
        let items = item.array(&format!("write {title}"), report);
        items.into_iter().filter_map(|item| item.table(title, report)).collect()
    }

    /// Reports the keys nobody asked for.
    pub(super) fn finish(self, report: &mut Report<'_>) {
        for (key, _) in self.entries.iter() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let label = match similar::closest(name, self.known.iter().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("{} has no such key", self.title),
            };
            let known: Vec<_> = self.known.iter().map(|known| format!("`{known}`")).collect();
            let wrong = Wrong::new(format!("unknown key `{}` in {}", shortened(name), self.title), label)
                .help(format!("{} takes {}", self.title, known.join(", ")));
            report.error(within(self.place.file, key), wrong);
        }
    }
}

impl<'a> Item<'a> {
    pub(super) fn text(&self, report: &mut Report<'_>) -> Option<&'a str> {
        let DeValue::String(text) = self.value else { return self.wrong_type("a string", report) };
        Some(text)
    }

    pub(super) fn parse<T>(
        &self,
        report: &mut Report<'_>,
        parse: impl FnOnce(&str, &str) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        let text = self.text(report)?;
        report.accept(self.place, parse(self.key, text))
    }

    pub(super) fn integer(&self, lowest: u32, highest: u32, report: &mut Report<'_>) -> Option<At<u32>> {
        let in_range = |value| u32::try_from(value).ok().filter(|value| (lowest..=highest).contains(value));
        self.integer_as(&format!("an integer from {lowest} to {highest}"), in_range, report)
    }

    /// An integer that `convert` takes; `wanted` says which those are.
    pub(super) fn integer_as<T>(
        &self,
        wanted: &str,
        convert: impl FnOnce(i128) -> Option<T>,
        report: &mut Report<'_>,
    ) -> Option<At<T>> {
        let DeValue::Integer(number) = self.value else { return self.wrong_type(wanted, report) };
        let value = i128::from_str_radix(number.as_str(), number.radix()).ok().and_then(convert);
        let value = value.ok_or_else(|| {
            Wrong::new(format!("`{}` can't be {}", self.key, shortened(&number.to_string())), wanted)
        });
        report.accept(self.place, value)
    }

    /// A number, whole or not, that `convert` takes; `wanted` says which those are.
    pub(super) fn number_as<T>(
        &self,
        wanted: &str,
        convert: impl FnOnce(f64) -> Option<T>,
        report: &mut Report<'_>,
    ) -> Option<At<T>> {
        let (text, number) = match self.value {
            DeValue::Float(number) => (number.to_string(), number.as_str().parse().ok()),
            DeValue::Integer(number) => {
                let whole = i128::from_str_radix(number.as_str(), number.radix()).ok();
                // As near as a float gets: what it can't hold is out of any range.
                (number.to_string(), whole.map(|whole| whole as f64))
            }
            _ => return self.wrong_type(wanted, report),
        };
        let value = number
            .and_then(convert)
            .ok_or_else(|| Wrong::new(format!("`{}` can't be {}", self.key, shortened(&text)), wanted));
        report.accept(self.place, value)
    }

    pub(super) fn boolean(&self, report: &mut Report<'_>) -> Option<At<bool>> {
        let DeValue::Boolean(value) = self.value else { return self.wrong_type("true or false", report) };
        Some(At::new(*value, self.place))
    }

    pub(super) fn is_array(&self) -> bool {
        self.value.is_array()
    }

    /// The elements of an array; `hint` says how to write one.
    pub(super) fn array(&self, hint: &str, report: &mut Report<'_>) -> Vec<Item<'a>> {
        let DeValue::Array(elements) = self.value else {
            let _: Option<()> = self.wrong_type(&format!("an array ({hint})"), report);
            return Vec::new();
        };
        let item = |element: &'a Spanned<DeValue<'a>>| Item {
            key: self.key,
            place: within(self.place.file, element),
            value: element.get_ref(),
        };
        elements.iter().map(item).collect()
    }

    pub(super) fn table(&self, title: &'static str, report: &mut Report<'_>) -> Option<Table<'a>> {
        let DeValue::Table(entries) = self.value else {
            return self.wrong_type(&format!("a table ({title})"), report);
        };
        Some(Table { title, place: self.place, entries, known: Vec::new(), taken: Vec::new() })
    }

    fn wrong_type<T>(&self, wanted: &str, report: &mut Report<'_>) -> Option<T> {
        let actual = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        let message = format!("`{}` can't be {actual}", self.key);
        report.error(self.place, Wrong::new(message, format!("{wanted} is needed here")));
        None
    }
}

fn within<T>(file: usize, spanned: &Spanned<T>) -> Place {
    let span = spanned.span();
    Place { file, start: span.start, end: span.end }
}

/// A piece of a file for a message, however long it is and whatever it holds.
pub(super) fn shortened(text: &str) -> String {
    let text = &secrets::hidden_in(text);
    let mut short: String = text.escape_debug().take(MAX_QUOTED).collect();
    if short.len() < text.len() && short.chars().count() == MAX_QUOTED {
        short.push('…');
    }
    short
}

/// Characters of a value that a message repeats.
const MAX_QUOTED: usize = 60;
