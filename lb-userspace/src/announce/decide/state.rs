//! What became of one VIP, and what becomes of it next.

use std::time::{Duration, Instant};

use super::{Holds, Standing, VipFacts};
use crate::{announce::Reason, fleet::Leave};

#[derive(Clone, Debug)]
pub(super) enum State {
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

impl State {
    pub(super) const ANNOUNCED: Self = Self::Announced { wrong_since: None, hard_since: None };

    pub(super) fn next(self, now: Instant, facts: &VipFacts, holds: Holds, leave: &Leave) -> Self {
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
    pub(super) fn asks(&self, now: Instant, facts: &VipFacts, holds: Holds) -> bool {
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

    pub(super) fn standing(&self, facts: &VipFacts, asks: bool, leave: &Leave) -> Standing {
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
