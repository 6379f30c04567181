//! Weighted Maglev (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4): from names and weights to a lookup table.
//!
//! Each backend walks the slots in an order of its own, and the backends take turns claiming the first free slot on
//! their walk. Two things differ from the paper:
//!
//! - Tables are powers of two. A walk's n-th slot is `start + skip * n(n+1)/2`: triangular numbers visit every residue
//!   of a power of two once, and an odd `skip` keeps that. A plain `start + skip * n` visits them all too, but small or
//!   round skips make backends collide in runs: measured, the worst removal of one in ten moved three times as much.
//! - Weights are quotas. Each backend's number of slots is fixed beforehand, and its turns are spread evenly over the
//!   whole filling, so that shares are exact and what a removal moves stays small.
//!
//! A walk depends on the backend's name alone and turns go by name, so a table is a function of the set of
//! (name, weight): the order of the input and the history of the service don't matter.

use std::{cmp::Reverse, collections::HashMap, hash::Hasher as _};

use siphasher::sip::SipHasher13;

use crate::domain::TableSize;

/// A backend that gets new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its identity: two hosts that know it by the same name send it the same clients.
    pub name: &'a str,
    /// Share relative to the others'. 0 takes part in nothing.
    pub weight: u16,
    /// What its slots hold; not 0.
    pub index: u32,
}

