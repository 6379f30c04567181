//! What is asked of the data plane, as ratios within one run: machines drift, ratios hold.

use super::changes;
use super::packets::Measured;
use super::scenario::{
    AGED, DATAGRAM, DNAT_ESTABLISHED, DNAT_REPLIES, ENCAP, ESTABLISHED, ESTABLISHED_PEERS, GUE_ESTABLISHED,
    L2_DATAGRAM, L2_ESTABLISHED, L2_NEW, L2_TRACKED_ESTABLISHED, LRU, NAT_ESTABLISHED, NAT_REPLIES, NEW,
    NON_VIP, TRACKED, TX, TX_REPLIES,
};
use super::stats::Summary;

/// One ratio and its bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    value: &'static str,
    to: &'static str,
    /// Numbers of flows at which it has to hold.
    flows: &'static [u64],
    bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    AtMost(f64),
    /// This far from 1.
    Within(f64),
}

impl Bound {
    pub(super) fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(limit) => ratio <= limit,
            Self::Within(distance) => (ratio - 1.0).abs() <= distance,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {limit}"),
            Self::Within(distance) => write!(f, "1 ± {distance}"),
        }
    }
}

/// A target and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) group: String,
    /// A ratio of two scenarios, or a change.
    pub(super) what: String,
    pub(super) bound: String,
    pub(super) measured: Summary,
    pub(super) met: bool,
}

const MANY: u64 = 1 << 20;
const ALL: &[u64] = &super::packets::FLOWS;

const TARGETS: [Target; 17] = [
    Target { value: ESTABLISHED, to: ENCAP, flows: &[1], bound: Bound::AtMost(1.4) },
    Target { value: ESTABLISHED, to: ENCAP, flows: &[MANY], bound: Bound::AtMost(1.8) },
    Target { value: NEW, to: ESTABLISHED, flows: ALL, bound: Bound::Within(0.1) },
    Target { value: AGED, to: ESTABLISHED, flows: ALL, bound: Bound::Within(0.1) },
    Target { value: ESTABLISHED_PEERS, to: ESTABLISHED, flows: ALL, bound: Bound::Within(0.1) },
    Target { value: L2_NEW, to: L2_ESTABLISHED, flows: ALL, bound: Bound::Within(0.1) },
    Target { value: TRACKED, to: LRU, flows: &[1 << 16, MANY], bound: Bound::AtMost(0.5) },
    Target { value: DATAGRAM, to: TRACKED, flows: ALL, bound: Bound::AtMost(1.3) },
    Target { value: L2_DATAGRAM, to: L2_TRACKED_ESTABLISHED, flows: ALL, bound: Bound::AtMost(1.3) },
    Target { value: L2_ESTABLISHED, to: TX, flows: &[1], bound: Bound::AtMost(1.7) },
    Target { value: GUE_ESTABLISHED, to: ESTABLISHED, flows: ALL, bound: Bound::AtMost(1.3) },
    Target { value: DNAT_ESTABLISHED, to: TX, flows: &[1], bound: Bound::AtMost(2.5) },
    Target { value: DNAT_REPLIES, to: TX_REPLIES, flows: &[1], bound: Bound::AtMost(2.5) },
    Target { value: NAT_ESTABLISHED, to: TX, flows: &[1], bound: Bound::AtMost(3.0) },
    Target { value: NAT_REPLIES, to: TX_REPLIES, flows: &[1], bound: Bound::AtMost(3.0) },
    Target { value: NON_VIP, to: TX, flows: &[1], bound: Bound::AtMost(1.4) },
    Target { value: NON_VIP, to: TX, flows: &[MANY], bound: Bound::AtMost(1.4) },
];

/// The targets that a group can answer.
pub(super) fn judge(measured: &Measured) -> Vec<Judged> {
    let of_group = TARGETS.iter().filter(|target| target.flows.contains(&measured.group.flows));
    of_group.filter_map(|target| judge_one(measured, target)).collect()
}

/// What is asked of a change, if anything is.
pub(super) fn judge_change(line: &changes::Line) -> Option<Judged> {
    let bound = Bound::AtMost(line.at_most?);
    Some(Judged {
        group: line.group.into(),
        what: line.what.clone(),
        bound: bound.to_string(),
        measured: line.value,
        met: bound.is_met(line.value.median),
    })
}

fn judge_one(measured: &Measured, target: &Target) -> Option<Judged> {
    let (value, to) = (measured.line(target.value)?, measured.line(target.to)?);
    let summary = Summary::of_ratios(&value.nanoseconds, &to.nanoseconds)?;
    Some(Judged {
        group: measured.group.name(),
        what: format!("{} / {}", target.value, target.to),
        bound: target.bound.to_string(),
        measured: summary,
        met: target.bound.is_met(summary.median),
    })
}

#[cfg(test)]
mod tests {
    use super::super::scenario::SCENARIOS;
    use super::*;

    #[test]
    fn every_target_is_of_what_is_measured() {
        for Target { value, to, flows, .. } in TARGETS {
            for name in [value, to] {
                let named: Vec<_> = SCENARIOS.iter().filter(|scenario| scenario.name == name).collect();
                assert_eq!(named.len(), 1, "{name}");
                assert!(flows.iter().all(|flows| named[0].takes(*flows) || named[0].with_nat), "{name}");
            }
        }
    }

    #[test]
    fn bounds_are_met_up_to_the_limit() {
        assert!(Bound::AtMost(1.4).is_met(1.4));
        assert!(!Bound::AtMost(1.4).is_met(1.41));
        assert!(Bound::Within(0.1).is_met(0.95));
        assert!(!Bound::Within(0.1).is_met(1.2));
        assert!(!Bound::Within(0.1).is_met(0.85));
    }
}
