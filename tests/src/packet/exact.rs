//! Maps that are looked up by exact keys, and those of admission: in the kernel, and as the model has them.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use lb_common::abi::{
    ControlBlock, IcmpBudget, NAT_POOL_ADDRESSES, NatFlow as FlowValue, NatPool, NatReply as ReplyValue,
    NewFlows, SOURCE_ALLOW, SOURCE_DENY, SOURCE_LIST_BITS, SourceKey, names,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::sys::{self, Map, ProgramInfo, Words};
use super::{exact_encode as encode, notes};
use crate::model::{Chosen, Effects, NatChange, NatFlowKey, Pool, Prefix, State};

#[derive(Debug)]
pub(super) struct ExactMaps {
    control: Words,
    pool: Words,
    opened: Words,
    flows: Map,
    replies: Map,
    notes: Map,
    sources: Map,
    budget: Map,
    cpus: usize,
}

const POOL: usize = size_of::<NatPool>() / 8;
const OPENED: usize = size_of::<NewFlows>() / 8;
const LIVE_POOL: usize = std::mem::offset_of!(ControlBlock, nat_pool) / 8;

impl ExactMaps {
    pub(super) fn open(info: &ProgramInfo) -> Result<Self> {
        Ok(Self {
            control: Words::open(info, names::CONTROL)?,
            pool: Words::open(info, names::NAT_POOL)?,
            opened: Words::open(info, names::NEW_FLOWS)?,
            flows: sys::open_map(info, names::NAT_FLOWS)?,
            replies: sys::open_map(info, names::NAT_REPLIES)?,
            notes: sys::open_map(info, names::FRAGMENTS)?,
            sources: sys::open_map(info, names::SOURCES)?,
            budget: sys::open_map(info, ICMP_BUDGET)?,
            cpus: sys::possible_cpus()?,
        })
    }

    /// Writes the pool that is not live, and makes it so.
    pub(super) fn store_pool(&self, pool: &Pool) -> Result<()> {
        let mut value =
            NatPool { first_port: pool.first_port, last_port: pool.last_port, ..NatPool::default() };
        for &address in &pool.addresses {
            let (places, count) = match address {
                IpAddr::V4(_) => (&mut value.v4, &mut value.v4_count),
                IpAddr::V6(_) => (&mut value.v6, &mut value.v6_count),
            };
            let place = places.get_mut(*count as usize);
            *place.with_context(|| format!("more than {NAT_POOL_ADDRESSES} addresses"))? =
                super::encode::mapped(address);
            *count += 1;
        }
        let next = self.control.load(LIVE_POOL) & 1 ^ 1;
        for (at, word) in value.as_bytes().chunks_exact(8).enumerate() {
            self.pool.store(next as usize * POOL + at, u64::from_ne_bytes(word.try_into()?));
        }
        self.control.store(LIVE_POOL, next);
        Ok(())
    }

    pub(super) fn store_prefix(&self, prefix: &Prefix) -> Result<()> {
        let key = SourceKey { list: prefix.list.to_ne_bytes(), address: prefix.address.octets() };
        let len = SOURCE_LIST_BITS + prefix.bits;
        let verdict = if prefix.allows { SOURCE_ALLOW } else { SOURCE_DENY };
        self.sources.put(&[&len.to_ne_bytes(), key.as_bytes()].concat(), verdict.as_bytes())
    }

    pub(super) fn store_nat(&self, change: &NatChange) -> Result<()> {
        let (map, key, value) = match change {
            NatChange::Flow(key, flow) => {
                let value = flow.map(|flow| encode::flow(&flow).as_bytes().to_vec());
                (&self.flows, encode::flow_key(key).as_bytes().to_vec(), value)
            }
            NatChange::Reply(key, reply) => {
                let value = reply.map(|reply| encode::reply(&reply).as_bytes().to_vec());
                (&self.replies, encode::reply_key(key).as_bytes().to_vec(), value)
            }
        };
        match value {
            Some(value) => map.put(&key, &value),
            None => map.remove(&key),
        }
    }

    pub(super) fn forget_notes(&self) -> Result<()> {
        empty(&self.notes)
    }

    /// The address and port that a flow has got.
    pub(super) fn chosen(&self, key: &NatFlowKey) -> Result<Chosen> {
        let Some(value) = self.flows.find(encode::flow_key(key).as_bytes())? else {
            return Ok(Chosen::Nothing);
        };
        let flow = FlowValue::read_from_bytes(&value).ok().context("a NAT flow of another size")?;
        let address = encode::address(flow.our_address);
        Ok(Chosen::Taken(address, u16::from_be_bytes(flow.our_port)))
    }

