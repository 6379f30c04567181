//! The upkeep of NAT flows: counting them, and taking those away that are over or whose backend is.
//!
//! User space can't change an entry's `seen` word by compare-and-swap, so it only looks for flows that may be over; the
//! program `ballast_sweep` looks again and takes them away.
//!
//! A pass reads both tables a page at a time, because a page costs a hundredth of as many lookups. First what the backends
//! left: who reset a flow, or never answered, and what is left of one alone. Then what the clients left. Only where that does not decide by itself is the
//! other entry of a flow looked up: its client is silent for longer than a flow may be, or has begun to close it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use lb_common::{
    abi::{
        NAT_CLOSED_AGE, NAT_CONFIRMED, NAT_FIN, NAT_RST, NatFlow, NatFlowKey, NatReply, NatReplyKey, NatSeen,
        PROTOCOL_TCP, SWEEP_LONE_REPLY, SweepRequest,
    },
    nat,
};

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
    /// When counting began.
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
    last_began: Option<Moment>,
    last_step: Option<Duration>,
    /// Coarse time since which somebody has kept the clock.
    kept_since: u64,
}

#[derive(Debug)]
struct Pass {
    began: Moment,
    /// Where the next page begins.
    cursor: NatCursor,
    /// `None` while the backends' entries are read.
    counting: Option<Counting>,
}

/// The second half of a pass.
#[derive(Debug)]
struct Counting {
    census: NatCensus,
    /// Changes of loads when it began, by backend index.
    changes: Vec<u64>,
}

/// A place between two pages of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatCursor(pub(super) Option<u32>);

/// Some entries, and where the rest are.
#[derive(Clone, Debug)]
pub struct NatPage<K, V> {
    pub entries: Vec<(K, V)>,
    /// `None`: that was all.
    pub next: Option<NatCursor>,
}

/// What looks at entries has at hand.
struct Look<'a> {
    dataplane: &'a mut dyn Dataplane,
    world: &'a NatWorld,
    now: u64,
    kept_since: u64,
    /// What was done so far, in entries that come a page at a time.
    spent: usize,
}

impl Sweeper {
    /// Goes on with the pass under way, or begins one if it is time; a call costs about as much as reading `budget`
    /// entries. Returns what a pass that ended here counted. After an error the next pass begins anew.
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
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None if self.is_due(now) => Pass { began: now, cursor: NatCursor::default(), counting: None },
            None => return Ok(None),
        };
        let mut look = Look { dataplane, world, now: now.coarse(), kept_since: self.kept_since, spent: 0 };
        while look.spent < budget {
            let next = match &mut pass.counting {
                None => look.at_replies(pass.cursor)?,
                Some(counting) => look.at_flows(pass.cursor, &mut counting.census)?,
            };
            pass.cursor = next.unwrap_or_default();
            if next.is_some() {
                continue;
            }
            match pass.counting.take() {
                None => pass.counting = Some(Counting::begin(look.dataplane, world, now)),
                Some(counting) => {
                    self.last_began = Some(pass.began);
                    counting.store_loads(look.dataplane, world);
                    return Ok(Some(counting.census));
                }
            }
        }
        self.pass = Some(pass);
        Ok(None)
    }

    fn is_due(&self, now: Moment) -> bool {
        self.last_began.is_none_or(|last| now.monotonic.saturating_sub(last.monotonic) >= PERIOD)
    }
}

