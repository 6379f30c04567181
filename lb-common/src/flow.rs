//! Following a flow: the step between a slot and a backend where flows are tracked (docs/flow-tracking.md).
//!
//! The data plane runs this on its maps, the simulation in `lb-tests` on arrays of atomics.

use crate::abi::{
    FLOW_BUCKET_ENTRIES, FLOW_CLOSING, FLOW_CONFIRMED, FLOW_EMPTY, FLOW_TAG_BITS, FLOW_UNCONFIRMED,
    FlowEntry, STATE_EXISTING_FLOWS, STATE_NEW_FLOWS, Slot, UNCONFIRMED_AGE,
};

/// What a packet means to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP SYN without ACK, FIN and RST.
    Opens,
    /// Any other TCP segment.
    Continues,
    /// A FIN.
    Closes,
    /// A RST: anyone may have sent it, so it uses an entry and leaves no trace.
    Observes,
    /// A UDP datagram, which does not say whether it is the first.
    Datagram,
}

impl Kind {
    /// `STATE_*` bit of a backend that such a packet of a known flow goes to.
    #[inline(always)]
    const fn needs(self) -> u32 {
        if matches!(self, Self::Opens) { STATE_NEW_FLOWS } else { STATE_EXISTING_FLOWS }
    }
}

/// What the step touches: the flow's bucket, and the states of backends.
pub trait Memory {
    /// An entry's word; `entry` is less than [`FLOW_BUCKET_ENTRIES`].
    fn load(&self, entry: u32) -> u64;
    /// Stores `new` if the entry still holds `old`, and says whether it did.
    fn compare_exchange(&self, entry: u32, old: u64, new: u64) -> bool;
    /// `STATE_*` bits of a backend of the packet's service; 0 for any other index.
    fn state(&self, index: u32) -> u32;
}

/// Where a packet goes, and what is to be noted of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Backend index, 0 for none.
    pub index: u32,
    /// `NOTE_*` bits.
    pub notes: u32,
    /// Backend that has one live flow more, 0 for none.
    pub opened: u32,
    /// Backend that has one live flow less, 0 for none.
    pub closed: u32,
}

/// The flow has an entry that names another backend than its slot's current one: the slot's exception stamp is due.
pub const NOTE_EXCEPTION: u32 = 1;
/// The flow found no place: the slot's failure stamp is due.
pub const NOTE_REFUSED: u32 = 2;
/// An entry was made.
pub const NOTE_INSERTED: u32 = 4;
/// It took the place of another flow's unconfirmed one.
pub const NOTE_EVICTED: u32 = 8;
/// The flow has an entry that is not [`FLOW_UNCONFIRMED`], and had none, or not of that backend: it is more than one packet that
/// anybody can send, and other load balancers may have to know.
pub const NOTE_CONFIRMED: u32 = 16;

/// The bucket of a flow in a table of `mask + 1` buckets.
#[inline(always)]
pub const fn bucket(hash: u64, mask: u32) -> u32 {
    hash as u32 & mask
}

/// What tells a flow from the others in its bucket. None of its bits is one of [`bucket`]'s.
#[inline(always)]
pub const fn tag(hash: u64) -> u32 {
    (hash >> TAG_SHIFT) as u32 & ((1 << FLOW_TAG_BITS) - 1)
}

/// Of the hash bits that a tag is made of, the lowest; a bucket number has at most this many bits.
pub const TAG_SHIFT: u32 = 23;

