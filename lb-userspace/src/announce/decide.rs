//! Which VIPs are announced: facts in, wanted VIPs out. No I/O; time is an argument.
//!
//! A VIP is announced as soon as everything is right, and from then on withdrawn only for what has been wrong for
//! `down_hold` without a break; then it comes back when everything has been right for `up_hold` without a break. What is not
//! known speaks neither for withdrawing nor for announcing. The administrator waits for nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::Reason;

/// What was found out about one thing that has to be right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Fact {
    #[default]
    Unknown,
    Good,
    /// And what is wrong, in words.
    Bad(String),
}

/// All that counts for one VIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct VipFacts {
    /// The administrator has taken it off the network.
    pub(super) off: bool,
    /// The program is where its packets arrive.
    pub(super) attached: Fact,
    /// There is a link for them to arrive by.
    pub(super) carrier: Fact,
    /// The program takes them for its services'.
    pub(super) probe: Fact,
    /// As many backends are healthy as its services ask for. The one fact that is not about this host.
    pub(super) backends: Fact,
    /// Every backend has a verdict, so that the tables are what they will be. Asked for before a VIP is announced first.
    pub(super) verdicts: bool,
    /// Peers, if flows are replicated, have told which there are. Asked for like verdicts.
    pub(super) flows: bool,
}

/// How long which state of things has to last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holds {
    pub(super) down: Duration,
    pub(super) up: Duration,
}

/// What became of a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Announced,
    /// And why, with what there is to say.
    Not(Reason, String),
}

/// Remembers since when things are as they are.
#[derive(Debug)]
pub(super) struct Decider {
    holds: Holds,
    vips: BTreeMap<IpAddr, State>,
}

#[derive(Clone, Debug)]
enum State {
    /// Nobody has announced it yet, or the administrator had it off.
    New {
        /// But for what is known soon.
        right_since: Option<Instant>,
    },
    Announced {
        wrong_since: Option<Instant>,
    },
    Withdrawn {
        reason: Reason,
        detail: String,
        right_since: Option<Instant>,
    },
    Off,
}

impl VipFacts {
    /// The first that is wrong, in the order in which one thing explains another.
    fn wrong(&self) -> Option<(Reason, &str)> {
        let facts = [
            (&self.carrier, Reason::NoCarrier),
            (&self.attached, Reason::NotAttached),
            (&self.probe, Reason::ProbeFailed),
            (&self.backends, Reason::BackendsBelow),
        ];
        facts.into_iter().find_map(|(fact, reason)| match fact {
            Fact::Bad(why) => Some((reason, why.as_str())),
            Fact::Unknown | Fact::Good => None,
        })
    }

    fn is_right(&self) -> bool {
        [&self.carrier, &self.attached, &self.probe, &self.backends]
            .into_iter()
            .all(|fact| *fact == Fact::Good)
    }

    /// What will be known soon is.
    fn is_settled(&self) -> bool {
        self.verdicts && self.flows
    }
}

impl Decider {
    /// `announced`: VIPs that an earlier daemon announced, and has left so.
    pub(super) fn new(holds: Holds, announced: impl IntoIterator<Item = IpAddr>) -> Self {
        let announced = announced.into_iter().map(|vip| (vip, State::Announced { wrong_since: None }));
        Self { holds, vips: announced.collect() }
    }

    /// From now on.
    pub(super) fn hold(&mut self, holds: Holds) {
        self.holds = holds;
    }

    /// What holds from `now` on, for every VIP there is; others are forgotten.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        facts: &BTreeMap<IpAddr, VipFacts>,
    ) -> BTreeMap<IpAddr, Standing> {
        let mut before = std::mem::take(&mut self.vips);
        let mut standings = BTreeMap::new();
        for (&vip, facts) in facts {
            let state = before.remove(&vip).unwrap_or(State::New { right_since: None });
            let state = state.next(now, facts, self.holds);
            standings.insert(vip, state.standing(facts));
            self.vips.insert(vip, state);
        }
        standings
    }
}

