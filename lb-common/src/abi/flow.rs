//! The flow table: which backend each tracked flow belongs to.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::limits;

/// One entry of `FLOWS`: a cache line. A flow's entry is in the bucket that its hash names and nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct FlowBucket {
    /// [`FlowEntry`] words; 0 is empty.
    pub entries: [u64; FLOW_BUCKET_ENTRIES as usize],
}

const _: () = assert!(size_of::<FlowBucket>() == 64);

/// Entries a bucket.
pub const FLOW_BUCKET_ENTRIES: u32 = 8;

/// `index:20, epoch:13, state:2, tag:29`, from the lowest bit up.
///
/// Read and written as one word. Every write but the first of an empty table is a compare-and-swap on the value read,
/// in the kernel and in the controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct FlowEntry(u64);

impl FlowEntry {
    pub const EMPTY: Self = Self(0);

    #[inline(always)]
    pub const fn new(tag: u32, state: u32, epoch: u32, index: u32) -> Self {
        Self(
            (index & INDEX_MASK) as u64
                | (((epoch & EPOCH_MASK) as u64) << EPOCH_SHIFT)
                | (((state & STATE_MASK) as u64) << STATE_SHIFT)
                | ((tag as u64) << TAG_SHIFT),
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
    pub const fn index(self) -> u32 {
        self.0 as u32 & INDEX_MASK
    }

    /// Low bits of the coarse time at which a packet of the flow was last seen.
    #[inline(always)]
    pub const fn epoch(self) -> u32 {
        (self.0 >> EPOCH_SHIFT) as u32 & EPOCH_MASK
    }

    /// [`FLOW_EMPTY`], [`FLOW_UNCONFIRMED`], [`FLOW_CONFIRMED`] or [`FLOW_CLOSING`].
    #[inline(always)]
    pub const fn state(self) -> u32 {
        (self.0 >> STATE_SHIFT) as u32 & STATE_MASK
    }

    #[inline(always)]
    pub const fn tag(self) -> u32 {
        (self.0 >> TAG_SHIFT) as u32
    }

    /// The same flow, seen at another time and in another state.
    #[inline(always)]
    pub const fn seen(self, state: u32, epoch: u32) -> Self {
        Self::new(self.tag(), state, epoch, self.index())
    }

    /// Time units since the entry was last seen. An epoch that seems to lie in the future (clocks of two CPUs differ by
    /// a moment) is now; so ages are right up to half the epoch's wrap, and nothing may be let grow older.
    #[inline(always)]
    pub const fn age(self, now: u64) -> u32 {
        let age = (now as u32).wrapping_sub(self.epoch()) & EPOCH_MASK;
        if age > MAX_FLOW_AGE { 0 } else { age }
    }
}

pub const FLOW_EMPTY: u32 = 0;
/// One packet was seen: a TCP SYN, or a UDP flow's first packet.
pub const FLOW_UNCONFIRMED: u32 = 1;
pub const FLOW_CONFIRMED: u32 = 2;
/// A FIN was seen. The flow keeps its backend all the same, but does not count as live.
pub const FLOW_CLOSING: u32 = 3;

/// Greatest age that can be told, in time units.
pub const MAX_FLOW_AGE: u32 = EPOCH_MASK / 2;

/// An unconfirmed entry older than this many time units may be taken over by another flow.
pub const UNCONFIRMED_AGE: u32 = 3;

/// Nanoseconds of a unit of coarse time: a second.
pub const COARSE_UNIT_NS: u64 = 1_000_000_000;

/// Packets a CPU handles between two looks at the kernel's clock: a power of two.
pub const CLOCK_REFRESH_PACKETS: u64 = 256;

/// The only entry of `CLOCK`, in a cache line of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct ClockCell {
    /// Coarse time: `CLOCK_MONOTONIC` in units of [`COARSE_UNIT_NS`]. The controller stores it at least once a unit, and
    /// each CPU every [`CLOCK_REFRESH_PACKETS`] packets, so that time goes on without the controller.
    pub now: u64,
    /// A [`ClockJump`], written before `now` is.
    pub jump: u64,
    pub _padding: [u64; 6],
}

const _: () = assert!(size_of::<ClockCell>() == 64);

/// `coarse time:32, length:32 << 32`: when the clock went on after it had stood still, because there was no controller and
/// few packets came, and for how long it had. What was seen before may be younger than it looks by as much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct ClockJump(pub u64);

impl ClockJump {
    /// After the clock went from one time to another.
    #[must_use]
    #[inline(always)]
    pub const fn after(self, was: u64, now: u64) -> Self {
        let length = now.saturating_sub(was);
        // A new cell has no time.
        if was == 0 || length <= CLOCK_GAP {
            return self;
        }
        // A longer one before counts for what was seen before it, until all that is over.
        let is_outlived = self.since(now) > self.length() as u64 + limits::MAX_FLOW_IDLE as u64;
        let longest =
            if (self.length() as u64) < length || is_outlived { length } else { self.length() as u64 };
        Self((now & 0xffff_ffff) | (longest << 32))
    }

