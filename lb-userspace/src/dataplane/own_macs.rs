//! Laying out the table of this host's MAC addresses: pure.

use std::iter;

use lb_common::abi::{MAX_OWN_MACS, NO_MAC, OWN_MAC_PLACES, OwnMacs};

/// The table, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) seed: OwnMacs,
    pub(super) places: [u64; OWN_MAC_PLACES as usize],
}

/// Gives each of these addresses, as `lb_common::abi::mac_word` makes them, a place of its own. `None` where frames for any
/// address are to be taken: there are none, more than [`MAX_OWN_MACS`], or no seed is found.
pub(super) fn lay_out(macs: &[u64]) -> Option<Layout> {
    if macs.is_empty() || macs.len() > MAX_OWN_MACS {
        return None;
    }
    seeds().take(SEEDS).find_map(|seed| {
        let mut places = [NO_MAC; OWN_MAC_PLACES as usize];
        for &mac in macs {
            let place = &mut places[seed.place(mac) as usize];
            if *place != NO_MAC && *place != mac {
                return None;
            }
            *place = mac;
        }
        Some(Layout { seed, places })
    })
}

/// The same ones each time, odd, and none like the one before (SplitMix64).
fn seeds() -> impl Iterator<Item = OwnMacs> {
    iter::successors(Some(0_u64), |state| Some(state.wrapping_add(0x9e37_79b9_7f4a_7c15))).map(|state| {
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        OwnMacs((mixed ^ (mixed >> 31)) | 1)
    })
}

/// For as many addresses as may be, one in some 2,600 will do; for a few, nearly any.
const SEEDS: usize = 1 << 17;

#[cfg(test)]
mod tests {
    use lb_common::abi::mac_word;
    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn every_address_is_found_and_no_other(
            ours in btree_set(any::<[u8; 6]>(), 1..=MAX_OWN_MACS),
            others in btree_set(any::<[u8; 6]>(), 1..32),
        ) {
            let words: Vec<_> = ours.iter().map(|&mac| mac_word(mac)).collect();
            let Layout { seed, places } = lay_out(&words).expect("a seed");
            let found = |mac: u64| places[seed.place(mac) as usize] == mac;
            prop_assert!(!seed.is_any());
            for &mac in &words {
                prop_assert!(found(mac));
            }
            for mac in others.difference(&ours) {
                prop_assert!(!found(mac_word(*mac)));
            }
            // An address of zeros is nobody's, and no free place may say otherwise.
            prop_assert!(ours.contains(&[0; 6]) || !found(0));
        }
    }

    #[test]
    fn addresses_that_differ_in_one_byte_alone_have_places_too() {
        // As a switch's ports and a vendor's cards number theirs.
        for byte in 0..6 {
            let macs: Vec<_> = (0..MAX_OWN_MACS as u8)
                .map(|last| {
                    let mut mac = [0x02, 0x42, 0xac, 0x11, 0, 0];
                    mac[byte] = last;
                    mac_word(mac)
                })
                .collect();
            assert!(lay_out(&macs).is_some(), "byte {byte}");
        }
    }

    #[test]
    fn none_and_too_many_mean_any() {
        assert_eq!(lay_out(&[]), None);
        let many: Vec<_> = (1..=MAX_OWN_MACS as u64 + 1).collect();
        assert_eq!(lay_out(&many), None);
    }
}