impl State {
    fn next(self, now: Instant, facts: &VipFacts, holds: Holds) -> Self {
        if facts.off {
            return Self::Off;
        }
        let lasted = |since: Instant, hold| now.saturating_duration_since(since) >= hold;
        match (self, facts.wrong()) {
            (Self::New { .. } | Self::Off, _) if facts.is_right() && facts.is_settled() => {
                Self::Announced { wrong_since: None }
            }
            (Self::New { right_since: Some(since) }, _) if facts.is_right() && lasted(since, PATIENCE) => {
                Self::Announced { wrong_since: None }
            }
            (Self::New { right_since }, _) if facts.is_right() => {
                Self::New { right_since: Some(right_since.unwrap_or(now)) }
            }
            (Self::Off, _) if facts.is_right() => Self::New { right_since: Some(now) },
            (Self::New { .. } | Self::Off, _) => Self::New { right_since: None },
            (Self::Announced { .. }, None) => Self::Announced { wrong_since: None },
            (Self::Announced { wrong_since }, Some((reason, detail))) => {
                let since = wrong_since.unwrap_or(now);
                match lasted(since, holds.down) {
                    true => Self::Withdrawn { reason, detail: detail.to_owned(), right_since: None },
                    false => Self::Announced { wrong_since: Some(since) },
                }
            }
            (Self::Withdrawn { .. }, Some((reason, detail))) => {
                Self::Withdrawn { reason, detail: detail.to_owned(), right_since: None }
            }
            (Self::Withdrawn { reason, detail, .. }, None) if !facts.is_right() => {
                Self::Withdrawn { reason, detail, right_since: None }
            }
            (Self::Withdrawn { reason, detail, right_since }, None) => {
                let since = right_since.unwrap_or(now);
                match lasted(since, holds.up) {
                    true => Self::Announced { wrong_since: None },
                    false => Self::Withdrawn { reason, detail, right_since: Some(since) },
                }
            }
        }
    }

    fn standing(&self, facts: &VipFacts) -> Standing {
        match self {
            Self::Announced { .. } => Standing::Announced,
            Self::Withdrawn { reason, detail, right_since: None } => Standing::Not(*reason, detail.clone()),
            Self::Withdrawn { reason, detail, right_since: Some(_) } => {
                Standing::Not(*reason, format!("{detail}; that is over, and will be believed when it lasts"))
            }
            Self::Off => {
                Standing::Not(Reason::Administrator, "`ballast announce on` puts it on again".to_owned())
            }
            Self::New { right_since } => match facts.wrong() {
                Some((reason, why)) => Standing::Not(reason, why.to_owned()),
                None if right_since.is_some() && !facts.verdicts => {
                    Standing::Not(Reason::Starting, "not every backend has a verdict yet".to_owned())
                }
                None if right_since.is_some() => Standing::Not(
                    Reason::Starting,
                    "peers have not told yet which flows there are".to_owned(),
                ),
                None => Standing::Not(Reason::Starting, "not everything is known yet".to_owned()),
            },
        }
    }
}

