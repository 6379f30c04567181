//! When this host was last cut off, and which checks that excuses. Pure: `now` is when the kernel had answered.

use std::time::Duration;

use tokio::time::Instant;

use crate::interfaces::Carrier;

/// What is known of the links of some interfaces.
#[derive(Debug, Default)]
pub(super) struct Record {
    interfaces: Vec<Seen>,
    /// The latest moment at which none of them was of use.
    dark: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// What the kernel told last.
    last: Option<Carrier>,
    /// It could not be looked at since.
    is_blind: bool,
    /// The latest moment at which it had no link, or may have had none.
    lost: Option<Instant>,
    /// The same, or had no address that it may use.
    dark: Option<Instant>,
    /// It has not been of use for long enough since.
    is_settling: bool,
}

/// How an interface looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) carrier: Carrier,
    /// Whether somebody else has one of its addresses is being found out.
    pub(super) is_detecting: bool,
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
        Self { interfaces: vec![Seen::default(); interfaces], dark: None }
    }

    /// Takes a look at all of them, in the same order each time; `None` of one that could not be looked at.
    pub(super) fn note(&mut self, now: Instant, looks: impl IntoIterator<Item = Option<Look>>) {
        for (seen, look) in self.interfaces.iter_mut().zip(looks) {
            seen.note(now, look);
        }
        // One that never was without a link is one by which checks may have gone all the time; so is none at all.
        let dark: Option<Vec<_>> = self.interfaces.iter().map(|seen| seen.dark).collect();
        let first = dark.and_then(|dark| dark.into_iter().min());
        // One after the other is not all at the same time.
        self.dark = first.filter(|first| now - *first <= TOGETHER).or(self.dark);
    }

    /// Whether one has had a link for so short a time that its addresses matter.
    pub(super) fn is_settling(&self) -> bool {
        self.interfaces.iter().any(|seen| seen.is_settling)
    }

    /// The number of each; 0 where it is not known, or there was none.
    pub(super) fn indices(&self) -> Vec<u32> {
        self.interfaces.iter().map(|seen| seen.last.map_or(0, |last| last.index)).collect()
    }

    /// Whether a check that began then says nothing of its backend if it has failed by the latest look.
    pub(super) fn excuses(&self, began: Instant) -> bool {
        // What was dark at the latest look is taken to be so still, however long ago that was.
        self.settles().is_some_and(|settles| began < settles || self.is_dark())
    }

    fn is_dark(&self) -> bool {
        self.interfaces.iter().all(Seen::has_no_link)
    }

    pub(super) fn phase(&self, now: Instant) -> Phase {
        match self.settles() {
            Some(_) if self.is_dark() => Phase::Dark,
            Some(settles) if now < settles => Phase::Settling,
            _ => Phase::Counting,
        }
    }

    /// From when on checks have to begin to count, if there is a link from now on. `None`: whenever they began.
    pub(super) fn settles(&self) -> Option<Instant> {
        self.dark.map(|dark| dark + SETTLE)
    }
}

impl Seen {
    fn note(&mut self, now: Instant, look: Option<Look>) {
        self.is_blind = look.is_none();
        let Some(Look { carrier, is_detecting }) = look else { return };
        if !carrier.up || self.last.is_some_and(|was| was != carrier) {
            (self.lost, self.dark, self.is_settling) = (Some(now), Some(now), true);
        } else if self.is_settling {
            let waits = is_detecting && self.lost.is_some_and(|lost| now - lost < LONGEST_DETECTION);
            if waits {
                self.dark = Some(now);
            }
            self.is_settling = self.dark.is_some_and(|dark| now - dark < SETTLE);
        }
        self.last = Some(carrier);
    }

    fn has_no_link(&self) -> bool {
        !self.is_blind && self.last.is_some_and(|last| !last.up)
    }
}

/// The kernel asks for a MAC address that it does not have once a second. Of a neighbour for which it asked in vain just
/// before the link was back it asks again only then, and a check that begins meanwhile waits, as long as its timeout may be.
const SETTLE: Duration = Duration::from_secs(1);

/// How much later than the first the last of several may lose its link, as when the switch they have in common restarts.
const TOGETHER: Duration = Duration::from_secs(1);

/// The kernel takes up to 2 s to find out whether somebody else has an address, and more only if it is told to.
const LONGEST_DETECTION: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Option<Look> = look(2, true, 1);
    const DOWN: Option<Look> = look(2, false, 2);
    const BACK: Option<Look> = look(2, true, 2);
    const UNKNOWN: Option<Look> = None;

    const fn look(index: u32, up: bool, losses: u32) -> Option<Look> {
        Some(Look { carrier: Carrier { index, up, losses }, is_detecting: false })
    }

    /// The same while it is being found out whether somebody else has an address of it.
    fn detecting(look: Option<Look>) -> Option<Look> {
        look.map(|look| Look { is_detecting: true, ..look })
    }

    /// A record with a look at each of these milliseconds.
    fn record<const N: usize>(start: Instant, looks: &[(u64, [Option<Look>; N])]) -> Record {
        let mut record = Record::of(N);
        for (at, look) in looks {
            record.note(start + Duration::from_millis(*at), *look);
        }
        record
    }

    /// Whether a check is excused that began at that millisecond.
    fn excused<const N: usize>(looks: &[(u64, [Option<Look>; N])], began: u64) -> bool {
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
        // The kernel is busy and tells nothing more.
        assert!(excused(&[(0, [UP]), (10_000, [DOWN])], 15_000));
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
        assert!(excused(&[(0, [UP]), (5_000, [look(3, true, 1)])], 4_000));
        // Nor does it matter that somebody could not look in between.
        let blind = [(0, [UP]), (4_900, [UNKNOWN]), (5_000, [BACK])];
        assert!(excused(&blind, 4_000));
        assert_eq!(record(Instant::now(), &blind[..2]).indices(), [2]);
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
    fn links_that_were_lost_one_after_the_other_excuse_nothing() {
        let flaps = |apart: u64| {
            let second = 10_000 + apart;
            [(0, [UP, UP]), (10_000, [DOWN, UP]), (10_001, [BACK, UP]), (second, [BACK, BACK])]
        };
        assert!(!excused(&flaps(40_000), 0));
        // The switch they have in common restarts, and they lose it within a second.
        assert!(excused(&flaps(900), 0));
    }

    #[test]
    fn a_link_is_of_use_when_its_addresses_are() {
        let up = |at| (at, [detecting(BACK)]);
        let boot =
            [(0, [detecting(DOWN)]), up(5_000), up(5_900), up(6_000), (6_900, [BACK]), (8_000, [BACK])];
        assert!(excused(&boot, 6_999));
        assert!(!excused(&boot, 7_000));
        let start = Instant::now();
        let phase = |looks: &[_], at| record(start, looks).phase(start + Duration::from_millis(at));
        assert_eq!(phase(&boot[..4], 6_999), Phase::Settling);
        assert_eq!(phase(&boot[..5], 7_000), Phase::Counting);
        // One that comes later is somebody else's business, and so is one that takes too long.
        assert!(!excused(&[(0, [DOWN]), (5_000, [BACK]), (6_000, [BACK]), up(6_500), up(7_000)], 6_000));
        let long: Vec<_> = [(0, [DOWN])].into_iter().chain((50..200).map(|step| up(step * 100))).collect();
        assert!(excused(&long, 10_899));
        assert!(!excused(&long, 10_900));
        // Nor does it matter to one that had its link all the time.
        assert!(!excused(&[up(0), up(5_000)], 4_000));
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
