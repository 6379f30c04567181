//! Which VIPs are announced: facts in, wanted VIPs out. No I/O; time is an argument.
//!
//! A VIP is announced as soon as everything is right, and from then on withdrawn only for what has been wrong for
//! `down_hold` without a break; then it comes back when everything has been right for `up_hold` without a break. What is not
//! known speaks neither for withdrawing nor for announcing. The administrator waits for nothing.
//!
//! Want of backends is no fault of this host, and all members of a fleet may find it at once: it keeps a VIP off the network
//! only while the fleet gives this one [`Leave`]. Without it the VIP is announced, at once and without a hold.

mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::Reason;
use crate::fleet::{LAST, Leave, Wish};
use state::State;

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
    /// There are other members of the fleet, and none of them announces it.
    pub(super) lone: bool,
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

impl Decision {
    /// What the fleet is to know, where these VIPs are announced.
    pub(super) fn wish_with(&self, is_announced: impl Fn(&IpAddr) -> bool) -> Wish {
        let is_left =
            |vip: &IpAddr| matches!(self.standings.get(vip), Some(Standing::Not(Reason::BackendsBelow, _)));
        let mut wish = self.wish.clone();
        wish.announces.retain(|vip| is_left(vip) || is_announced(vip));
        wish
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

    /// Like [`Self::decide`], by a leave that nobody gives back meanwhile: the fleet is told of what will be withdrawn by
    /// it, and asked again.
    pub(super) fn decide_by(
        &mut self,
        now: Instant,
        facts: &BTreeMap<IpAddr, VipFacts>,
        leave: impl Fn() -> Leave,
        tell: impl FnOnce(&Decision),
    ) -> Decision {
        let given = leave();
        let decision = self.decide(now, facts, &given);
        if !decision.wish.withdrawn {
            return decision;
        }
        tell(&decision);
        match leave() {
            still if still == given => decision,
            other => self.decide(now, facts, &other),
        }
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
            let leave = match leave {
                Leave::Granted | Leave::Asked if facts.lone => &Leave::Refused(LAST.to_owned()),
                leave => leave,
            };
            let state = state.next(now, facts, self.holds, leave);
            let asks = state.asks(now, facts, self.holds);
            let standing = state.standing(facts, asks, leave);
            let left = matches!(standing, Standing::Not(Reason::BackendsBelow, _));
            decision.wish.permit |= asks && !facts.lone;
            decision.wish.withdrawn |= left;
            // Nobody may count on what was never announced.
            let was = left && !matches!(state, State::New { .. });
            if was || !matches!(standing, Standing::Not(..)) {
                decision.wish.announces.insert(vip);
            }
            decision.standings.insert(vip, standing);
            self.vips.insert(vip, state);
        }
        decision
    }
}

/// VIPs that are to be announced.
pub(super) fn wanted(standings: &BTreeMap<IpAddr, Standing>) -> BTreeSet<IpAddr> {
    let announced = standings.iter().filter(|(_, standing)| !matches!(standing, Standing::Not(..)));
    announced.map(|(vip, _)| *vip).collect()
}

#[cfg(test)]
mod tests;
