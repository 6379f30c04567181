//! Which datagrams of a peer are new. No clock is trusted, and nothing is kept on disk: whoever receives chooses a number, the
//! session, that the sender has to put into every datagram, so what was sent to an earlier process, or recorded before, has
//! another one; within a session sequence numbers only grow.
//!
//! A sender that does not know the session (one of the two has restarted) says hello without one. The answer carries
//! a number that was never used; only who gets that answer can use it, and by using it begins the new session. A recorded hello
//! so brings about an answer, at most.

/// What one peer sends.
#[derive(Debug)]
pub(super) struct Receiving {
    /// 0 before the first.
    session: u64,
    /// The greatest that has come.
    sequence: u64,
    /// The next session's; nobody has used it.
    spare: u64,
}

/// Whether a datagram counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// It is the first of a session.
    Begins,
    Follows,
    /// It has come before, or after one that was sent later.
    Old,
    /// Its session is none of these.
    Stranger,
}

impl Receiving {
    pub(super) const fn new(spare: u64) -> Self {
        Self { session: 0, sequence: 0, spare }
    }

    /// Looks, and believes nothing: the datagram's authenticity is still to be proved.
    pub(super) const fn judge(&self, session: u64, sequence: u64) -> Freshness {
        match session {
            0 => Freshness::Stranger,
            _ if session == self.session && sequence > self.sequence => Freshness::Follows,
            _ if session == self.session => Freshness::Old,
            _ if session == self.spare => Freshness::Begins,
            _ => Freshness::Stranger,
        }
    }

    /// Takes note of an authentic datagram that counts. `next` is a number that nobody can guess, for the session after a new one.
    pub(super) fn accept(&mut self, session: u64, sequence: u64, next: impl FnOnce() -> u64) {
        if session == self.spare {
            (self.session, self.spare) = (session, next());
        }
        self.sequence = sequence;
    }

    /// The number that the peer is to use; for one that does not know the present one, another.
    pub(super) const fn offer(&self, knows: bool) -> u64 {
        if knows && self.session != 0 { self.session } else { self.spare }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_counts_once_and_never_after_a_later_one() {
        let mut receiving = Receiving::new(77);
        assert_eq!(receiving.judge(0, 1), Freshness::Stranger);
        assert_eq!(receiving.judge(77, 5), Freshness::Begins);
        receiving.accept(77, 5, || 78);
        assert_eq!(receiving.judge(77, 5), Freshness::Old);
        assert_eq!(receiving.judge(77, 4), Freshness::Old);
        assert_eq!(receiving.judge(77, 9), Freshness::Follows);
        receiving.accept(77, 9, || unreachable!("the session goes on"));
        assert_eq!((receiving.judge(77, 6), receiving.offer(true), receiving.offer(false)), (Freshness::Old, 77, 78));
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
