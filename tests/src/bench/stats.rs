//! Medians and spreads over rounds.

/// Values of several rounds, as one looks at them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) median: f64,
    /// A tenth of the values is below.
    pub(super) low: f64,
    /// A tenth of the values is above.
    pub(super) high: f64,
}

impl Summary {
    /// `None` where there is no value.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Some(Self {
            median: quantile(&sorted, 0.5)?,
            low: quantile(&sorted, 0.1)?,
            high: quantile(&sorted, 0.9)?,
        })
    }

    /// Of the ratios within rounds: what disturbs a round disturbs both of its values.
    pub(super) fn of_ratios(values: &[f64], to: &[f64]) -> Option<Self> {
        let ratios: Vec<_> = values.iter().zip(to).map(|(value, to)| value / to).collect();
        Self::of(&ratios)
    }
}

/// Of sorted values, between the two nearest.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let at = part * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted.get(at.floor() as usize)?, sorted.get(at.ceil() as usize)?);
    Some(below + (above - below) * at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_values() {
        assert_eq!(
            Summary::of(&[3.0, 1.0, 2.0, 5.0, 4.0]),
            Some(Summary { median: 3.0, low: 1.4, high: 4.6 })
        );
        assert_eq!(Summary::of(&[2.0, 1.0]).map(|summary| summary.median), Some(1.5));
        assert_eq!(Summary::of(&[7.0]), Some(Summary { median: 7.0, low: 7.0, high: 7.0 }));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_disturbed_round_does_not_move_a_ratio() {
        let (value, to) = ([20.0, 200.0, 22.0], [10.0, 100.0, 11.0]);
        assert_eq!(Summary::of_ratios(&value, &to), Some(Summary { median: 2.0, low: 2.0, high: 2.0 }));
    }
}