    /// Compares what a packet may have touched.
    pub(super) fn compare(&self, before: &State, effects: &Effects) -> Result<()> {
        for (number, change) in effects.nat.iter().enumerate() {
            let later = &effects.nat[number + 1..];
            let is_undone = later.iter().any(|later| match (change, later) {
                (NatChange::Flow(key, _), NatChange::Flow(other, _)) => key == other,
                (NatChange::Reply(key, _), NatChange::Reply(other, _)) => key == other,
                _ => false,
            });
            if !is_undone {
                self.compare_nat(change)?;
            }
        }
        let of = effects.opened.map(|(service, _)| service);
        for &service in before.opened.keys().chain(&of) {
            let changed = effects.opened.filter(|(of, _)| *of == service).map(|(_, opened)| opened);
            let known = before.opened.get(&service).copied();
            self.compare_opened(service, changed.or(known).unwrap_or_default())?;
        }
        Ok(())
    }

    fn compare_nat(&self, change: &NatChange) -> Result<()> {
        match change {
            NatChange::Flow(key, wanted) => {
                let found = self.flows.find(encode::flow_key(key).as_bytes())?;
                let found = found.map(|value| FlowValue::read_from_bytes(&value).ok());
                same(&format!("{key:?}"), found.flatten(), wanted.as_ref().map(encode::flow))
            }
            NatChange::Reply(key, wanted) => {
                let found = self.replies.find(encode::reply_key(key).as_bytes())?;
                let found = found.map(|value| ReplyValue::read_from_bytes(&value).ok());
                same(&format!("{key:?}"), found.flatten(), wanted.as_ref().map(encode::reply))
            }
        }
    }

    fn compare_opened(&self, service: u32, (second, flows): (u32, u32)) -> Result<()> {
        let wanted = u64::from(second) << 32 | u64::from(flows);
        let found = self.opened.load(service as usize * OPENED);
        same(&format!("flows opened of service {service}"), found, wanted)
    }

    /// Compares all there is.
    pub(super) fn audit(&self, state: &State) -> Result<()> {
        for (key, flow) in &state.nat.flows {
            self.compare_nat(&NatChange::Flow(*key, Some(*flow)))?;
        }
        for (key, reply) in &state.nat.replies {
            self.compare_nat(&NatChange::Reply(*key, Some(*reply)))?;
        }
        same("NAT flows", self.flows.keys()?.len(), state.nat.flows.len())?;
        same("sides of backends", self.replies.keys()?.len(), state.nat.replies.len())?;
        for (&service, &opened) in &state.opened {
            self.compare_opened(service, opened)?;
        }
        Ok(())
    }

    /// Makes the kernel's maps what the model's are.
    pub(super) fn write(&self, state: &State) -> Result<()> {
        empty(&self.flows)?;
        empty(&self.replies)?;
        empty(&self.notes)?;
        for (key, flow) in &state.nat.flows {
            self.store_nat(&NatChange::Flow(*key, Some(*flow)))?;
        }
        for (key, reply) in &state.nat.replies {
            self.store_nat(&NatChange::Reply(*key, Some(*reply)))?;
        }
        for (key, note) in &state.notes {
            self.notes.put(notes::key(key).as_bytes(), notes::fate(note).as_bytes())?;
        }
        for (&service, &opened) in &state.opened {
            self.store_opened(service, opened);
        }
        self.store_errors_made(state)
    }

    pub(super) fn store_opened(&self, service: u32, (second, flows): (u32, u32)) {
        self.opened.store(service as usize * OPENED, u64::from(second) << 32 | u64::from(flows));
    }

    pub(super) fn store_errors_made(&self, state: &State) -> Result<()> {
        let budget = (0..self.cpus).flat_map(|cpu| {
            let (time, sent) = state.errors_made.get(&cpu).copied().unwrap_or_default();
            IcmpBudget { time, sent }.as_bytes().to_vec()
        });
        self.budget.update_all(0, &budget.collect::<Vec<_>>())
    }
}

/// Not pinned, so its name is nobody's business but the program's.
const ICMP_BUDGET: &str = "ICMP_BUDGET";

fn empty(map: &Map) -> Result<()> {
    map.keys()?.iter().try_for_each(|key| map.remove(key))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result<()> {
    ensure!(found == wanted, "{what}\n  expected: {wanted:x?}\n  observed: {found:x?}");
    Ok(())
}
