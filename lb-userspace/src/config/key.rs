//! The keys of the configuration: what one takes, what there is without it and what it is for is said once, beside the
//! code that asks for it. The parser, the tables in `docs/` and the manual page all go by that.

use std::time::Duration;

use super::{
    report::{At, Report, Wrong},
    table::Item,
    values,
};

/// A key, as it is asked for and as it is described.
pub(super) struct Key<T> {
    pub(super) name: &'static str,
    pub(super) takes: T,
    /// What there is without it, in Markdown: a value in backquotes as a file would have it, or what it depends on.
    pub(super) default: &'static str,
    /// In Markdown, on one line; links lead from `docs/`.
    pub(super) means: &'static str,
}

/// What a key takes.
pub(super) trait Takes {
    /// Its type, unit and limits, in Markdown.
    fn said(&self) -> String;
}

/// What is read without knowing anything else.
pub(super) trait Reads: Takes {
    type Value;

    /// `None` if it was wrong, which is reported.
    fn read(&self, item: &Item<'_>, report: &mut Report<'_>) -> Option<At<Self::Value>>;
}

/// An integer, from and to.
pub(super) struct Integer(pub(super) u32, pub(super) u32);

/// A power of two, from and to.
pub(super) struct PowerOfTwo(pub(super) u32, pub(super) u32);

/// A time, from and to.
pub(super) struct Time(pub(super) Duration, pub(super) Duration);

/// A time in whole seconds, from and to.
pub(super) struct Seconds(pub(super) Duration, pub(super) Duration);

pub(super) struct Boolean;

/// One of these, by its name.
pub(super) struct OneOf<T: 'static>(pub(super) &'static [T], pub(super) fn(T) -> &'static str);

/// Text without control characters, from and to so many bytes.
pub(super) struct Printable(pub(super) usize, pub(super) usize);

/// Text of a form of its own: how that is called, and what reads it.
pub(super) struct Text<T>(pub(super) &'static str, pub(super) fn(&str, &str) -> Result<T, Wrong>);

/// An array, and what of; read element by element.
pub(super) struct List(pub(super) &'static str);

/// What has a reader of its own.
pub(super) struct Special(pub(super) &'static str);

/// A key, whatever it takes.
pub(crate) trait Described: Sync {
    fn name(&self) -> &'static str;
    fn takes(&self) -> String;
    fn default(&self) -> &'static str;
    fn means(&self) -> &'static str;
}

impl<T: Takes + Sync> Described for Key<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn takes(&self) -> String {
        self.takes.said()
    }

    fn default(&self) -> &'static str {
        self.default
    }

    fn means(&self) -> &'static str {
        self.means
    }
}

/// By what a table is asked for a value. A name alone is for files that only the daemon itself writes.
pub(super) trait Named {
    fn name(self) -> &'static str;
}

impl Named for &'static str {
    fn name(self) -> &'static str {
        self
    }
}

impl<T> Named for &'static Key<T> {
    fn name(self) -> &'static str {
        self.name
    }
}

impl Takes for Integer {
    fn said(&self) -> String {
        format!("integer, {} to {}", grouped(self.0), grouped(self.1))
    }
}

impl Reads for Integer {
    type Value = u32;

    fn read(&self, item: &Item<'_>, report: &mut Report<'_>) -> Option<At<u32>> {
        item.integer(self.0, self.1, report)
    }
}

impl Takes for PowerOfTwo {
    fn said(&self) -> String {
        format!("a power of two, {} to {}", grouped(self.0), grouped(self.1))
    }
}

impl Reads for PowerOfTwo {
    type Value = u32;

    fn read(&self, item: &Item<'_>, report: &mut Report<'_>) -> Option<At<u32>> {
        let Self(lowest, highest) = *self;
        let allowed = |number| {
            let number = u32::try_from(number).ok().filter(|number| number.is_power_of_two())?;
            (lowest..=highest).contains(&number).then_some(number)
        };
        item.integer_as(&format!("a power of two from {lowest} to {highest}"), allowed, report)
    }
}

impl Takes for Time {
    fn said(&self) -> String {
        format!("time, {}", range(self.0, self.1))
    }
}

impl Reads for Time {
    type Value = Duration;

    fn read(&self, item: &Item<'_>, report: &mut Report<'_>) -> Option<At<Duration>> {
        item.parse(report, values::time(self.0, self.1))
    }
}

impl Takes for Seconds {
    fn said(&self) -> String {
        format!("time in whole seconds, {}", range(self.0, self.1))
    }
}

impl Reads for Seconds {
    type Value = Duration;

    fn read(&self, item: &Item<'_>, report: &mut Report<'_>) -> Option<At<Duration>> {
        item.parse(report, values::seconds(self.0, self.1))
    }
}

impl Takes for Boolean {
    fn said(&self) -> String {
        "`true` or `false`".to_owned()
    }
}

impl Reads for Boolean {
    type Value = bool;

    fn read(&self, item: &Item<'_>, report: &mut Report<'_>) -> Option<At<bool>> {
        item.boolean(report)
    }
}

impl<T: Copy> Takes for OneOf<T> {
    fn said(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|&one| format!("`\"{}\"`", self.1(one))).collect();
        match names.as_slice() {
            [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => names.concat(),
        }
    }
}

impl<T: Copy> Reads for OneOf<T> {
    type Value = T;

    fn read(&self, item: &Item<'_>, report: &mut Report<'_>) -> Option<At<T>> {
        item.parse(report, values::choice(self.0, self.1))
    }
}

impl Takes for Printable {
    fn said(&self) -> String {
        format!("text, {} to {} bytes", self.0, grouped(self.1))
    }
}

impl Reads for Printable {
    type Value = String;

    fn read(&self, item: &Item<'_>, report: &mut Report<'_>) -> Option<At<String>> {
        item.parse(report, values::printable(self.0..=self.1))
    }
}

impl<T> Takes for Text<T> {
    fn said(&self) -> String {
        self.0.to_owned()
    }
}

impl<T> Reads for Text<T> {
    type Value = T;

    fn read(&self, item: &Item<'_>, report: &mut Report<'_>) -> Option<At<T>> {
        item.parse(report, self.1)
    }
}

impl Takes for List {
    fn said(&self) -> String {
        format!("list of {}", self.0)
    }
}

impl Takes for Special {
    fn said(&self) -> String {
        self.0.to_owned()
    }
}

fn range(lowest: Duration, highest: Duration) -> String {
    format!("{} to {}", humantime::format_duration(lowest), humantime::format_duration(highest))
}

/// `1,048,576`
fn grouped(number: impl ToString) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