/// Follows a packet of the flow `tag` in `slot` at coarse time `now`. `pick` chooses the backend of a new flow, 0 for none;
/// it is told whether the flow has an entry all the same, of a backend that no longer takes it.
#[inline(always)]
pub fn follow<M: Memory>(
    memory: &M,
    slot: Slot,
    tag: u32,
    kind: Kind,
    now: u64,
    pick: impl FnOnce(bool) -> u32,
) -> Followed {
    let (at, found) = lookup(memory, tag);
    let is_known = at < FLOW_BUCKET_ENTRIES;
    let needed = kind.needs();
    if is_known && memory.state(found.index()) & needed != 0 {
        return refresh(memory, slot, at, found, kind, now);
    }
    if matches!(kind, Kind::Observes) {
        return Followed { index: fallback(memory, slot), ..Followed::default() };
    }
    let opens = matches!(kind, Kind::Opens | Kind::Datagram);
    let index = if opens { pick(is_known) } else { fallback(memory, slot) };
    if index == 0 {
        return Followed::default();
    }
    let state = match kind {
        Kind::Closes => FLOW_CLOSING,
        Kind::Opens | Kind::Datagram => FLOW_UNCONFIRMED,
        Kind::Continues | Kind::Observes => FLOW_CONFIRMED,
    };
    let new = FlowEntry::new(tag, state, now as u32, index);
    let placed = if is_known { replace(memory, at, found, new) } else { insert(memory, new, now) };
    let exception = if index == slot.current() { 0 } else { NOTE_EXCEPTION };
    let made = NOTE_INSERTED | if state == FLOW_UNCONFIRMED { 0 } else { NOTE_CONFIRMED };
    let opened = if state == FLOW_CLOSING { 0 } else { index };
    match placed {
        Placed::Replaced => Followed {
            index,
            notes: made | exception,
            opened,
            closed: if found.state() == FLOW_CLOSING { 0 } else { found.index() },
        },
        Placed::Inserted { evicted } => {
            let eviction = if evicted == 0 { 0 } else { NOTE_EVICTED };
            Followed { index, notes: made | eviction | exception, opened, closed: evicted }
        }
        // Another CPU was quicker with the same flow.
        Placed::Found(other) if memory.state(other.index()) & needed != 0 => Followed {
            index: other.index(),
            notes: if other.index() == slot.current() { 0 } else { NOTE_EXCEPTION },
            ..Followed::default()
        },
        // Its next packet will find no entry and be sent to the fallback, so this one is too.
        Placed::Found(_) | Placed::Refused => {
            let index = fallback(memory, slot);
            let exception = if index == slot.current() { 0 } else { NOTE_EXCEPTION };
            Followed { index, notes: NOTE_REFUSED | exception, ..Followed::default() }
        }
    }
}

/// What became of an entry of another load balancer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The flow had none here.
    Inserted,
    /// The one here says the same, and was older.
    Refreshed,
    /// The one here says the same, and is no older.
    Known,
    /// The one here named another backend, and was older or of no use.
    Replaced,
    /// The one here names another backend, and the flow was seen here no earlier: it stays.
    Outdated,
    /// There is no place.
    Refused,
}

/// How far the times of two entries of a flow can be compared.
#[derive(Clone, Copy, Debug)]
pub struct Doubt {
    /// The other one's sighting is later if it is so by this many time units.
    pub margin: u32,
    /// Nobody knows when an entry here was seen that is as old as this, in time units, or older.
    pub unknown_from: u32,
}

/// Takes in `new`, which another load balancer has of a flow; its epoch is when the flow was seen there. Where the entry here
/// names another backend the later sighting counts.
pub fn admit<M: Memory>(memory: &M, new: FlowEntry, now: u64, doubt: Doubt) -> Admitted {
    let (at, found) = lookup(memory, new.tag());
    if at == FLOW_BUCKET_ENTRIES {
        return match insert(memory, new, now) {
            Placed::Inserted { .. } | Placed::Replaced => Admitted::Inserted,
            Placed::Found(other) if other.index() == new.index() => Admitted::Known,
            Placed::Found(_) => Admitted::Outdated,
            Placed::Refused => Admitted::Refused,
        };
    }
    if found.index() == new.index() {
        let state = if found.state() == FLOW_UNCONFIRMED { new.state() } else { found.state() };
        let epoch = if new.age(now) < found.age(now) { new.epoch() } else { found.epoch() };
        let seen = found.seen(state, epoch);
        let changed = seen.word() != found.word() && memory.compare_exchange(at, found.word(), seen.word());
        return if changed { Admitted::Refreshed } else { Admitted::Known };
    }
    let is_of_use = memory.state(found.index()) & STATE_EXISTING_FLOWS != 0;
    let is_later = found.age(now) >= new.age(now).saturating_add(doubt.margin).min(doubt.unknown_from);
    // If it fails a packet has just been seen here.
    if (is_later || !is_of_use) && memory.compare_exchange(at, found.word(), new.word()) {
        Admitted::Replaced
    } else {
        Admitted::Outdated
    }
}

