//! What a packet leaves behind.

use super::fragment::{Note, NoteKey};
use super::headers::Kind;
use super::nat::NatChange;
use super::service::{Selection, Stamps};
use super::state::State;

/// What a packet leaves behind in the maps, besides what counts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Place in the lookup map of the packet's slot, tracked or not.
    pub slot: Option<u32>,
    /// Of tracked packets: where they looked, whether or not that changed.
    pub looked_at: Option<Looked>,
    /// Place in the bucket and its new word.
    pub entry: Option<(usize, u64)>,
    /// The slot's stamps become now.
    pub exception: bool,
    pub failed: bool,
    /// By how much live flows of backends change.
    pub loads: Vec<(u32, i64)>,
    /// The service whose rotation went on.
    pub rotated: Option<u32>,
    pub inserted: bool,
    pub evicted: bool,
    pub refused: bool,
    /// One after the other.
    pub nat: Vec<NatChange>,
    /// Of a first fragment; `None` of it: what was known of an earlier packet is forgotten.
    pub note: Option<(NoteKey, Option<Note>)>,
    /// A service, and the second and the flows that were opened in it.
    pub opened: Option<(u32, (u32, u32))>,
    /// The second and the ICMP errors that this CPU made in it.
    pub errors_made: Option<(u64, u64)>,
    pub events: Vec<Event>,
    /// Ways that the packet went, by the names of the rules: for tests that want to have seen all of them.
    pub met: Vec<&'static str>,
    /// How the data plane went against the rules where they leave it a choice.
    pub fault: Option<String>,
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    EchoReply,
    TooBigSent,
    TimeExceededSent,
    ErrorLimited,
    ErrorRelayed,
    NatCreated,
    NatTakenOver,
    ResetSent,
    PortUnreachableSent,
}

impl Event {
    pub const ALL: [Self; 9] = [
        Self::EchoReply,
        Self::TooBigSent,
        Self::TimeExceededSent,
        Self::ErrorLimited,
        Self::ErrorRelayed,
        Self::NatCreated,
        Self::NatTakenOver,
        Self::ResetSent,
        Self::PortUnreachableSent,
    ];
}

/// Where a tracked packet looked, what it was, and how that went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    pub bucket: usize,
    pub tag: u64,
    pub service: u32,
    /// In the lookup map.
    pub slot: u32,
    pub kind: Kind,
    pub selection: Selection,
    pub fate: Fate,
}

/// How a tracked packet found its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// By its entry.
    Hit,
    /// Without an entry, and without a trace.
    Observed,
    /// By an entry just made in an empty place, in its old entry's, or in another flow's.
    Inserted,
    Replaced,
    Evicted,
    /// No entry could be made.
    Refused,
    NoBackend,
}

impl Fate {
    pub const ALL: [Self; 7] = [
        Self::Hit,
        Self::Observed,
        Self::Inserted,
        Self::Replaced,
        Self::Evicted,
        Self::Refused,
        Self::NoBackend,
    ];
}

impl Effects {
    /// The slot's stamps after the packet.
    #[must_use]
    pub fn stamps(&self, before: &State) -> Stamps {
        let slot = self.looked_at.map(|looked| looked.slot).unwrap_or_default();
        let old = before.stamps.get(&slot).copied().unwrap_or_default();
        let now = before.now as u16;
        Stamps {
            exception: if self.exception { now } else { old.exception },
            failed: if self.failed { now } else { old.failed },
        }
    }
}
