//! Flow entries: words in buckets of eight.

/// Words as they are in the map.
pub type Bucket = [u64; 8];

pub const EMPTY_BUCKET: Bucket = [0; 8];

/// What an entry says that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub tag: u64,
    pub state: FlowState,
    /// Time of the last packet, modulo 2¹³.
    pub epoch: u64,
    pub index: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    Unconfirmed,
    Confirmed,
    Closing,
}

/// An epoch repeats after this many time units.
pub const EPOCHS: u64 = 8192;

impl Flow {
    /// The word, from its highest bits down: 29 of tag, 2 of state, 13 of epoch, 20 of index.
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        let state = match (word >> 33) % 4 {
            1 => FlowState::Unconfirmed,
            2 => FlowState::Confirmed,
            3 => FlowState::Closing,
            _ => return None,
        };
        let index = (word % (1 << 20)) as u32;
        Some(Self { tag: word >> 35, state, epoch: (word >> 20) % EPOCHS, index })
    }

    #[must_use]
    pub fn word(self) -> u64 {
        let state = match self.state {
            FlowState::Unconfirmed => 1,
            FlowState::Confirmed => 2,
            FlowState::Closing => 3,
        };
        ((self.tag * 4 + state) * EPOCHS + self.epoch % EPOCHS) * (1 << 20) + u64::from(self.index)
    }

    /// Time units since the last packet; one that seems to come from the future came now.
    #[must_use]
    pub fn age(self, now: u64) -> u64 {
        let age = (now % EPOCHS + EPOCHS - self.epoch) % EPOCHS;
        if age <= 4095 { age } else { 0 }
    }

    #[must_use]
    pub fn is_live(self) -> bool {
        self.state != FlowState::Closing
    }
}

/// A flow's bucket, in a table of so many, and its tag.
#[must_use]
pub fn place(flow_hash: u64, buckets: usize) -> (usize, u64) {
    ((flow_hash % buckets as u64) as usize, (flow_hash >> 23) % (1 << 29))
}
