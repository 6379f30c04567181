//! Backends' sides of flows that lost their clients': no pass over flows meets them, and they hold a port for nobody.

use std::time::Duration;

use lb_common::abi::{NAT_CLOSED_AGE, NatReply, NatReplyKey, NatSeen, SWEEP_LONE_REPLY, SweepRequest};

use super::{COST_OF_LOOKUP, COST_OF_RUN, NatCursor, NatWorld, PAGE};
use crate::dataplane::{Dataplane, Error, scan::Moment};

/// Goes over the backends' sides now and then. There should be none that is alone, so there is no hurry.
#[derive(Debug, Default)]
pub(super) struct LoneReplies {
    /// Of the pass under way.
    cursor: Option<NatCursor>,
    last_began: Option<Moment>,
}

/// From one pass's beginning to the next one's.
const PERIOD: Duration = Duration::from_secs(60);

impl LoneReplies {
    /// Goes on with the pass under way, or begins one if it is time; a call costs about as much as looking at `budget`
    /// of them. `kept` makes of what was seen what counts for its age.
    pub(super) fn step(
        &mut self,
        dataplane: &mut dyn Dataplane,
        world: &NatWorld,
        now: Moment,
        budget: usize,
        kept: impl Fn(NatSeen) -> NatSeen,
    ) -> Result<(), Error> {
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None if self.is_due(now) => {
                self.last_began = Some(now);
                NatCursor::default()
            }
            None => return Ok(()),
        };
        let mut spent = 0;
        while spent < budget {
            let page = dataplane.nat_replies(cursor, PAGE)?;
            for (key, reply) in &page.replies {
                let age = kept(NatSeen(reply.seen)).age(now.coarse());
                spent += look(dataplane, world, (key, reply), age)?;
            }
            match page.next {
                Some(next) => cursor = next,
                None => return Ok(()),
            }
        }
        self.cursor = Some(cursor);
        Ok(())
    }

    fn is_due(&self, now: Moment) -> bool {
        self.last_began.is_none_or(|last| now.monotonic.saturating_sub(last.monotonic) >= PERIOD)
    }
}

/// Takes it away if it is alone; returns what that cost.
fn look(
    dataplane: &mut dyn Dataplane,
    world: &NatWorld,
    (key, reply): (&NatReplyKey, &NatReply),
    age: u32,
) -> Result<usize, Error> {
    let idle = world.backends.get(reply.backend as usize).map_or(0, |backend| backend.idle);
    // Of most flows the backend says something in all that time: a look-up is saved.
    if age <= idle.max(NAT_CLOSED_AGE) {
        return Ok(1);
    }
    let flow = dataplane.nat_flow(&reply.flow_key())?;
    if flow.is_some_and(|flow| flow.is_answered_by(key)) {
        return Ok(1 + COST_OF_LOOKUP);
    }
    let request = SweepRequest { what: SWEEP_LONE_REPLY, reply: *key, ..SweepRequest::default() };
    dataplane.sweep(&request)?;
    Ok(1 + COST_OF_LOOKUP + COST_OF_RUN)
}
