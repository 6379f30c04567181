//! A list with a cursor that stays on its object while rows change places.

use super::rows::{Identity, Row, Sort};

#[derive(Clone, Debug, Default)]
pub(super) struct List {
    pub(super) rows: Vec<Row>,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    /// Words that rows have to have.
    pub(super) filter: String,
    /// Whether keys go to the filter.
    pub(super) typing: bool,
    /// The first row that is in sight.
    pub(super) first: usize,
    /// Rows in sight, as they were drawn last.
    pub(super) height: usize,
    at: usize,
    /// What the cursor was moved to; `None` while it is where it began, on whatever comes first.
    on: Option<Identity>,
}

impl List {
    pub(super) fn sorted(sort: Sort) -> Self {
        Self { sort, ..Self::default() }
    }

    pub(super) fn selected(&self) -> Option<Row> {
        self.rows.get(self.at).copied()
    }

    /// Where the cursor is.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Takes new rows. The cursor follows the object that it was moved to; if that is gone it stays where it is.
    pub(super) fn put(&mut self, rows: Vec<Row>, identity: impl Fn(Row) -> Option<Identity>) {
        self.rows = rows;
        let Some(on) = &self.on else { return self.at = 0 };
        let found = self.rows.iter().position(|row| identity(*row).as_ref() == Some(on));
        self.go(found.unwrap_or(self.at), identity);
    }

    /// Moves the cursor to a row, or as near to it as there are rows.
    pub(super) fn go(&mut self, to: usize, identity: impl Fn(Row) -> Option<Identity>) {
        self.at = to.min(self.rows.len().saturating_sub(1));
        self.on = self.selected().and_then(identity);
    }

    /// Moves the cursor to the first row, and lets it stay there.
    pub(super) fn go_first(&mut self) {
        (self.at, self.on) = (0, None);
    }

    /// The rows in sight when `height` of them have room: the cursor is among them.
    pub(super) fn in_sight(&mut self, height: usize) -> &[Row] {
        self.height = height;
        let last_start = self.rows.len().saturating_sub(height);
        let needed = (self.at + 1).saturating_sub(height);
        self.first = self.first.clamp(needed, self.at.max(needed)).min(last_start);
        let end = (self.first + height).min(self.rows.len());
        self.rows.get(self.first..end).unwrap_or_default()
    }
}
