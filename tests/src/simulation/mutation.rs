//! Rules, each of which can be switched off.

/// A rule that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Packets that go to another backend than the slot's current one don't stamp the slot.
    ExceptionsNotStamped,
    /// Flows that find no place don't stamp the slot.
    FailuresNotStamped,
    /// A slot that changes is not stamped.
    ChangesNotStamped,
    /// A slot that changes forgets the backend it leaves.
    PreviousForgottenAtOnce,
    /// A slot that changes again remembers the backend it leaves now.
    PreviousIsTheNewest,
    /// A slot is no more tracked as soon as it has no previous backend.
    UntrackedWithPrevious,
    /// A slot's window is over before a flow may have been idle.
    WindowTooShort,
    /// Entries are removed before a flow may have been idle.
    EntriesRemovedTooSoon,
    /// Entries stay when their slot is no more tracked.
    EntriesStay,
    /// A full bucket makes room by forgetting any of its flows.
    ConfirmedTakenOver,
    /// Nothing makes room in a full bucket.
    UnconfirmedNeverTakenOver,
    /// A flow that finds no place goes to the slot's current backend.
    RefusedGoToCurrent,
    /// A flow first seen in its midst counts as hardly begun.
    OldFlowsUnconfirmed,
    /// The second packet does not confirm.
    NothingConfirms,
    /// A FIN removes the entry.
    FinForgets,
    /// A RST removes the entry.
    ResetForgets,
    /// A SYN goes where the tuple's last flow went.
    SynKeepsEntry,
    /// Ages are believed after a gap.
    NoRestampAfterGap,
    /// An index is given to another backend as soon as it is free.
    IndexReusedAtOnce,
    /// A backend that takes nothing stays the previous one, and may take some again.
    PreviousStaysThatTakesNothing,
}

impl Mutation {
    pub const ALL: [Self; 20] = [
        Self::ExceptionsNotStamped,
        Self::FailuresNotStamped,
        Self::ChangesNotStamped,
        Self::PreviousForgottenAtOnce,
        Self::PreviousIsTheNewest,
        Self::UntrackedWithPrevious,
        Self::WindowTooShort,
        Self::EntriesRemovedTooSoon,
        Self::EntriesStay,
        Self::ConfirmedTakenOver,
        Self::UnconfirmedNeverTakenOver,
        Self::RefusedGoToCurrent,
        Self::OldFlowsUnconfirmed,
        Self::NothingConfirms,
        Self::FinForgets,
        Self::ResetForgets,
        Self::SynKeepsEntry,
        Self::NoRestampAfterGap,
        Self::IndexReusedAtOnce,
        Self::PreviousStaysThatTakesNothing,
    ];
}