    /// By how much that may be younger which was seen so many time units ago.
    #[must_use]
    #[inline(always)]
    pub const fn doubt(self, age: u32, now: u64) -> u32 {
        if age as u64 > self.since(now) { self.length() } else { 0 }
    }

    #[inline(always)]
    const fn length(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    const fn since(self, now: u64) -> u64 {
        (now as u32).wrapping_sub(self.0 as u32) as u64
    }
}

/// Time units that the clock may stand still without more ado.
pub const CLOCK_GAP: u64 = 5;

/// What the data plane notes about a slot: half an entry of `SLOT_STAMPS`. Low 16 bits of the coarse time; they mean
/// something only in a slot that is tracked, and the controller sets both before it makes one so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4))]
pub struct SlotStamp {
    /// Last time a packet went, by an entry or into one, to another backend than the slot's current one.
    pub exception: u16,
    /// Last time a flow could not be inserted.
    pub failed: u16,
}

/// One entry of `SLOT_STAMPS`: those of slots `2n` and `2n + 1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct SlotStampPair {
    pub stamps: [SlotStamp; 2],
}

const _: () = assert!(size_of::<SlotStampPair>() == 8);

/// One entry of `FLOW_LOAD`, by backend index: how many live flows least-connections reckons with,
/// `base + changes` (wrapping).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(16))]
pub struct FlowLoad {
    /// Written by the controller alone: what a scan counted, less what `changes` was when it began.
    pub base: u64,
    /// Flows opened less flows closed. Written by the data plane alone, of least-connections services alone.
    pub changes: u64,
}

const _: () = assert!(size_of::<FlowLoad>() == 16);

/// One entry of `ROTATION`, by service: how many flows round-robin has placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Rotation {
    pub placed: u64,
    pub _padding: [u64; 7],
}

const _: () = assert!(size_of::<Rotation>() == 64);

const INDEX_MASK: u32 = (1 << 20) - 1;
const EPOCH_SHIFT: u32 = 20;
const EPOCH_MASK: u32 = (1 << 13) - 1;
const STATE_SHIFT: u32 = 33;
const STATE_MASK: u32 = 3;
const TAG_SHIFT: u32 = 35;

/// Bits of a tag.
pub const FLOW_TAG_BITS: u32 = 29;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_its_fields() {
        let entry = FlowEntry::new(0x1abc_def1, FLOW_CLOSING, 0x1fff, 0xfffff);
        assert_eq!(
            (entry.tag(), entry.state(), entry.epoch(), entry.index()),
            (0x1abc_def1, FLOW_CLOSING, 0x1fff, 0xfffff)
        );
        let seen = entry.seen(FLOW_CONFIRMED, 0x2005);
        assert_eq!(
            (seen.tag(), seen.state(), seen.epoch(), seen.index()),
            (0x1abc_def1, FLOW_CONFIRMED, 5, 0xfffff)
        );
    }

    #[test]
    fn a_clock_that_stood_still_leaves_a_doubt_about_what_was_seen_before() {
        let none = ClockJump::default();
        for (was, now) in [(0, 9000), (100, 100), (100, 105), (100, 99)] {
            assert_eq!(none.after(was, now), none, "from {was} to {now}");
        }
        let jump = none.after(1000, 1400);
        for (age, now, wanted) in [(0, 1400, 0), (1, 1400, 400), (10, 1410, 0), (11, 1410, 400)] {
            assert_eq!(jump.doubt(age, now), wanted, "{age} at {now}");
        }
        // A shorter one does not end the doubt of the longer one while there may be flows of before.
        let shorter = jump.after(1500, 1510);
        assert_eq!((shorter.doubt(1, 1510), shorter.doubt(0, 1510)), (400, 0));
        let end = 1510 + 400 + u64::from(limits::MAX_FLOW_IDLE);
        assert_eq!(shorter.after(end - 10, end).doubt(1, end), 400);
        assert_eq!(shorter.after(end - 9, end + 1).doubt(1, end + 1), 10);
        // Across the wrap of what is kept of the time.
        let late = none.after(0xffff_fff0, 0x1_0000_0010);
        assert_eq!((late.doubt(3, 0x1_0000_0012), late.doubt(2, 0x1_0000_0012)), (0x20, 0));
    }

    #[test]
    fn ages_survive_the_wrap_and_the_future_is_now() {
        let entry = FlowEntry::new(1, FLOW_CONFIRMED, 8190, 1);
        assert_eq!(entry.age(8190), 0);
        assert_eq!(entry.age(8192 + 3), 5);
        assert_eq!(entry.age(8190 + 4095), 4095);
        assert_eq!(entry.age(8189), 0);
    }
}