/// What [`follow`] would find: the flow's entry, [`FlowEntry::EMPTY`] for none, and whether its backend takes such a packet.
#[inline(always)]
pub fn entry<M: Memory>(memory: &M, tag: u32, kind: Kind) -> (FlowEntry, bool) {
    let (at, found) = lookup(memory, tag);
    let needed = kind.needs();
    (found, at < FLOW_BUCKET_ENTRIES && memory.state(found.index()) & needed != 0)
}

/// Where a flow without an entry goes: to the backend that had the slot before, as long as that takes it.
#[inline(always)]
fn fallback<M: Memory>(memory: &M, slot: Slot) -> u32 {
    let previous = slot.previous();
    if previous != 0 && memory.state(previous) & STATE_EXISTING_FLOWS != 0 {
        previous
    } else {
        slot.current()
    }
}

/// The lowest entry of the flow, [`FLOW_BUCKET_ENTRIES`] for none.
#[inline(always)]
fn lookup<M: Memory>(memory: &M, tag: u32) -> (u32, FlowEntry) {
    let mut at = 0;
    while at < FLOW_BUCKET_ENTRIES {
        let entry = FlowEntry::from_word(memory.load(at));
        if entry.tag() == tag && entry.state() != FLOW_EMPTY {
            return (at, entry);
        }
        at += 1;
    }
    (FLOW_BUCKET_ENTRIES, FlowEntry::EMPTY)
}

/// A packet of a flow whose backend takes it.
#[inline(always)]
fn refresh<M: Memory>(memory: &M, slot: Slot, at: u32, found: FlowEntry, kind: Kind, now: u64) -> Followed {
    let index = found.index();
    let state = match kind {
        Kind::Observes => return Followed { index, ..Followed::default() },
        Kind::Closes => FLOW_CLOSING,
        // A tuple used again. Whatever the tuple was before, it has been seen more than once.
        Kind::Opens if found.state() == FLOW_CLOSING => FLOW_CONFIRMED,
        Kind::Opens => found.state(),
        Kind::Continues if found.state() == FLOW_CLOSING => FLOW_CLOSING,
        Kind::Continues | Kind::Datagram => FLOW_CONFIRMED,
    };
    let exception = if index == slot.current() { 0 } else { NOTE_EXCEPTION };
    let mut followed = Followed { index, notes: exception, opened: 0, closed: 0 };
    let new = found.seen(state, now as u32);
    // If it fails another CPU has just refreshed the entry, or it was so old that the controller took it.
    if new.word() != found.word() && memory.compare_exchange(at, found.word(), new.word()) {
        if found.state() == FLOW_UNCONFIRMED && state != FLOW_UNCONFIRMED {
            followed.notes |= NOTE_CONFIRMED;
        }
        let (was, is) = (found.state() == FLOW_CLOSING, state == FLOW_CLOSING);
        if is && !was {
            followed.closed = index;
        } else if was && !is {
            followed.opened = index;
        }
    }
    followed
}

enum Placed {
    /// In the place of the flow's own old entry.
    Replaced,
    /// In an empty place, or in that of an unconfirmed entry of another flow: then with the index that it named.
    Inserted {
        evicted: u32,
    },
    /// There is an entry of this flow now that was not there before.
    Found(FlowEntry),
    Refused,
}

