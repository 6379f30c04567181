//! What people see in a terminal: figures for reading, columns that fit, what changed between two looks at a daemon, and
//! [`top`]. All but the drawing itself is pure: answers of the API and the time are passed in.

pub mod alarms;
pub mod fit;
#[cfg(test)]
mod fixture;
pub(crate) mod interrupt;
pub mod news;
pub mod peers;
pub mod rates;
#[cfg(test)]
mod tests;
pub mod top;
pub mod units;

/// How good the news are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rating {
    Good,
    Doubtful,
    Bad,
}

impl Rating {
    /// Of the words that services and backends are described with.
    pub fn of(word: &str) -> Self {
        match word {
            "healthy" => Self::Good,
            "unhealthy" | "failing" | "panic" => Self::Bad,
            _ => Self::Doubtful,
        }
    }

    /// Of what the administrator wants of a backend; `None` where that is nothing special.
    pub fn of_admin(word: &str) -> Option<Self> {
        (word != "active").then_some(Self::Doubtful)
    }
}

/// The same without what a terminal would obey, whoever wrote it.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
