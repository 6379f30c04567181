//! The upkeep of NAT flows: counting them, and taking those away that are over or whose backend is.
//!
//! User space can't change an entry's `seen` word by compare-and-swap, so it only looks for flows that may be over; the
//! program `ballast_sweep` looks again and takes them away.

mod lone;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use lb_common::{
    abi::{
        NAT_CLOSED_AGE, NAT_FIN, NAT_RST, NatFlow, NatFlowKey, NatReply, NatReplyKey, NatSeen, SweepRequest,
    },
    nat,
};

use self::lone::LoneReplies;
use super::{
    Dataplane, Error,
    scan::{GAP, Moment, PERIOD},
};

/// What the sweep has to know of backends, by index.
#[derive(Clone, Debug, Default)]
pub(super) struct NatWorld {
    pub(super) backends: Vec<NatBackend>,
}

/// What the sweep has to know of a backend. By default: that its flows are to go at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NatBackend {
    /// Number of its service.
    pub(super) service: u32,
    /// Idle timeout of its flows, in units of coarse time; 0 where they are to go at once.
    pub(super) idle: u32,
    pub(super) protocol: u8,
    pub(super) address: [u8; 16],
    /// Whether least-connections asks for its load.
    pub(super) weighed: bool,
}

/// What a whole pass counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NatCensus {
    /// When the pass began.
    pub(super) began: Moment,
    /// Flows that are there, whatever became of them.
    pub(super) entries: u64,
    /// Those that no client has begun to close, by backend index.
    pub(super) flows: HashMap<u32, u64>,
    /// Indices that any flow names.
    pub(super) named: HashSet<u32>,
}

/// Goes over the flows again and again.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    pass: Option<Pass>,
    lone: LoneReplies,
    last_began: Option<Moment>,
    last_step: Option<Duration>,
    /// Coarse time since which somebody has kept the clock.
    kept_since: u64,
}

#[derive(Debug)]
struct Pass {
    census: NatCensus,
    /// Where the next page begins.
    cursor: NatCursor,
    /// Changes of loads when the pass began, by backend index.
    changes: Vec<u64>,
}

/// A place between two pages of flows, or of the backends' sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatCursor(pub(super) Option<u32>);

/// Some flows, and where the rest are.
#[derive(Clone, Debug, Default)]
pub struct NatPage {
    pub flows: Vec<(NatFlowKey, NatFlow)>,
    /// `None`: that was all.
    pub next: Option<NatCursor>,
}

/// Some of the backends' sides, and where the rest are.
#[derive(Clone, Debug, Default)]
pub struct ReplyPage {
    pub replies: Vec<(NatReplyKey, NatReply)>,
    /// `None`: that was all.
    pub next: Option<NatCursor>,
}

impl Sweeper {
    /// Goes on with the pass under way, or begins one if it is time; a call costs about as much as looking at `budget`
    /// flows, and sometimes at as many of the backends' sides. Returns what a pass that ended here counted. After an error
    /// the next pass begins anew.
    pub(super) fn step(
        &mut self,
        dataplane: &mut dyn Dataplane,
        world: &NatWorld,
        now: Moment,
        budget: usize,
    ) -> Result<Option<NatCensus>, Error> {
        // Until somebody kept the clock again, packets may have left times that were over even then.
        if self.last_step.is_none_or(|last| now.boot.saturating_sub(last) > GAP) {
            self.kept_since = now.coarse();
        }
        self.last_step = Some(now.boot);
        let census = self.go_on(dataplane, world, now, budget)?;
        let kept_since = self.kept_since;
        self.lone.step(dataplane, world, now, budget, |seen| since(kept_since, seen, now.coarse()))?;
        Ok(census)
    }