#[inline(always)]
fn replace<M: Memory>(memory: &M, at: u32, found: FlowEntry, new: FlowEntry) -> Placed {
    let (mut at, mut found) = (at, found);
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        attempt += 1;
        if memory.compare_exchange(at, found.word(), new.word()) {
            return Placed::Replaced;
        }
        // A packet of the old connection may have refreshed it; or another of this one has done what this one wants.
        let (now_at, entry) = lookup(memory, new.tag());
        if now_at == FLOW_BUCKET_ENTRIES {
            return Placed::Refused;
        }
        if entry.index() != found.index() {
            return Placed::Found(entry);
        }
        (at, found) = (now_at, entry);
    }
    Placed::Refused
}

#[inline(always)]
fn insert<M: Memory>(memory: &M, new: FlowEntry, now: u64) -> Placed {
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        attempt += 1;
        let (at, old) = place(memory, now);
        if at == FLOW_BUCKET_ENTRIES {
            // Another CPU may have given this very flow the last place.
            break;
        }
        if memory.compare_exchange(at, old.word(), new.word()) {
            // Two CPUs may have inserted the flow at once, into two places: the lowest counts, for both of them.
            let (lowest, entry) = lookup(memory, new.tag());
            if lowest < at {
                memory.compare_exchange(at, new.word(), FlowEntry::EMPTY.word());
                return Placed::Found(entry);
            }
            return Placed::Inserted { evicted: old.index() };
        }
        let (at, entry) = lookup(memory, new.tag());
        if at < FLOW_BUCKET_ENTRIES {
            return Placed::Found(entry);
        }
    }
    match lookup(memory, new.tag()) {
        (at, entry) if at < FLOW_BUCKET_ENTRIES => Placed::Found(entry),
        _ => Placed::Refused,
    }
}

/// Where an entry may be made: the first empty place, else the first unconfirmed entry that is old enough, else none.
#[inline(always)]
fn place<M: Memory>(memory: &M, now: u64) -> (u32, FlowEntry) {
    let mut best = (FLOW_BUCKET_ENTRIES, FlowEntry::EMPTY);
    let mut at = 0;
    while at < FLOW_BUCKET_ENTRIES {
        let entry = FlowEntry::from_word(memory.load(at));
        if entry.state() == FLOW_EMPTY {
            return (at, entry);
        }
        if best.0 == FLOW_BUCKET_ENTRIES
            && entry.state() == FLOW_UNCONFIRMED
            && entry.age(now) > UNCONFIRMED_AGE
        {
            best = (at, entry);
        }
        at += 1;
    }
    best
}

