//! Which datagrams of a peer are new. No clock is trusted, and nothing is kept on disk: whoever receives chooses a number, the
//! session, that the sender has to put into every datagram, so what was sent to an earlier process, or recorded before, has
//! another one; within a session each sequence number counts once. Networks reorder a little, so those that are not much older
//! than the newest count as well: what they say has a time of its own.
//!
//! A sender that does not know the session (one of the two has restarted) says hello without one. The answer carries
//! a number that was never used; only who gets that answer can use it, and by using it begins the new session. A recorded hello
//! so brings about an answer, at most.

/// What one peer sends.
#[derive(Debug)]
pub(super) struct Receiving {
    /// 0 before the first.
    session: u64,
    /// The greatest sequence number that has come.
    newest: u64,
    /// A bit for each of the [`WINDOW`] last ones: it has come.
    seen: [u64; WINDOW as usize / 64],
    /// The next session's; nobody has used it.
    spare: u64,
}

/// Whether a datagram counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// It is the first of a session.
    Begins,
    Follows,
    /// It has come before, or so many that were sent later have come that nobody knows.
    Old,
    /// Its session is neither the present one nor the next.
    Stranger,
}

impl Receiving {
    pub(super) const fn new(spare: u64) -> Self {
        Self { session: 0, newest: 0, seen: [0; WINDOW as usize / 64], spare }
    }

    /// Looks, and believes nothing: the datagram's authenticity is still to be proved.
    pub(super) const fn judge(&self, session: u64, sequence: u64) -> Freshness {
        match session {
            0 => Freshness::Stranger,
            _ if session == self.session && sequence > self.newest => Freshness::Follows,
            _ if session == self.session => {
                let is_old = self.newest - sequence >= WINDOW || self.has(sequence);
                if is_old { Freshness::Old } else { Freshness::Follows }
            }
            _ if session == self.spare => Freshness::Begins,
            _ => Freshness::Stranger,
        }
    }

    /// Takes note of an authentic datagram that counts. `next` is a number that nobody can guess, for the session after a new one.
    pub(super) fn accept(&mut self, session: u64, sequence: u64, next: impl FnOnce() -> u64) {
        if session == self.spare {
            *self = Self { session, newest: sequence, ..Self::new(next()) };
        }
        if sequence > self.newest {
            let passed = (self.newest + 1)..=sequence;
            for one in passed.take(WINDOW as usize) {
                self.seen[Self::word(one)] &= !Self::bit(one);
            }
            if sequence - self.newest >= WINDOW {
                self.seen = [0; WINDOW as usize / 64];
            }
            self.newest = sequence;
        }
        self.seen[Self::word(sequence)] |= Self::bit(sequence);
    }

    const fn has(&self, sequence: u64) -> bool {
        self.seen[Self::word(sequence)] & Self::bit(sequence) != 0
    }

    const fn word(sequence: u64) -> usize {
        (sequence % WINDOW / 64) as usize
    }

    const fn bit(sequence: u64) -> u64 {
        1 << (sequence % 64)
    }

    /// The number that the peer is to use; for one that does not know the present one, another.
    pub(super) const fn offer(&self, knows: bool) -> u64 {
        if knows && self.session != 0 { self.session } else { self.spare }
    }
}

/// Sequence numbers that are remembered: eight times as many as may be on their way.
const WINDOW: u64 = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_counts_once_and_not_after_many_later_ones() {
        let mut receiving = Receiving::new(77);
        assert_eq!(receiving.judge(0, 1), Freshness::Stranger);
        assert_eq!(receiving.judge(77, 5), Freshness::Begins);
        receiving.accept(77, 5, || 78);
        assert_eq!(receiving.judge(77, 5), Freshness::Old);
        // It came the other way round.
        assert_eq!(receiving.judge(77, 4), Freshness::Follows);
        receiving.accept(77, 4, || unreachable!("the session goes on"));
        assert_eq!(receiving.judge(77, 4), Freshness::Old);
        receiving.accept(77, WINDOW + 3, || unreachable!("the session goes on"));
        assert_eq!(receiving.judge(77, 3), Freshness::Old);
        assert_eq!((receiving.judge(77, 4), receiving.judge(77, 5)), (Freshness::Old, Freshness::Old));
        assert_eq!(receiving.judge(77, 6), Freshness::Follows);
        receiving.accept(77, 9 * WINDOW, || unreachable!("the session goes on"));
        assert_eq!(receiving.judge(77, 8 * WINDOW), Freshness::Old);
        assert_eq!(receiving.judge(77, 8 * WINDOW + 1), Freshness::Follows);
        assert_eq!((receiving.offer(true), receiving.offer(false)), (77, 78));
    }

    /// Against a set of all that has come.
    #[test]
    fn any_order_is_judged_as_by_one_who_remembers_all() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut receiving, mut come) = (Receiving::new(1), std::collections::BTreeSet::new());
        for step in 0..100_000u64 {
            let jump = if rng.u8(..) == 0 { 3000 } else { 50 };
            let sequence = (step / 20 + rng.u64(..jump)).max(1);
            let newest = come.last().copied().unwrap_or_default();
            let counts = !come.contains(&sequence) && sequence + WINDOW > newest;
            let judged = receiving.judge(1, sequence);
            assert_eq!(
                matches!(judged, Freshness::Follows | Freshness::Begins),
                counts,
                "{sequence} after {newest}"
            );
            if counts {
                receiving.accept(1, sequence, || 2);
                come.insert(sequence);
            }
        }
    }

    #[test]
    fn a_new_session_ends_the_old_one_for_good() {
        let mut receiving = Receiving::new(77);
        receiving.accept(77, 5, || 78);
        receiving.accept(78, 1, || 79);
        assert_eq!(receiving.judge(77, 6), Freshness::Stranger);
        assert_eq!(receiving.judge(78, 2), Freshness::Follows);
        assert_eq!(receiving.offer(false), 79);
    }
}
