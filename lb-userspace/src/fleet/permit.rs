//! How many members may stop taking traffic though they could forward. Pure.

/// Of so many members, so many may have withdrawn at once for reasons that are not their own forwarding's.
pub fn allowed(members: usize) -> usize {
    (members / 5).max(1)
}

/// Whether one more may.
pub fn is_free(members: usize, withdrawn: usize) -> bool {
    withdrawn < allowed(members)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fifth_may_and_always_one() {
        let table = [(0, 1), (1, 1), (3, 1), (9, 1), (10, 2), (14, 2), (15, 3), (100, 20)];
        for (members, expected) in table {
            assert_eq!(allowed(members), expected, "{members}");
        }
    }

    proptest! {
        /// Whoever asks one after the other, and however many of them are gone again: never more than a fifth, or one.
        #[test]
        fn never_more_than_a_fifth_are_withdrawn(members in 0..500usize, asks in proptest::collection::vec(any::<bool>(), 0..600)) {
            let mut withdrawn = 0;
            for asks in asks {
                match asks {
                    true => withdrawn += usize::from(is_free(members, withdrawn)),
                    false => withdrawn = withdrawn.saturating_sub(1),
                }
                prop_assert!(withdrawn <= 1 || withdrawn * 5 <= members);
            }
        }
    }
}
