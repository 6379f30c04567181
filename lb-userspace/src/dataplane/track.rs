//! Changing a slot so that the flows on it survive (docs/flow-tracking.md): pure.

use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::abi::{Slot, SlotStamp, SlotStampPair, TRACK_NEVER};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// The slot that sends new flows to `current`, and those that are there where they are used to go. `accepts` says whether
/// a backend, before this change, takes packets of existing flows; `now` is coarse time.
///
/// A slot that is right as it is comes back as it is. Both stamps have to be `now` before a new one is stored.
pub fn publish(old: Slot, current: u32, tracking: u8, accepts: impl Fn(u32) -> bool, now: u64) -> Slot {
    if tracking == TRACK_NEVER {
        return Slot::steady(current);
    }
    if old.current() == current {
        return old;
    }
    if !old.is_tracked() && old.current() == 0 {
        return Slot::steady(current);
    }
    match old.previous() != 0 && accepts(old.previous()) {
        // Flows of the backends in between all have entries; the oldest backend's need not.
        true => Slot::tracked_since(old.opened(), current, old.previous()),
        false => Slot::tracked_since(now as u16, current, old.current()),
    }
}

/// The slot without a previous backend that takes nothing: while it does not, flows without an entry go to `current`, and
/// should it take some again they must not follow it.
pub fn forget(slot: Slot, accepts: impl Fn(u32) -> bool) -> Slot {
    let previous = slot.previous();
    if previous == 0 || accepts(previous) {
        slot
    } else {
        Slot::tracked_since(slot.opened(), slot.current(), 0)
    }
}

/// The same slot where flows are to be tracked from now on, whatever was so before.
pub fn reopen(old: Slot, tracking: u8, now: u64) -> Slot {
    match tracking {
        TRACK_NEVER => Slot::steady(old.current()),
        _ if old.current() == 0 && old.previous() == 0 => old,
        _ => Slot::tracked_since(now as u16, old.current(), old.previous()),
    }
}

/// Sets both stamps of a slot. `pairs` are the words of `SLOT_STAMPS`.
pub fn stamp(pairs: &[AtomicU64], slot: u32, now: u64) {
    let Some(word) = pairs.get((slot >> 1) as usize) else { return };
    let stamp = SlotStamp { exception: now as u16, failed: now as u16 };
    // The data plane may be writing the other slot's half.
    let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
        let mut pair = SlotStampPair::read_from_bytes(old.as_bytes()).unwrap_or_default();
        if let Some(half) = pair.stamps.get_mut((slot & 1) as usize) {
            *half = stamp;
        }
        u64::read_from_bytes(pair.as_bytes()).ok()
    });
}

/// Both stamps of a slot.
pub fn stamps(pairs: &[AtomicU64], slot: u32) -> SlotStamp {
    let word = pairs.get((slot >> 1) as usize).map_or(0, |word| word.load(Ordering::Acquire));
    let pair = SlotStampPair::read_from_bytes(word.as_bytes()).unwrap_or_default();
    pair.stamps.get((slot & 1) as usize).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use lb_common::abi::{TRACK_ALWAYS, TRACK_AUTO};

    use super::*;

    const A: u32 = 1;
    const B: u32 = 2;
    const C: u32 = 3;

    fn all(_: u32) -> bool {
        true
    }

    #[test]
    fn the_first_backend_of_a_slot_has_nothing_to_track() {
        assert_eq!(publish(Slot::default(), A, TRACK_AUTO, all, 9), Slot::steady(A));
        assert_eq!(publish(Slot::default(), A, TRACK_ALWAYS, all, 9), Slot::steady(A));
    }

    #[test]
    fn a_slot_remembers_who_had_it_first() {
        let once = publish(Slot::steady(A), B, TRACK_AUTO, all, 9);
        assert_eq!(once, Slot::tracked_since(9, B, A));
        let twice = publish(once, C, TRACK_AUTO, all, 20);
        assert_eq!(twice, Slot::tracked_since(9, C, A));
        assert_eq!(publish(twice, C, TRACK_AUTO, all, 30), twice);
    }

    #[test]
    fn a_previous_that_takes_nothing_makes_way_and_is_forgotten() {
        let slot = Slot::tracked_since(9, B, A);
        let without_a = |index| index != A;
        assert_eq!(publish(slot, C, TRACK_AUTO, without_a, 20), Slot::tracked_since(20, C, B));
        assert_eq!(publish(slot, B, TRACK_AUTO, without_a, 20), slot);
        assert_eq!(forget(slot, without_a), Slot::tracked_since(9, B, 0));
        assert_eq!(forget(slot, all), slot);
    }

    #[test]
    fn no_backend_at_all_is_a_change_like_any_other() {
        let none = publish(Slot::steady(A), 0, TRACK_AUTO, all, 9);
        assert_eq!(none, Slot::tracked_since(9, 0, A));
        assert_eq!(publish(none, B, TRACK_AUTO, all, 10), Slot::tracked_since(9, B, A));
    }

    #[test]
    fn a_service_that_never_tracks_has_plain_slots() {
        assert_eq!(publish(Slot::tracked_since(9, B, A), C, TRACK_NEVER, all, 20), Slot::steady(C));
        assert_eq!(reopen(Slot::tracked_since(9, B, A), TRACK_NEVER, 20), Slot::steady(B));
        assert_eq!(reopen(Slot::steady(B), TRACK_AUTO, 20), Slot::tracked_since(20, B, 0));
    }

    #[test]
    fn stamping_a_slot_leaves_its_neighbour_alone() {
        let pairs = [AtomicU64::new(u64::MAX)];
        stamp(&pairs, 1, 7);
        assert_eq!(stamps(&pairs, 1), SlotStamp { exception: 7, failed: 7 });
        assert_eq!(stamps(&pairs, 0), SlotStamp { exception: 0xffff, failed: 0xffff });
    }
}
