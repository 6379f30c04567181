//! Which flows peers know of, by their entries' places in the flow table.

use lb_common::abi::FlowEntry;

/// Memory is taken only for parts of the table that hold what peers know.
#[derive(Debug, Default)]
pub(super) struct Ledger(Vec<Option<Box<[u64; PART]>>>);

impl Ledger {
    /// The entry that was told last of this place; its epoch is the sighting that was told, from which peers' copies age.
    pub(super) fn told(&self, place: usize) -> FlowEntry {
        let part = self.0.get(place / PART).and_then(Option::as_ref);
        FlowEntry::from_word(part.and_then(|part| part.get(place % PART)).copied().unwrap_or_default())
    }

    pub(super) fn note(&mut self, place: usize, entry: FlowEntry) {
        let at = place / PART;
        if at >= self.0.len() {
            self.0.resize_with(at + 1, || None);
        }
        let part = self.0[at].get_or_insert_with(|| Box::new([0; PART]));
        part[place % PART] = entry.word();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

const PART: usize = 4096;
