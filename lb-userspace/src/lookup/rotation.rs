//! Smooth weighted round-robin: a sequence in which backends take turns in proportion to their weights, each one's turns
//! spread evenly.

use super::maglev::Candidate;

/// A region's slots: as many as the table has, and how many of them, from the first, make whole rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Backend indices; 0 in every slot where there is no backend.
    pub slots: Vec<u32>,
    /// Going through this many slots over and over gives every backend exactly its share, unless the weights need more
    /// slots than there are: then it is all of them.
    pub length: u32,
}

/// Builds the rotation of `slots` slots. Depends on names and weights alone, not on the order of the input.
pub fn build(slots: u32, candidates: &[Candidate<'_>]) -> Rotation {
    let mut candidates: Vec<_> = candidates.iter().filter(|candidate| candidate.weight > 0).collect();
    candidates.sort_unstable_by(|a, b| a.name.cmp(b.name));
    let divisor = candidates.iter().fold(0, |divisor, candidate| gcd(divisor, u32::from(candidate.weight)));
    if divisor == 0 {
        return Rotation { slots: vec![0; slots as usize], length: slots };
    }
    let weights: Vec<_> = candidates.iter().map(|candidate| u32::from(candidate.weight) / divisor).collect();
    let period: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let (turns, length) = match u32::try_from(period) {
        Ok(period) if period <= slots => (turns(&weights), slots - slots % period),
        // More than fits: as near as the slots allow.
        _ => {
            let quotas =
                super::maglev::quotas(slots, &candidates.iter().map(|c| c.weight).collect::<Vec<_>>());
            (turns(&quotas), slots)
        }
    };
    let indices: Vec<_> = turns.into_iter().filter_map(|turn| Some(candidates.get(turn)?.index)).collect();
    Rotation { slots: indices.iter().copied().cycle().take(slots as usize).collect(), length }
}

/// Backends by their turn. A backend with `n` turns has them at `(k + phase) / n` of the round, its phase being its own, so
/// that backends of one weight don't crowd together.
fn turns(quotas: &[u32]) -> Vec<usize> {
    let mut turns = Vec::new();
    for (backend, &quota) in quotas.iter().enumerate() {
        let phase = (backend as f64 * GOLDEN_RATIO).fract();
        turns.extend((0..quota).map(|k| ((f64::from(k) + phase) / f64::from(quota), backend)));
    }
    turns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    turns.into_iter().map(|(_, backend)| backend).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

const GOLDEN_RATIO: f64 = 0.618_033_988_749_895;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rotation(slots: u32, weights: &[u16]) -> Rotation {
        let names: Vec<_> = (0..weights.len()).map(|n| format!("b{n:03}")).collect();
        let candidates: Vec<_> = (1..)
            .zip(&names)
            .zip(weights)
            .map(|((index, name), weight)| Candidate { name, weight: *weight, index })
            .collect();
        build(slots, &candidates)
    }

    #[test]
    fn equal_backends_alternate() {
        let rotation = rotation(1024, &[7, 7, 7]);
        assert_eq!(rotation.length, 1023);
        let first: std::collections::BTreeSet<_> = rotation.slots[..3].iter().collect();
        assert_eq!(first.len(), 3);
        assert!(rotation.slots.chunks(3).take(341).all(|round| round == &rotation.slots[..3]));
    }

    #[test]
    fn a_heavy_backend_is_interrupted() {
        let rotation = rotation(1024, &[5, 1, 1]);
        let longest = rotation.slots.chunk_by(|a, b| a == b).map(<[u32]>::len).max();
        assert!(longest <= Some(4), "{longest:?}");
    }

    #[test]
    fn nobody_means_nobody() {
        assert_eq!(rotation(1024, &[]), Rotation { slots: vec![0; 1024], length: 1024 });
        assert_eq!(rotation(1024, &[0, 0]).slots, vec![0; 1024]);
    }

    proptest! {
        #[test]
        fn shares_are_exact(weights in prop::collection::vec(0u16..20, 1..20)) {
            let rotation = rotation(1024, &weights);
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            prop_assert_eq!(rotation.slots.len(), 1024);
            let whole = &rotation.slots[..rotation.length as usize];
            for (index, weight) in (1..).zip(&weights) {
                let share = whole.iter().filter(|slot| **slot == index).count() as u64;
                prop_assert_eq!(share * total, u64::from(*weight) * u64::from(rotation.length) * u64::from(total > 0));
            }
        }

        #[test]
        fn weights_that_need_more_slots_come_near(weights in prop::collection::vec(1u16.., 2..20)) {
            let rotation = rotation(1024, &weights);
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (index, weight) in (1..).zip(&weights) {
                let share = rotation.slots.iter().filter(|slot| **slot == index).count() as f64;
                let exact = f64::from(*weight) / total * 1024.0;
                prop_assert!((share - exact).abs() <= 20.0, "{share} instead of {exact}");
            }
        }
    }
}
