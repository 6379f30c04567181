//! One entry of a lookup table.

/// A slot word: `current:20, previous:20, opened:16, tracked:1`, seven zero bits, from the lowest bit up.
///
/// Read and written as one 8-byte word, so a reader sees the old slot or the new one, never a mixture. Index 0 means
/// "no backend". `previous`, `opened` and `tracked` belong to flow tracking and are 0 in a slot that is not tracked;
/// docs/flow-tracking.md says what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Slot(u64);

/// Largest backend index a slot can name.
pub const MAX_BACKEND_INDEX: u32 = (1 << INDEX_BITS) - 1;

impl Slot {
    /// A steady slot: new and existing flows go to `current` (0: nowhere).
    #[inline(always)]
    pub const fn steady(current: u32) -> Self {
        Self((current & MAX_BACKEND_INDEX) as u64)
    }

    /// A tracked slot: new flows go to `current`, flows without an entry to `previous` if there is one.
    #[inline(always)]
    pub const fn tracked_since(opened: u16, current: u32, previous: u32) -> Self {
        Self(
            (current & MAX_BACKEND_INDEX) as u64
                | (((previous & MAX_BACKEND_INDEX) as u64) << PREVIOUS_SHIFT)
                | ((opened as u64) << OPENED_SHIFT)
                | TRACKED,
        )
    }

    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub const fn current(self) -> u32 {
        (self.0 as u32) & MAX_BACKEND_INDEX
    }

    #[inline(always)]
    pub const fn previous(self) -> u32 {
        ((self.0 >> PREVIOUS_SHIFT) as u32) & MAX_BACKEND_INDEX
    }

    /// Coarse time at which the tracking window opened.
    #[inline(always)]
    pub const fn opened(self) -> u16 {
        (self.0 >> OPENED_SHIFT) as u16
    }

    #[inline(always)]
    pub const fn is_tracked(self) -> bool {
        self.0 & TRACKED != 0
    }
}

const INDEX_BITS: u32 = 20;
const PREVIOUS_SHIFT: u32 = INDEX_BITS;
const OPENED_SHIFT: u32 = 2 * INDEX_BITS;
const TRACKED: u64 = 1 << (OPENED_SHIFT + 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_sit_where_the_design_says() {
        let slot = Slot::from_word(0x12345 | (0xabcde << 20) | (0xbeef << 40) | (1 << 56));
        assert_eq!(slot.current(), 0x12345);
        assert_eq!(slot.previous(), 0xabcde);
        assert_eq!(slot.opened(), 0xbeef);
        assert!(slot.is_tracked());
        assert_eq!(Slot::tracked_since(0xbeef, 0x12345, 0xabcde), slot);
    }

    #[test]
    fn a_steady_slot_carries_nothing_but_its_backend() {
        let slot = Slot::steady(MAX_BACKEND_INDEX);
        assert_eq!(slot.word(), u64::from(MAX_BACKEND_INDEX));
        assert_eq!((slot.previous(), slot.opened(), slot.is_tracked()), (0, 0, false));
        assert_eq!(Slot::steady(0), Slot::default());
    }
}