    fn go_on(
        &mut self,
        dataplane: &mut dyn Dataplane,
        world: &NatWorld,
        now: Moment,
        budget: usize,
    ) -> Result<Option<NatCensus>, Error> {
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None if self.is_due(now) => Pass::begin(dataplane, world, now),
            None => return Ok(None),
        };
        let mut spent = 0;
        while spent < budget {
            let page = dataplane.nat_flows(pass.cursor, PAGE)?;
            for (key, flow) in &page.flows {
                spent += self.look(&mut pass.census, dataplane, world, (key, flow), now.coarse())?;
            }
            match page.next {
                Some(next) => pass.cursor = next,
                None => {
                    self.last_began = Some(pass.census.began);
                    pass.store_loads(dataplane, world);
                    return Ok(Some(pass.census));
                }
            }
        }
        self.pass = Some(pass);
        Ok(None)
    }

    fn is_due(&self, now: Moment) -> bool {
        self.last_began.is_none_or(|last| now.monotonic.saturating_sub(last.monotonic) >= PERIOD)
    }

    /// Counts a flow or takes it away; returns what it cost.
    fn look(
        &self,
        census: &mut NatCensus,
        dataplane: &mut dyn Dataplane,
        world: &NatWorld,
        (key, flow): (&NatFlowKey, &NatFlow),
        now: u64,
    ) -> Result<usize, Error> {
        let backend = world.backends.get(flow.backend as usize).copied().unwrap_or_default();
        let force = backend.idle == 0 || backend.service != key.service;
        let mut cost = 1;
        let is_over = force || {
            let client = self.since_kept(NatSeen(flow.seen), now);
            client.age(now) > NAT_CLOSED_AGE.min(backend.idle) && {
                cost += COST_OF_LOOKUP;
                let reply = dataplane.nat_reply(&reply_key(flow, &backend))?;
                // A flow without its other entry never got an answer.
                let reply = reply.map_or(NatSeen::new(client.time().into(), 0), |reply| NatSeen(reply.seen));
                let tcp = backend.protocol == lb_common::abi::PROTOCOL_TCP;
                nat::is_over(client, self.since_kept(reply, now), tcp, backend.idle, now)
            }
        };
        if is_over {
            cost += COST_OF_RUN;
            let request = SweepRequest { flow: *key, force: force.into(), ..SweepRequest::default() };
            if dataplane.sweep(&request)? {
                return Ok(cost);
            }
        }
        census.entries += 1;
        census.named.insert(flow.backend);
        if NatSeen(flow.seen).bits() & (NAT_FIN | NAT_RST) == 0 {
            *census.flows.entry(flow.backend).or_default() += 1;
        }
        Ok(cost)
    }

    fn since_kept(&self, seen: NatSeen, now: u64) -> NatSeen {
        since(self.kept_since, seen, now)
    }
}

/// What was seen, with an age that counts from when the clock was kept again.
fn since(kept_since: u64, seen: NatSeen, now: u64) -> NatSeen {
    let kept = now.saturating_sub(kept_since);
    if u64::from(seen.age(now)) > kept { NatSeen::new(kept_since, seen.bits()) } else { seen }
}

impl Pass {
    fn begin(dataplane: &dyn Dataplane, world: &NatWorld, now: Moment) -> Self {
        let census = NatCensus { began: now, ..NatCensus::default() };
        let loads = dataplane.words().loads;
        let changes = (0..world.backends.len()).map(|index| {
            loads.get(index * 2 + 1).map_or(0, |word| word.load(std::sync::atomic::Ordering::Acquire))
        });
        Self { census, cursor: NatCursor::default(), changes: changes.collect() }
    }

    fn store_loads(&self, dataplane: &dyn Dataplane, world: &NatWorld) {
        let loads = dataplane.words().loads;
        for (index, (backend, changes)) in (0u32..).zip(world.backends.iter().zip(&self.changes)) {
            if backend.weighed
                && let Some(base) = loads.get(index as usize * 2)
            {
                let flows = self.census.flows.get(&index).copied().unwrap_or_default();
                base.store(flows.wrapping_sub(*changes), std::sync::atomic::Ordering::Release);
            }
        }
    }
}

fn reply_key(flow: &NatFlow, backend: &NatBackend) -> NatReplyKey {
    let [[a, b], [c, d]] = [flow.backend_port, flow.our_port];
    NatReplyKey {
        backend: backend.address,
        our_address: flow.our_address,
        ports: [a, b, c, d],
        protocol: backend.protocol,
        ..NatReplyKey::default()
    }
}

/// Flows asked for at a time.
const PAGE: u32 = 4096;

/// System calls in terms of flows that come a page at a time.
const COST_OF_LOOKUP: usize = 8;
const COST_OF_RUN: usize = 24;

#[cfg(test)]
mod tests;