impl Look<'_> {
    /// Reads a page of what the backends left, and takes the flows away that are over by that. Returns where the next one
    /// begins.
    fn at_replies(&mut self, cursor: NatCursor) -> Result<Option<NatCursor>, Error> {
        let page = self.dataplane.nat_replies(cursor, PAGE)?;
        self.spent += page.entries.len().max(1);
        for (key, reply) in &page.entries {
            let backend = self.backend(reply.backend);
            let seen = self.since_kept(NatSeen(reply.seen));
            // Of most flows the backend says something in all that time: a lookup is saved.
            if seen.age(self.now) > backend.idle.max(NAT_CLOSED_AGE) && self.sweep_if_alone(key, reply)? {
                continue;
            }
            let ended = seen.has(NAT_RST) || (backend.protocol == PROTOCOL_TCP && !seen.has(NAT_CONFIRMED));
            // Those of backends that are gone are found, and counted, by what their clients left.
            let known = backend.idle != 0 && backend.service == reply.service;
            if known && ended && seen.age(self.now) > NAT_CLOSED_AGE.min(backend.idle) {
                self.sweep(reply.flow_key(), false)?;
            }
        }
        Ok(page.next)
    }

    /// Reads a page of what the clients left, takes the flows away that are over, and counts the others.
    fn at_flows(&mut self, cursor: NatCursor, census: &mut NatCensus) -> Result<Option<NatCursor>, Error> {
        let page = self.dataplane.nat_flows(cursor, PAGE)?;
        self.spent += page.entries.len().max(1);
        for (key, flow) in &page.entries {
            let backend = self.backend(flow.backend);
            let force = backend.idle == 0 || backend.service != key.service;
            if (force || self.is_over(flow, &backend)?) && self.sweep(*key, force)? {
                continue;
            }
            census.entries += 1;
            census.named.insert(flow.backend);
            if NatSeen(flow.seen).bits() & (NAT_FIN | NAT_RST) == 0 {
                *census.flows.entry(flow.backend).or_default() += 1;
            }
        }
        Ok(page.next)
    }

    fn is_over(&mut self, flow: &NatFlow, backend: &NatBackend) -> Result<bool, Error> {
        let client = self.since_kept(NatSeen(flow.seen));
        let goes_on = client.has(NAT_CONFIRMED) && !client.has(NAT_FIN) && !client.has(NAT_RST);
        let allowed = if goes_on { backend.idle } else { NAT_CLOSED_AGE.min(backend.idle) };
        if client.age(self.now) <= allowed {
            return Ok(false);
        }
        self.spent += COST_OF_LOOKUP;
        let reply = self.dataplane.nat_reply(&reply_key(flow, backend))?;
        // A flow without its other entry never got an answer.
        let reply = reply.map_or(NatSeen::new(client.time().into(), 0), |reply| NatSeen(reply.seen));
        let tcp = backend.protocol == PROTOCOL_TCP;
        Ok(nat::is_over(client, self.since_kept(reply), tcp, backend.idle, self.now))
    }

    /// Of a flow that lost its client's side: no pass over those meets it, and it holds a port for nobody.
    fn sweep_if_alone(&mut self, key: &NatReplyKey, reply: &NatReply) -> Result<bool, Error> {
        self.spent += COST_OF_LOOKUP;
        let flow = self.dataplane.nat_flow(&reply.flow_key())?;
        if flow.is_some_and(|flow| flow.is_answered_by(key)) {
            return Ok(false);
        }
        self.spent += COST_OF_RUN;
        let request = SweepRequest { what: SWEEP_LONE_REPLY, reply: *key, ..SweepRequest::default() };
        self.dataplane.sweep(&request)?;
        Ok(true)
    }

    fn sweep(&mut self, flow: NatFlowKey, force: bool) -> Result<bool, Error> {
        self.spent += COST_OF_RUN;
        self.dataplane.sweep(&SweepRequest { flow, force: force.into(), ..SweepRequest::default() })
    }

    fn backend(&self, index: u32) -> NatBackend {
        self.world.backends.get(index as usize).copied().unwrap_or_default()
    }

    /// What was seen, with an age that counts from when the clock was kept again.
    fn since_kept(&self, seen: NatSeen) -> NatSeen {
        let kept = self.now.saturating_sub(self.kept_since);
        if u64::from(seen.age(self.now)) > kept { NatSeen::new(self.kept_since, seen.bits()) } else { seen }
    }
}

impl Counting {
    fn begin(dataplane: &dyn Dataplane, world: &NatWorld, now: Moment) -> Self {
        let census = NatCensus { began: now, ..NatCensus::default() };
        let loads = dataplane.words().loads;
        let changes = (0..world.backends.len()).map(|index| {
            loads.get(index * 2 + 1).map_or(0, |word| word.load(std::sync::atomic::Ordering::Acquire))
        });
        Self { census, changes: changes.collect() }
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

/// What a step may cost, of which there are ten a second, for tables of `nat_flows`.
///
/// Reading both tables takes a second at most, up to a million flows; beyond that it takes its time, so that a step is not
/// felt by those who wait for it.
pub(super) fn budget(nat_flows: u32) -> usize {
    (nat_flows as usize).clamp(LEAST_BUDGET, MOST_BUDGET)
}

/// Entries asked for at a time.
const PAGE: u32 = 4096;

/// System calls in terms of entries that come a page at a time.
const COST_OF_LOOKUP: usize = 8;
const COST_OF_RUN: usize = 24;

const LEAST_BUDGET: usize = 64 << 10;
const MOST_BUDGET: usize = 256 << 10;

#[cfg(test)]
mod tests;
