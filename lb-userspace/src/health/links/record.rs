//! When this host was last cut off, and which checks that excuses. Pure: `now` is when the kernel had answered.

use std::time::Duration;

use tokio::time::Instant;

use crate::interfaces::Carrier;

/// What is known of the links of some interfaces.
#[derive(Debug, Default)]
pub(super) struct Record {
    interfaces: Vec<Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// As it was looked at last; `None` where it could not be.
    last: Option<Carrier>,
    /// The latest moment at which it had no link, or may have had none.
    dark: Option<Instant>,
}

/// What failed checks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::health) enum Phase {
    /// What they always say.
    #[default]
    Counting,
    /// Nothing: no interface has a link.
    Dark,
    /// Nothing: one has, but not for long enough.
    Settling,
}

impl Record {
    pub(super) fn of(interfaces: usize) -> Self {
        Self { interfaces: vec![Seen::default(); interfaces] }
    }

    /// Takes a look at all of them, in the same order each time.
    pub(super) fn note(&mut self, now: Instant, looks: impl IntoIterator<Item = Option<Carrier>>) {
        for (seen, look) in self.interfaces.iter_mut().zip(looks) {
            if look.is_some_and(|is| !is.up || seen.last.is_some_and(|was| was != is)) {
                seen.dark = Some(now);
            }
            seen.last = look;
        }
    }

    /// The number of each; 0 where it is not known, or there was none.
    pub(super) fn indices(&self) -> Vec<u32> {
        self.interfaces.iter().map(|seen| seen.last.map_or(0, |last| last.index)).collect()
    }

    /// Whether a check that began then says nothing of its backend if it has failed by the latest look.
    pub(super) fn excuses(&self, began: Instant) -> bool {
        self.settles().is_some_and(|settles| began < settles)
    }

    pub(super) fn phase(&self, now: Instant) -> Phase {
        let is_dark = |seen: &Seen| seen.last.is_some_and(|last| !last.up);
        match self.settles() {
            Some(_) if self.interfaces.iter().all(is_dark) => Phase::Dark,
            Some(settles) if now < settles => Phase::Settling,
            _ => Phase::Counting,
        }
    }

    /// From when on checks have to begin to count, if there is a link from now on. `None`: whenever they began.
    pub(super) fn settles(&self) -> Option<Instant> {
        // One that never was without a link is one by which checks may have gone all the time; so is none at all.
        let dark: Option<Vec<_>> = self.interfaces.iter().map(|seen| seen.dark).collect();
        dark?.into_iter().min().map(|dark| dark + SETTLE)
    }
}

/// The kernel asks for a MAC address that it does not have once a second. Of a neighbour for which it asked in vain just
/// before the link was back it asks again only then, and a check that begins meanwhile waits, as long as its timeout may be.
const SETTLE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Option<Carrier> = Some(Carrier { index: 2, up: true, losses: 1 });
    const DOWN: Option<Carrier> = Some(Carrier { index: 2, up: false, losses: 2 });
    const BACK: Option<Carrier> = Some(Carrier { index: 2, up: true, losses: 2 });
    const UNKNOWN: Option<Carrier> = None;

    /// A record with a look at each of these milliseconds.
    fn record<const N: usize>(start: Instant, looks: &[(u64, [Option<Carrier>; N])]) -> Record {
        let mut record = Record::of(N);
        for (at, look) in looks {
            record.note(start + Duration::from_millis(*at), *look);
        }
        record
    }

    /// Whether a check is excused that began at that millisecond.
    fn excused<const N: usize>(looks: &[(u64, [Option<Carrier>; N])], began: u64) -> bool {
        let start = Instant::now();
        record(start, looks).excuses(start + Duration::from_millis(began))
    }

    #[test]
    fn while_there_is_no_link_no_failure_counts_and_with_one_all_do() {
        assert!(!excused(&[(0, [UP])], 10));
        // The daemon learns of it when it judges what failed at once.
        assert!(excused(&[(0, [UP]), (20_000, [DOWN])], 19_999));
        assert!(excused(&[(0, [DOWN]), (20_000, [DOWN])], 10));
        // A start without a link.
        assert!(excused(&[(0, [DOWN])], 0));
        // A start says nothing of what was before.
        assert!(!excused(&[(0, [BACK])], 0));
    }

    #[test]
    fn checks_that_began_before_the_link_was_back_and_settled_do_not_count() {
        let flap = [(0, [UP]), (5_000, [DOWN]), (6_400, [BACK]), (9_000, [BACK])];
        for (began, expected) in [(0, true), (4_999, true), (6_399, true), (7_399, true), (7_400, false)] {
            assert_eq!(excused(&flap, began), expected, "began at {began} ms");
        }
    }

    #[test]
    fn a_loss_that_was_over_before_anybody_looked_is_known_by_the_kernels_count() {
        assert!(excused(&[(0, [UP]), (5_000, [BACK])], 4_000));
        assert!(!excused(&[(0, [UP]), (5_000, [UP])], 4_000));
        // Deleted, and made again: whatever went by the old one was lost.
        let another = Some(Carrier { index: 3, ..UP.expect("that one is") });
        assert!(excused(&[(0, [UP]), (5_000, [another])], 4_000));
    }

    #[test]
    fn as_long_as_one_of_two_has_a_link_every_failure_counts() {
        assert!(!excused(&[(0, [UP, UP]), (5_000, [DOWN, UP])], 4_900));
        assert!(!excused(&[(0, [UP, DOWN]), (5_000, [UP, DOWN])], 4_900));
        assert!(excused(&[(0, [UP, DOWN]), (5_000, [DOWN, DOWN])], 4_900));
        // One is back.
        let one_back =
            [(0, [UP, DOWN]), (5_000, [DOWN, DOWN]), (6_000, [BACK, DOWN]), (60_000, [BACK, DOWN])];
        assert!(excused(&one_back, 6_999));
        assert!(!excused(&one_back, 7_000));
    }

    #[test]
    fn without_interfaces_and_without_answers_every_failure_counts() {
        assert!(!excused::<0>(&[(0, [])], 0));
        assert!(!excused(&[(0, [UNKNOWN]), (10, [UNKNOWN])], 0));
        // What was known of a link that can't be looked at any more holds for a moment.
        assert!(!excused(&[(0, [DOWN]), (5_000, [UNKNOWN])], 1_000));
        assert!(!excused(&[(0, [DOWN, UNKNOWN])], 0));
    }

    #[test]
    fn phases_follow_each_other() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let flap = record(start, &[(0, [UP]), (5_000, [DOWN])]);
        assert_eq!(flap.phase(at(5_000)), Phase::Dark);
        assert_eq!(flap.phase(at(50_000)), Phase::Dark);
        let flap = record(start, &[(0, [UP]), (5_000, [DOWN]), (6_400, [BACK])]);
        assert_eq!(flap.phase(at(7_399)), Phase::Settling);
        assert_eq!(flap.phase(at(7_400)), Phase::Counting);
        assert_eq!(record::<0>(start, &[]).phase(start), Phase::Counting);
        assert_eq!(record(start, &[(0, [UP])]).phase(start), Phase::Counting);
    }
}