/// So long the verdicts of backends may take: with the slowest of the usual settings a dead one has its own by then. Peers have
/// told what there is much sooner, if at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// VIPs that are to be announced.
pub(super) fn wanted(standings: &BTreeMap<IpAddr, Standing>) -> BTreeSet<IpAddr> {
    let announced = standings.iter().filter(|(_, standing)| **standing == Standing::Announced);
    announced.map(|(vip, _)| *vip).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 10));
    const HOLDS: Holds = Holds { down: Duration::from_secs(1), up: Duration::from_secs(10) };

    fn right() -> VipFacts {
        let good = || Fact::Good;
        VipFacts {
            off: false,
            attached: good(),
            carrier: good(),
            probe: good(),
            backends: good(),
            verdicts: true,
            flows: true,
        }
    }

    fn wrong() -> VipFacts {
        VipFacts { attached: Fact::Bad("it is not".into()), ..right() }
    }

    /// Decides at each of these milliseconds, and says whether the VIP was announced then.
    fn course(decider: &mut Decider, start: Instant, steps: &[(u64, VipFacts)]) -> Vec<bool> {
        let decide = |(at, facts): &(u64, VipFacts)| {
            let standings =
                decider.decide(start + Duration::from_millis(*at), &[(VIP, facts.clone())].into());
            wanted(&standings).contains(&VIP)
        };
        steps.iter().map(decide).collect()
    }

    #[test]
    fn what_is_wrong_for_a_moment_withdraws_nothing_and_what_lasts_does() {
        let (start, mut decider) = (Instant::now(), Decider::new(HOLDS, []));
        let steps = [
            (0, right()),
            (100, wrong()),
            (900, wrong()),
            (950, right()),
            (1000, wrong()),
            (1999, wrong()),
            (2000, wrong()),
            (3000, right()),
            (12_000, right()),
            (12_500, wrong()),
            (13_000, right()),
            (22_999, right()),
            (23_000, right()),
        ];
        let expected = [true, true, true, true, true, true, false, false, false, false, false, false, true];
        assert_eq!(course(&mut decider, start, &steps), expected);
    }

    #[test]
    fn what_is_not_known_withdraws_nothing_and_announces_nothing() {
        let unknown = VipFacts { probe: Fact::Unknown, ..right() };
        let start = Instant::now();
        let steps = [
            (0, unknown.clone()),
            (60_000, unknown.clone()),
            (61_000, right()),
            (62_000, unknown.clone()),
            (99_000, unknown.clone()),
        ];
        assert_eq!(course(&mut Decider::new(HOLDS, []), start, &steps), [false, false, true, true, true]);
        // A daemon that starts takes over what there is.
        assert_eq!(course(&mut Decider::new(HOLDS, [VIP]), start, &[(0, unknown)]), [true]);
    }

    #[test]
    fn a_vip_is_announced_first_when_all_backends_have_a_verdict_or_have_had_time_for_it() {
        let waiting = VipFacts { verdicts: false, ..right() };
        let steps =
            [(0, waiting.clone()), (29_000, waiting.clone()), (29_500, right()), (40_000, waiting.clone())];
        let start = Instant::now();
        assert_eq!(course(&mut Decider::new(HOLDS, []), start, &steps), [false, false, true, true]);
        let steps = [(0, waiting.clone()), (29_999, waiting.clone()), (30_000, waiting.clone())];
        assert_eq!(course(&mut Decider::new(HOLDS, []), start, &steps), [false, false, true]);
        // What an earlier daemon announced waits for nobody.
        assert_eq!(course(&mut Decider::new(HOLDS, [VIP]), start, &[(0, waiting)]), [true]);
    }

    #[test]
    fn a_vip_is_announced_first_when_peers_have_told_their_flows_or_have_had_time_for_it() {
        let joining = VipFacts { flows: false, ..right() };
        let start = Instant::now();
        let mut decider = Decider::new(HOLDS, []);
        let standing = decider.decide(start, &[(VIP, joining.clone())].into()).remove(&VIP);
        let told = "peers have not told yet which flows there are".to_owned();
        assert_eq!(standing, Some(Standing::Not(Reason::Starting, told)));
        // Nor is it withdrawn when it is so again.
        let steps =
            [(2000, joining.clone()), (2100, right()), (2200, joining.clone()), (9000, joining.clone())];
        assert_eq!(course(&mut decider, start, &steps), [false, true, true, true]);
        let steps = [(0, joining.clone()), (29_999, joining.clone()), (30_000, joining.clone())];
        assert_eq!(course(&mut Decider::new(HOLDS, []), start, &steps), [false, false, true]);
        // A daemon that goes on with its maps has announced it before.
        assert_eq!(course(&mut Decider::new(HOLDS, [VIP]), start, &[(0, joining)]), [true]);
    }

    #[test]
    fn the_administrator_waits_for_nothing() {
        let off = VipFacts { off: true, ..right() };
        let steps = [(0, right()), (1, off.clone()), (2, right()), (3, off), (4, wrong()), (20_000, right())];
        let announced = course(&mut Decider::new(HOLDS, []), Instant::now(), &steps);
        assert_eq!(announced, [true, false, true, false, false, true]);
    }

    #[test]
    fn a_vip_that_is_gone_is_new_when_it_comes_back() {
        let (start, mut decider) = (Instant::now(), Decider::new(HOLDS, []));
        course(&mut decider, start, &[(0, right()), (1, wrong()), (2_000, wrong())]);
        assert!(decider.decide(start, &BTreeMap::new()).is_empty());
        assert_eq!(course(&mut decider, start, &[(2_001, right())]), [true]);
    }

    #[test]
    fn the_reason_is_the_thing_that_explains_the_others() {
        let facts = VipFacts { carrier: Fact::Bad("eth0 has no link".into()), ..wrong() };
        let standings = Decider::new(HOLDS, []).decide(Instant::now(), &[(VIP, facts)].into());
        assert_eq!(standings[&VIP], Standing::Not(Reason::NoCarrier, "eth0 has no link".into()));
    }

    fn fact() -> impl Strategy<Value = Fact> {
        prop_oneof![6 => Just(Fact::Good), 2 => Just(Fact::Bad("wrong".into())), 1 => Just(Fact::Unknown)]
    }

    fn facts() -> impl Strategy<Value = VipFacts> {
        (prop::bool::weighted(0.1), fact(), fact(), fact(), fact()).prop_map(
            |(off, attached, carrier, probe, backends)| VipFacts {
                off,
                attached,
                carrier,
                probe,
                backends,
                verdicts: true,
                flows: true,
            },
        )
    }

    proptest! {
        /// Held against what was seen, and not against how it is remembered.
        #[test]
        fn holds_are_kept_and_nothing_else_delays(
            steps in prop::collection::vec((0_u64..4000, facts()), 1..120),
            taken_over in any::<bool>(),
        ) {
            let start = Instant::now();
            let mut decider = Decider::new(HOLDS, taken_over.then_some(VIP));
            let (mut at, mut before, mut seen) = (0, taken_over, Vec::new());
            // Whether it was withdrawn for a fact, and not by the administrator, since it was announced last.
            let mut withdrawn = false;
            for (pause, facts) in steps {
                at += pause;
                seen.push((at, facts.clone()));
                let announced = course(&mut decider, start, &[(at, facts.clone())])[0];
                // The moments up to now at which this held without a break.
                let since = |holds: fn(&VipFacts) -> bool| {
                    let run = seen.iter().rev().take_while(|(_, facts)| !facts.off && holds(facts));
                    run.last().map(|(first, _)| at - first)
                };
                let (wrong_for, right_for) = (since(|facts| facts.wrong().is_some()), since(VipFacts::is_right));
                let lasted = |run: Option<u64>, hold: Duration| {
                    run.is_some_and(|run| run >= u64::try_from(hold.as_millis()).expect("it fits"))
                };
                if facts.off {
                    prop_assert!(!announced);
                    withdrawn = false;
                } else if before {
                    prop_assert_eq!(!announced, lasted(wrong_for, HOLDS.down), "at {}", at);
                    withdrawn = !announced;
                } else if withdrawn {
                    prop_assert_eq!(announced, lasted(right_for, HOLDS.up), "at {}", at);
                    withdrawn = !announced;
                } else {
                    prop_assert_eq!(announced, right_for.is_some(), "at {}", at);
                }
                before = announced;
            }
        }
    }
}
