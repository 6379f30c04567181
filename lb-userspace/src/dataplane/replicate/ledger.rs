//! Which flows peers know of, by their entries' places in the flow table.

use lb_common::abi::{FLOW_EMPTY, FLOW_UNCONFIRMED, FlowEntry};

/// Memory is taken only for parts of the table that hold what peers know.
#[derive(Debug, Default)]
pub(super) struct Ledger(Vec<Option<Box<[u64; PART]>>>);

impl Ledger {
    /// The entry that was told last of this place; its epoch is the sighting that was told, from which peers' copies age. No flow
    /// is told before it is confirmed, so that such a state marks what is doubtful.
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

    /// Likewise of an entry that was made of a doubtful word.
    pub(super) fn doubt(&mut self, place: usize, entry: FlowEntry) {
        self.note(place, entry.seen(FLOW_UNCONFIRMED, entry.epoch()));
    }

    /// Whether an entry is as a doubtful word has made it: no packet has been seen since.
    pub(super) fn doubts(&self, place: usize, found: FlowEntry) -> bool {
        let told = self.told(place);
        told.state() == FLOW_UNCONFIRMED && told == found.seen(FLOW_UNCONFIRMED, found.epoch())
    }

    /// Forgets what was told of this place where the flow is another one now, or none, or has had no word for so long that peers
    /// have dropped it. Epochs repeat, so this has to be asked more often than they do.
    pub(super) fn settle(&mut self, place: usize, found: FlowEntry, now: u64, kept: u32) {
        let Some(Some(part)) = self.0.get_mut(place / PART) else { return };
        let told = FlowEntry::from_word(part[place % PART]);
        if told.state() != FLOW_EMPTY
            && (found.state() == FLOW_EMPTY || found.tag() != told.tag() || told.age(now) > kept)
        {
            part[place % PART] = 0;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

const PART: usize = 4096;

#[cfg(test)]
mod tests {
    use lb_common::abi::FLOW_CONFIRMED;

    use super::*;

    #[test]
    fn a_note_goes_with_the_flow_and_before_its_time_repeats() {
        let flow = |tag, epoch| FlowEntry::new(tag, FLOW_CONFIRMED, epoch, 3);
        let noted = |found, now| {
            let mut ledger = Ledger::default();
            ledger.note(5000, flow(7, 100));
            ledger.settle(5000, found, now, 1012);
            ledger.told(5000).state() != FLOW_EMPTY
        };
        assert!(noted(flow(7, 600), 1112));
        assert!(!noted(flow(7, 600), 1113), "peers have dropped it");
        assert!(!noted(flow(8, 101), 101), "it is another flow");
        assert!(!noted(FlowEntry::EMPTY, 101), "it is gone");
        Ledger::default().settle(5000, flow(7, 1), 1, 1012);
    }
}
