//! Which VIPs are announced: facts in, wanted VIPs out. No I/O; time is an argument.
//!
//! A VIP is announced as soon as everything is right, and from then on withdrawn only for what has been wrong for
//! `down_hold` without a break; then it comes back when everything has been right for `up_hold` without a break. What is not
//! known speaks neither for withdrawing nor for announcing. The administrator waits for nothing.
//!
//! Want of backends is no fault of this host, and all members of a fleet may find it at once: it keeps a VIP off the network
//! only while the fleet gives this one [`Leave`]. Without it the VIP is announced, at once and without a hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::Reason;
use crate::fleet::{Leave, Wish};

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
    /// It would be withdrawn for want of backends, and there is no leave; with what there is to say.
    Kept(String),
    /// And why, with what there is to say.
    Not(Reason, String),
}

/// What holds from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) standings: BTreeMap<IpAddr, Standing>,
    /// What the fleet is asked for, once that is so.
    pub(super) wish: Wish,
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
        /// Of this host itself.
        hard_since: Option<Instant>,
    },
    Withdrawn {
        reason: Reason,
        detail: String,
        right_since: Option<Instant>,
    },
    Off,
}

impl VipFacts {
    /// The first that is wrong with this host, in the order in which one thing explains another.
    fn hard(&self) -> Option<(Reason, &str)> {
        let facts = [
            (&self.carrier, Reason::NoCarrier),
            (&self.attached, Reason::NotAttached),
            (&self.probe, Reason::ProbeFailed),
        ];
        facts.into_iter().find_map(|(fact, reason)| Some((reason, fact.bad()?)))
    }

    /// Likewise of everything.
    fn wrong(&self) -> Option<(Reason, &str)> {
        self.hard().or_else(|| Some((Reason::BackendsBelow, self.backends.bad()?)))
    }

    /// `backends`: whether too few of them count.
    fn is_right(&self, backends: bool) -> bool {
        let host = [&self.carrier, &self.attached, &self.probe].into_iter().all(|fact| *fact == Fact::Good);
        host && match self.backends {
            Fact::Good => true,
            Fact::Bad(_) => !backends,
            Fact::Unknown => false,
        }
    }

    /// What will be known soon is.
    fn is_settled(&self) -> bool {
        self.verdicts && self.flows
    }
}

impl Fact {
    fn bad(&self) -> Option<&str> {
        match self {
            Self::Bad(why) => Some(why),
            Self::Unknown | Self::Good => None,
        }
    }
}

impl Decider {
    /// `announced`: VIPs that an earlier daemon announced, and has left so.
    pub(super) fn new(holds: Holds, announced: impl IntoIterator<Item = IpAddr>) -> Self {
        let announced = announced.into_iter().map(|vip| (vip, State::ANNOUNCED));
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
        leave: &Leave,
    ) -> Decision {
        let mut before = std::mem::take(&mut self.vips);
        let mut decision = Decision::default();
        for (&vip, facts) in facts {
            let state = before.remove(&vip).unwrap_or(State::New { right_since: None });
            let state = state.next(now, facts, self.holds, leave);
            let asks = state.asks(now, facts, self.holds);
            let standing = state.standing(facts, asks, leave);
            let left = matches!(standing, Standing::Not(Reason::BackendsBelow, _));
            decision.wish.permit |= asks;
            decision.wish.withdrawn |= left;
            // Nobody may count on what was never announced.
            let was = left && !matches!(state, State::New { .. });
            decision.wish.announces |= was || !matches!(standing, Standing::Not(..));
            decision.standings.insert(vip, standing);
            self.vips.insert(vip, state);
        }
        decision
    }
}

impl State {
    const ANNOUNCED: Self = Self::Announced { wrong_since: None, hard_since: None };

    fn next(self, now: Instant, facts: &VipFacts, holds: Holds, leave: &Leave) -> Self {
        if facts.off {
            return Self::Off;
        }
        let lasted = |since: Instant, hold| now.saturating_duration_since(since) >= hold;
        let granted = *leave == Leave::Granted;
        // Nobody comes only to go again: who is not announced yet waits for the answer.
        let is_right = facts.is_right(!matches!(leave, Leave::Refused(_)));
        match self {
            Self::New { .. } | Self::Off if is_right && facts.is_settled() => Self::ANNOUNCED,
            Self::New { right_since: Some(since) } if is_right && lasted(since, PATIENCE) => Self::ANNOUNCED,
            Self::New { right_since } if is_right => {
                Self::New { right_since: Some(right_since.unwrap_or(now)) }
            }
            Self::Off if is_right => Self::New { right_since: Some(now) },
            Self::New { .. } | Self::Off => Self::New { right_since: None },
            Self::Announced { wrong_since, hard_since } => {
                let (wrong, hard) = (facts.wrong(), facts.hard());
                let wrong_since = wrong.map(|_| wrong_since.unwrap_or(now));
                let hard_since = hard.map(|_| hard_since.unwrap_or(now));
                // What there was no leave for may have lasted long, and says nothing of this host.
                let since = if granted { wrong_since } else { hard_since };
                match wrong.filter(|_| since.is_some_and(|since| lasted(since, holds.down))) {
                    Some((reason, detail)) => {
                        Self::Withdrawn { reason, detail: detail.to_owned(), right_since: None }
                    }
                    None => Self::Announced { wrong_since, hard_since },
                }
            }
            // Others may go now: back, whatever the holds say.
            Self::Withdrawn { reason: Reason::BackendsBelow, .. } if !granted && facts.hard().is_none() => {
                Self::Announced { wrong_since: facts.wrong().map(|_| now), hard_since: None }
            }
            Self::Withdrawn { reason, detail, right_since } => {
                let wrong = if granted { facts.wrong() } else { facts.hard() };
                match (wrong, right_since.unwrap_or(now)) {
                    (Some((reason, detail)), _) => {
                        Self::Withdrawn { reason, detail: detail.to_owned(), right_since: None }
                    }
                    (None, _) if !facts.is_right(granted) => {
                        Self::Withdrawn { reason, detail, right_since: None }
                    }
                    (None, since) if lasted(since, holds.up) => Self::ANNOUNCED,
                    (None, since) => Self::Withdrawn { reason, detail, right_since: Some(since) },
                }
            }
        }
    }

    /// Whether it is off the network for want of backends, or should be.
    fn asks(&self, now: Instant, facts: &VipFacts, holds: Holds) -> bool {
        let lacks = facts.backends.bad().is_some();
        match self {
            Self::Off => false,
            Self::New { .. } => lacks && facts.hard().is_none(),
            Self::Announced { wrong_since, .. } => {
                let since = wrong_since.filter(|since| now.saturating_duration_since(*since) >= holds.down);
                lacks && since.is_some()
            }
            Self::Withdrawn { reason: Reason::BackendsBelow, .. } => true,
            Self::Withdrawn { .. } => lacks && facts.hard().is_none(),
        }
    }

    fn standing(&self, facts: &VipFacts, asks: bool, leave: &Leave) -> Standing {
        match self {
            Self::Announced { .. } if asks => {
                let why = facts.backends.bad().unwrap_or_default();
                Standing::Kept(match leave {
                    Leave::Refused(refusal) => format!("{why}; announced all the same: {refusal}"),
                    Leave::Granted | Leave::Asked => format!("{why}; the fleet is asked for leave"),
                })
            }
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
    let announced = standings.iter().filter(|(_, standing)| !matches!(standing, Standing::Not(..)));
    announced.map(|(vip, _)| *vip).collect()
}

#[cfg(test)]
mod tests;
