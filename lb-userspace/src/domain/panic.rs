use std::fmt;

/// What becomes of a service whose healthy backends are too few to carry its traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Panic {
    /// Smallest healthy part of its backends that will do; 0: one healthy backend is enough.
    pub threshold: Fraction,
    pub action: OnPanic,
}

/// Who gets traffic while healthy backends are too few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnPanic {
    /// All active backends with a verdict, as if they were healthy.
    #[default]
    FailOpen,
    /// The healthy ones, whatever that does to them.
    HealthyOnly,
}

/// A part of a whole, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fraction {
    thousandths: u16,
}

impl Panic {
    /// Whether `healthy` are too few beside `judged`. Once they were too few it takes a tenth more than the threshold, at
    /// most all, to end that, so that one backend at the threshold does not move everybody's clients to and fro.
    pub fn begins_or_goes_on(self, healthy: usize, judged: usize, panicked: bool) -> bool {
        let needed = match panicked {
            true => self.threshold.thousandths.saturating_add(HYSTERESIS).min(Fraction::WHOLE),
            false => self.threshold.thousandths,
        };
        self.threshold != Fraction::default() && !Self::suffice(healthy, judged, needed)
    }

    /// Whether `healthy` beside `judged` reach the threshold.
    pub fn is_reached(self, healthy: usize, judged: usize) -> bool {
        Self::suffice(healthy, judged, self.threshold.thousandths)
    }

    /// Exact, and true where nobody is judged.
    fn suffice(healthy: usize, judged: usize, thousandths: u16) -> bool {
        healthy as u64 * u64::from(Fraction::WHOLE) >= judged as u64 * u64::from(thousandths)
    }
}

impl OnPanic {
    pub const ALL: [Self; 2] = [Self::FailOpen, Self::HealthyOnly];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailOpen => "fail-open",
            Self::HealthyOnly => "healthy-only",
        }
    }
}

impl Fraction {
    const WHOLE: u16 = 1000;

    /// `None` unless `number` is from 0 to 1 and has at most three digits behind the point.
    pub fn new(number: f64) -> Option<Self> {
        let thousandths = number * f64::from(Self::WHOLE);
        let whole = (0.0..=f64::from(Self::WHOLE)).contains(&thousandths)
            && (thousandths - thousandths.round()).abs() < 1e-6;
        // In range, so nothing is cut off.
        whole.then_some(Self { thousandths: thousandths.round() as u16 })
    }

    /// 0 to 1.
    pub fn number(self) -> f64 {
        f64::from(self.thousandths) / f64::from(Self::WHOLE)
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.number(), f)
    }
}

/// In thousandths.
const HYSTERESIS: u16 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn panic(threshold: f64) -> Panic {
        Panic { threshold: Fraction::new(threshold).expect("a fraction"), action: OnPanic::FailOpen }
    }

    #[test]
    fn a_fraction_is_from_0_to_1_and_no_finer_than_a_thousandth() {
        for (number, text) in [(0.0, "0"), (0.5, "0.5"), (0.333, "0.333"), (1.0, "1"), (0.07, "0.07")] {
            let fraction = Fraction::new(number).expect("a fraction");
            assert_eq!((fraction.number(), fraction.to_string().as_str()), (number, text));
        }
        for number in [-0.001, 1.001, 0.0005, 0.3333, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Fraction::new(number), None, "{number}");
        }
    }

    #[test]
    fn panic_ends_a_tenth_above_where_it_begins_and_when_all_are_healthy() {
        let half = panic(0.5);
        assert!(!half.begins_or_goes_on(5, 10, false) && half.begins_or_goes_on(4, 10, false));
        assert!(half.begins_or_goes_on(5, 10, true) && !half.begins_or_goes_on(6, 10, true));
        let nearly_all = panic(0.95);
        assert!(nearly_all.begins_or_goes_on(9, 10, true) && !nearly_all.begins_or_goes_on(10, 10, true));
    }

    #[test]
    fn without_a_threshold_or_a_verdict_nobody_panics() {
        for panicked in [false, true] {
            assert!(!panic(0.0).begins_or_goes_on(0, 10, panicked));
            assert!(!panic(0.5).begins_or_goes_on(0, 0, panicked));
        }
    }
}