const ATTEMPTS: u32 = 2;

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;
    use crate::abi::STATE_IN_USE;

    const A: u32 = 1;
    const B: u32 = 2;
    const TAG: u32 = 77;

    struct Bucket {
        entries: [Cell<u64>; 8],
        /// By index.
        states: [Cell<u32>; 4],
    }

    impl Bucket {
        fn new() -> Self {
            let all = STATE_IN_USE | STATE_NEW_FLOWS | STATE_EXISTING_FLOWS;
            Self { entries: [const { Cell::new(0) }; 8], states: core::array::from_fn(|_| Cell::new(all)) }
        }

        fn packet(&self, slot: Slot, tag: u32, kind: Kind, now: u64) -> Followed {
            follow(self, slot, tag, kind, now, |_| slot.current())
        }

        fn fill(&self, state: u32, epoch: u32) {
            for (n, entry) in (1000..).zip(&self.entries) {
                entry.set(FlowEntry::new(n, state, epoch, A).word());
            }
        }

        fn entry(&self, at: usize) -> FlowEntry {
            FlowEntry::from_word(self.entries[at].get())
        }
    }

    impl Memory for Bucket {
        fn load(&self, entry: u32) -> u64 {
            self.entries[entry as usize].get()
        }

        fn compare_exchange(&self, entry: u32, old: u64, new: u64) -> bool {
            let entry = &self.entries[entry as usize];
            let same = entry.get() == old;
            if same {
                entry.set(new);
            }
            same
        }

        fn state(&self, index: u32) -> u32 {
            self.states.get(index as usize).map_or(0, Cell::get)
        }
    }

    /// B is current, A was before.
    fn changed() -> Slot {
        Slot::tracked_since(0, B, A)
    }

    #[test]
    fn a_new_connection_goes_to_the_current_backend_and_an_old_one_stays() {
        let bucket = Bucket::new();
        assert_eq!(bucket.packet(changed(), TAG, Kind::Opens, 5).index, B);
        assert_eq!(bucket.entry(0), FlowEntry::new(TAG, FLOW_UNCONFIRMED, 5, B));
        let old = bucket.packet(changed(), TAG + 1, Kind::Continues, 5);
        assert_eq!((old.index, old.notes), (A, NOTE_INSERTED | NOTE_CONFIRMED | NOTE_EXCEPTION));
        let second = bucket.packet(changed(), TAG, Kind::Continues, 6);
        assert_eq!((second.index, second.notes), (B, NOTE_CONFIRMED));
        assert_eq!(bucket.packet(changed(), TAG, Kind::Continues, 6).notes, 0);
        assert_eq!(bucket.entry(0), FlowEntry::new(TAG, FLOW_CONFIRMED, 6, B));
    }

    #[test]
    fn a_flow_that_finds_no_place_goes_where_its_next_packet_will() {
        let bucket = Bucket::new();
        bucket.fill(FLOW_CONFIRMED, 0);
        let first = bucket.packet(changed(), TAG, Kind::Opens, 1000);
        assert_eq!((first.index, first.notes), (A, NOTE_REFUSED | NOTE_EXCEPTION));
        assert_eq!(bucket.packet(changed(), TAG, Kind::Continues, 1000).index, A);
        bucket.states[A as usize].set(STATE_IN_USE);
        assert_eq!(bucket.packet(changed(), TAG, Kind::Opens, 1000).index, B);
    }

    #[test]
    fn only_old_unconfirmed_entries_are_taken_over() {
        let bucket = Bucket::new();
        bucket.fill(FLOW_UNCONFIRMED, 10);
        assert_eq!(bucket.packet(changed(), TAG, Kind::Opens, 13).notes & NOTE_REFUSED, NOTE_REFUSED);
        let taken = bucket.packet(changed(), TAG, Kind::Opens, 14);
        assert_eq!(taken.notes, NOTE_INSERTED | NOTE_EVICTED);
        assert_eq!((taken.opened, taken.closed), (B, A));
    }

    #[test]
    fn a_syn_on_a_draining_backends_tuple_goes_elsewhere() {
        let bucket = Bucket::new();
        bucket.packet(changed(), TAG, Kind::Continues, 5);
        bucket.states[A as usize].set(STATE_IN_USE | STATE_EXISTING_FLOWS);
        assert_eq!(bucket.packet(changed(), TAG, Kind::Continues, 6).index, A);
        let again = bucket.packet(changed(), TAG, Kind::Opens, 7);
        assert_eq!((again.index, again.opened, again.closed), (B, B, A));
        assert_eq!(bucket.entry(0).index(), B);
        assert_eq!(bucket.entry(1), FlowEntry::EMPTY);
    }

    #[test]
    fn a_reset_leaves_no_trace() {
        let bucket = Bucket::new();
        assert_eq!(
            bucket.packet(changed(), TAG, Kind::Observes, 5),
            Followed { index: A, ..Followed::default() }
        );
        assert_eq!(bucket.entry(0), FlowEntry::EMPTY);
        bucket.packet(changed(), TAG, Kind::Opens, 5);
        assert_eq!(bucket.packet(changed(), TAG, Kind::Observes, 9).index, B);
        assert_eq!(bucket.entry(0), FlowEntry::new(TAG, FLOW_UNCONFIRMED, 5, B));
    }

    #[test]
    fn datagrams_are_confirmed_by_the_second_and_leave_a_dead_backend_at_once() {
        let bucket = Bucket::new();
        let slot = Slot::steady(A);
        assert_eq!(bucket.packet(slot, TAG, Kind::Datagram, 5).notes, NOTE_INSERTED);
        bucket.packet(slot, TAG, Kind::Datagram, 5);
        assert_eq!(bucket.entry(0).state(), FLOW_CONFIRMED);
        bucket.states[A as usize].set(STATE_IN_USE);
        assert_eq!(bucket.packet(Slot::steady(B), TAG, Kind::Datagram, 6).index, B);
        assert_eq!(bucket.entry(0), FlowEntry::new(TAG, FLOW_UNCONFIRMED, 6, B));
    }

    #[test]
    fn live_flows_are_counted_once_however_they_end() {
        let bucket = Bucket::new();
        let slot = Slot::steady(B);
        let live = |followed: Followed| i32::from(followed.opened != 0) - i32::from(followed.closed != 0);
        let kinds = [Kind::Opens, Kind::Continues, Kind::Closes, Kind::Closes, Kind::Continues, Kind::Opens];
        let changes = kinds.map(|kind| live(bucket.packet(slot, TAG, kind, 5)));
        assert_eq!(changes, [1, 0, -1, 0, 0, 1]);
    }

    #[test]
    fn the_lowest_of_two_entries_of_one_flow_counts() {
        let bucket = Bucket::new();
        bucket.entries[3].set(FlowEntry::new(TAG, FLOW_CONFIRMED, 5, A).word());
        bucket.entries[1].set(FlowEntry::new(TAG, FLOW_CONFIRMED, 5, B).word());
        assert_eq!(bucket.packet(changed(), TAG, Kind::Continues, 5).index, B);
    }

    #[test]
    fn of_two_entries_of_a_flow_the_later_sighting_counts() {
        use Admitted::{Inserted, Known, Outdated, Refreshed, Refused, Replaced};
        let entry = |epoch, index| FlowEntry::new(TAG, FLOW_CONFIRMED, epoch, index);
        let by = |margin| Doubt { margin, unknown_from: u32::MAX };
        let bucket = Bucket::new();
        assert_eq!(admit(&bucket, entry(90, A), 100, by(2)), Inserted);
        assert_eq!(bucket.packet(Slot::tracked_since(0, B, 0), TAG, Kind::Observes, 100).index, A);
        assert_eq!(admit(&bucket, entry(90, A), 100, by(2)), Known);
        assert_eq!(admit(&bucket, entry(95, A), 100, by(2)), Refreshed);
        assert_eq!(admit(&bucket, entry(96, B), 100, by(2)), Outdated);
        assert_eq!(admit(&bucket, entry(97, B), 100, by(2)), Replaced);
        // Whoever changed its mind counts at once; whoever does not know when it was, never.
        assert_eq!(admit(&bucket, entry(97, A), 100, by(0)), Replaced);
        assert_eq!(admit(&bucket, entry(100, B), 100, by(u32::MAX)), Outdated);
        bucket.states[A as usize].set(STATE_IN_USE);
        assert_eq!(admit(&bucket, entry(80, B), 100, by(u32::MAX)), Replaced);
        // Whoever is not sure himself yields.
        bucket.states[A as usize].set(bucket.states[B as usize].get());
        let unsure = Doubt { margin: 2, unknown_from: 20 };
        assert_eq!(admit(&bucket, entry(60, A), 100, unsure), Replaced);
        bucket.fill(FLOW_CONFIRMED, 100);
        assert_eq!(admit(&bucket, entry(100, A), 100, by(0)), Refused);
        bucket.fill(FLOW_UNCONFIRMED, 90);
        assert_eq!(admit(&bucket, entry(100, A), 100, by(0)), Inserted);
    }

    const DOUBT: Doubt = Doubt { margin: 0, unknown_from: u32::MAX };

    #[test]
    fn a_second_packet_seen_elsewhere_confirms() {
        let bucket = Bucket::new();
        bucket.packet(Slot::tracked_since(0, A, 0), TAG, Kind::Opens, 100);
        assert_eq!(
            admit(&bucket, FlowEntry::new(TAG, FLOW_CONFIRMED, 99, A), 100, DOUBT),
            Admitted::Refreshed
        );
        let entry = FlowEntry::from_word(bucket.entries[0].get());
        assert_eq!((entry.state(), entry.epoch()), (FLOW_CONFIRMED, 100));
    }
}