/// Builds a table: for each slot the index of its backend, or 0 in every slot where there is no backend.
///
/// A backend's number of slots is its exact share rounded up or down, and at least 1 unless there are more backends
/// than slots.
pub fn build(size: TableSize, candidates: &[Candidate<'_>]) -> Vec<u32> {
    let slots = size.slots();
    let mut candidates: Vec<_> = candidates.iter().filter(|candidate| candidate.weight > 0).collect();
    candidates.sort_unstable_by(|a, b| a.name.cmp(b.name));

    let weights: Vec<_> = candidates.iter().map(|candidate| candidate.weight).collect();
    let mut walks: Vec<_> = candidates.iter().map(|candidate| Walk::new(candidate.name, slots)).collect();
    let mut free = Free::new(slots);
    let mut table = vec![0; slots as usize];
    for turn in turns(&quotas(slots, &weights)) {
        let turn = turn as usize;
        let slot = loop {
            let slot = walks[turn].advance();
            if free.claim(slot) {
                break slot;
            }
        };
        table[slot as usize] = candidates[turn].index;
    }
    table
}

/// Hash of a whole table over backend names: equal on two hosts that map every client alike, whatever the indices.
pub fn fingerprint(table: &[u32], candidates: &[Candidate<'_>]) -> u64 {
    let names: HashMap<u32, u64> = candidates
        .iter()
        .map(|candidate| (candidate.index, hash(Purpose::Fingerprint, candidate.name)))
        .collect();
    let mut hasher = SipHasher13::new_with_keys(NAME_KEY, Purpose::Fingerprint as u64);
    // Neighbouring slots mostly differ, so the last answer is no help; the map is.
    for index in table {
        hasher.write_u64(names.get(index).copied().unwrap_or_default());
    }
    hasher.finish()
}

/// Slots for each weight: largest remainders first, ties in order, so that they add up to `slots`.
pub(super) fn quotas(slots: u32, weights: &[u16]) -> Vec<u32> {
    let mut quotas = vec![0; weights.len()];
    let mut slots = u64::from(slots);
    let mut total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();

    // A share below one slot still gets one. What that takes from the others may bring the next larger weight below
    // one as well, so the smallest go first.
    let mut ascending: Vec<_> = (0..weights.len()).collect();
    ascending.sort_by_key(|&i| weights[i]);
    let mut shared = ascending.as_slice();
    if weights.len() as u64 <= slots {
        while let Some((&smallest, larger)) = shared.split_first()
            && u64::from(weights[smallest]) * slots < total
        {
            quotas[smallest] = 1;
            slots -= 1;
            total -= u64::from(weights[smallest]);
            shared = larger;
        }
    }

    let mut remainders = Vec::with_capacity(shared.len());
    let mut left = slots;
    for &i in shared {
        let exact = u64::from(weights[i]) * slots;
        quotas[i] = (exact / total) as u32;
        left -= exact / total;
        remainders.push((Reverse(exact % total), i));
    }
    remainders.sort_unstable();
    for (_, i) in remainders.into_iter().take(left as usize) {
        quotas[i] += 1;
    }
    quotas
}

/// Who claims a slot when: of `n` rounds, as many as the largest quota, a backend with quota `q` takes its `k`-th turn
/// in round `ceil(k * n / q)`.
fn turns(quotas: &[u32]) -> Vec<u32> {
    let rounds = quotas.iter().copied().max().unwrap_or(0);
    // A counting sort: first how many turns each round has, then where its next one goes.
    let mut next = vec![0u32; rounds as usize + 2];
    for &quota in quotas {
        for_each_round(quota, rounds, |round| next[round as usize + 1] += 1);
    }
    for round in 1..next.len() {
        next[round] += next[round - 1];
    }
    let mut turns = vec![0; quotas.iter().sum::<u32>() as usize];
    for (backend, &quota) in (0..).zip(quotas) {
        for_each_round(quota, rounds, |round| {
            let at = &mut next[round as usize];
            turns[*at as usize] = backend;
            *at += 1;
        });
    }
    turns
}

/// Calls `f` with `ceil(k * rounds / quota)` for `k` from 1 to `quota`, dividing once.
fn for_each_round(quota: u32, rounds: u32, mut f: impl FnMut(u32)) {
    if quota == 0 {
        return;
    }
    let (whole, part) = (rounds / quota, rounds % quota);
    let (mut floor, mut carry) = (0, 0);
    for _ in 0..quota {
        floor += whole;
        carry += part;
        if carry >= quota {
            carry -= quota;
            floor += 1;
        }
        f(floor + u32::from(carry > 0));
    }
}

/// One backend's way through all slots.
struct Walk {
    slot: u32,
    step: u32,
    skip: u32,
    mask: u32,
}

impl Walk {
    fn new(name: &str, slots: u32) -> Self {
        let mask = slots - 1;
        let start = hash(Purpose::Start, name) as u32 & mask;
        let skip = hash(Purpose::Skip, name) as u32 | 1;
        Self { slot: start, step: 0, skip, mask }
    }

    fn advance(&mut self) -> u32 {
        let slot = self.slot;
        self.step = self.step.wrapping_add(self.skip);
        self.slot = slot.wrapping_add(self.step) & self.mask;
        slot
    }
}

/// Which slots are taken: a bit each, because most of the time goes into looking at taken ones.
struct Free {
    taken: Vec<u64>,
}

impl Free {
    fn new(slots: u32) -> Self {
        Self { taken: vec![0; slots.div_ceil(u64::BITS) as usize] }
    }

    /// Takes `slot`; `false` if it was taken.
    fn claim(&mut self, slot: u32) -> bool {
        let word = &mut self.taken[(slot / u64::BITS) as usize];
        let bit = 1 << (slot % u64::BITS);
        let was_free = *word & bit == 0;
        *word |= bit;
        was_free
    }
}

/// What a name is hashed for. The numbers decide every table: changing one moves clients.
#[derive(Clone, Copy)]
enum Purpose {
    Start = 1,
    Skip = 2,
    Fingerprint = 3,
}

/// Nothing secret: hosts must agree on it, and so must versions.
const NAME_KEY: u64 = u64::from_be_bytes(*b"maglev-1");

fn hash(purpose: Purpose, name: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(NAME_KEY, purpose as u64);
    hasher.write(name.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn size(log2: u8) -> TableSize {
        TableSize::new(1 << log2).expect("a size that is allowed")
    }

    /// Named backends with indices from 1 in their order.
    fn candidates(backends: &[(String, u16)]) -> Vec<Candidate<'_>> {
        (1..)
            .zip(backends)
            .map(|(index, (name, weight))| Candidate { name, weight: *weight, index })
            .collect()
    }

    fn pool(prefix: &str, count: usize) -> Vec<(String, u16)> {
        (0..count).map(|n| (format!("{prefix}-{n}"), 1)).collect()
    }

    fn by_name<'a>(table: &[u32], candidates: &[Candidate<'a>]) -> Vec<&'a str> {
        let names: BTreeMap<_, _> = candidates.iter().map(|c| (c.index, c.name)).collect();
        table.iter().map(|index| names[index]).collect()
    }

    fn shares(table: &[u32]) -> BTreeMap<u32, u32> {
        table.iter().fold(BTreeMap::new(), |mut shares, &index| {
            *shares.entry(index).or_default() += 1;
            shares
        })
    }

    fn arbitrary_pool() -> impl Strategy<Value = Vec<(String, u16)>> {
        let weight = prop_oneof![4 => 0u16..10, 2 => any::<u16>(), 1 => Just(u16::MAX), 1 => Just(1)];
        prop::collection::btree_map("[a-z0-9]{1,8}", weight, 0..60).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn every_slot_is_filled_and_every_share_is_exact(pool in arbitrary_pool(), log2 in 10u8..=14) {
            let candidates = candidates(&pool);
            let table = build(size(log2), &candidates);
            let shares = shares(&table);
            let total: u64 = pool.iter().map(|(_, weight)| u64::from(*weight)).sum();
            prop_assert_eq!(table.len(), 1 << log2);
            if total == 0 {
                prop_assert!(table.iter().all(|&index| index == 0));
                return Ok(());
            }
            prop_assert!(!shares.contains_key(&0));
            let minimums = pool.iter().filter(|(_, w)| *w > 0 && (u64::from(*w) << log2) < total).count() as f64;
            for candidate in &candidates {
                let share = f64::from(shares.get(&candidate.index).copied().unwrap_or_default());
                let exact = f64::from(candidate.weight) * f64::from(1u32 << log2) / total as f64;
                prop_assert_eq!(share > 0.0, candidate.weight > 0);
                // Backends too light for a slot get one, at the expense of the rest.
                prop_assert!(share < exact.max(1.0) + 1.0 && share > exact - 1.0 - minimums,
                    "{} has {share} slots instead of {exact}", candidate.name);
            }
        }

        #[test]
        fn order_and_indices_of_the_input_do_not_matter(
            (pool, shuffled) in arbitrary_pool().prop_flat_map(|pool| (Just(pool.clone()), Just(pool).prop_shuffle())),
        ) {
            let (one, other) = (candidates(&pool), candidates(&shuffled));
            let (a, b) = (build(size(10), &one), build(size(10), &other));
            if pool.iter().any(|(_, weight)| *weight > 0) {
                prop_assert_eq!(by_name(&a, &one), by_name(&b, &other));
            }
            prop_assert_eq!(fingerprint(&a, &one), fingerprint(&b, &other));
        }

        #[test]
        fn a_walk_visits_every_slot(name in "[a-z0-9.-]{1,63}", log2 in 10u8..=16) {
            let slots = 1u32 << log2;
            let mut walk = Walk::new(&name, slots);
            let mut free = Free::new(slots);
            prop_assert!((0..slots).all(|_| free.claim(walk.advance())));
        }
    }

    /// Pools of one test of what a removal moves.
    const POOLS: usize = 8;

    proptest! {
        // As many tables as the other tests build.
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.div_ceil(POOLS as u32)))]

        /// Of 150,000 such pools half moved less than 0.6 % of the slots, one in a thousand more than 0.93 %, and two more than
        /// 1.5 %: 2.0 and 2.2 %. Names decide, and two of ten walks may be alike; so a single pool may be far off, and not many.
        #[test]
        fn removing_one_of_ten_moves_little_else(prefix in "[a-z]{1,12}", weights: [u8; 10], gone in 0usize..10) {
            let mut sum = 0.0;
            for number in 0..POOLS {
                let mut pool = pool(&format!("{prefix}{number}"), 10);
                for (backend, weight) in pool.iter_mut().zip(weights) {
                    backend.1 = 1 + u16::from(weight % 4);
                }
                let before = candidates(&pool);
                let mut after = before.clone();
                after.remove(gone);
                let (before, after) = (build(TableSize::DEFAULT, &before), build(TableSize::DEFAULT, &after));
                let moved = moved(&before, &after, gone as u32 + 1);
                prop_assert!(moved <= MOST_MOVED, "{:.2} % moved", moved * 100.0);
                sum += moved;
            }
            let mean = sum / POOLS as f64;
            prop_assert!(mean <= MOST_MOVED_MOSTLY, "{:.2} % moved on average", mean * 100.0);
        }
    }

    /// Parts of all slots.
    const MOST_MOVED: f64 = 0.04;
    const MOST_MOVED_MOSTLY: f64 = 0.0125;

    /// Part of the slots that changed hands though they were not `gone`'s.
    fn moved(before: &[u32], after: &[u32], gone: u32) -> f64 {
        let moved = before.iter().zip(after).filter(|(was, is)| **was != gone && was != is).count();
        moved as f64 / before.len() as f64
    }

    #[test]
    fn extreme_weights_leave_everyone_a_slot() {
        let mut pool = pool("web", 1000);
        pool[17].1 = u16::MAX;
        let candidates = candidates(&pool);
        let shares = shares(&build(TableSize::DEFAULT, &candidates));
        assert_eq!(shares.len(), 1000);
        assert_eq!(shares[&18], TableSize::DEFAULT.slots() - 999);
    }

    #[test]
    fn more_backends_than_slots_fill_the_table() {
        let pool = pool("web", 1500);
        let table = build(size(10), &candidates(&pool));
        assert_eq!(shares(&table).len(), 1024);
    }

    #[test]
    fn the_table_of_a_pool_never_changes_between_versions() {
        let pool = vec![("web-1".to_owned(), 1), ("web-2".to_owned(), 2), ("web-3".to_owned(), 5)];
        let candidates = candidates(&pool);
        assert_eq!(fingerprint(&build(size(10), &candidates), &candidates), FINGERPRINT_OF_THREE);
    }

    /// Whatever changes this moves the clients of everyone who upgrades.
    const FINGERPRINT_OF_THREE: u64 = 5_465_163_737_122_722_643;
}
