//! Counters: as they should be, as the kernel has them, and whether that is the same.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use ballast::dataplane::CounterReader;
use lb_common::abi::{Counters, TrafficCounters, names};
use zerocopy::{FromBytes, FromZeros as _};

use super::sys::{self, Map, ProgramInfo};
use super::world::LIMITS;
use crate::model::{Decision, Event, Verdict};

/// The kernel's counters, read CPU by CPU, beside those that the model's decisions add up to.
#[derive(Debug)]
pub(super) struct Books {
    totals: Map,
    services: Map,
    backends: Map,
    cpus: usize,
    /// Whether the program counts at all.
    side_effects: bool,
    wanted: Wanted,
}

#[derive(Debug)]
struct Wanted {
    totals: Vec<Counters>,
    services: BTreeMap<u32, TrafficCounters>,
    backends: BTreeMap<u32, TrafficCounters>,
}

impl Books {
    pub(super) fn open(info: &ProgramInfo, side_effects: bool) -> Result<Self> {
        let cpus = sys::possible_cpus()?;
        let totals = vec![Counters::new_zeroed(); cpus];
        Ok(Self {
            totals: sys::open_map(info, names::COUNTERS)?,
            services: sys::open_map(info, names::SERVICE_COUNTERS)?,
            backends: sys::open_map(info, names::BACKEND_COUNTERS)?,
            cpus,
            side_effects,
            wanted: Wanted { totals, services: BTreeMap::new(), backends: BTreeMap::new() },
        })
    }

    /// Enters a decision about a frame that was run on `cpu`.
    pub(super) fn enter(&mut self, cpu: usize, decision: &Decision) {
        if !self.side_effects {
            return;
        }
        let counters = &mut self.wanted.totals[cpu];
        counters.received += 1;
        match &decision.verdict {
            Verdict::Pass => counters.passed += 1,
            Verdict::Transmit(_) => counters.transmitted += 1,
            Verdict::Redirect(_) => counters.redirected += 1,
            Verdict::Drop(reason) => counters.drops[*reason as usize] += 1,
        }
        counters.flows_inserted += u64::from(decision.effects.inserted);
        counters.flows_evicted += u64::from(decision.effects.evicted);
        counters.flows_refused += u64::from(decision.effects.refused);
        for &event in &decision.effects.events {
            *event_counter(counters, event) += 1;
        }
        let Some(counted) = decision.counted else { return };
        let service = self.wanted.services.entry(counted.service).or_default();
        let backend = self.wanted.backends.entry(counted.backend).or_default();
        for traffic in [service, backend] {
            if counted.reply {
                traffic.reply_packets += 1;
                traffic.reply_bytes += counted.bytes;
            } else {
                traffic.packets += 1;
                traffic.bytes += counted.bytes;
                traffic.new_flows += u64::from(counted.new_flow);
            }
        }
    }

    /// Compares what the last decision changed.
    pub(super) fn compare(&self, decision: &Decision) -> Result<()> {
        self.compare_totals()?;
        if let Some(counted) = decision.counted {
            self.compare_service(counted.service)?;
            self.compare_backend(counted.backend)?;
        }
        Ok(())
    }

    /// Compares what counts every packet.
    pub(super) fn compare_totals(&self) -> Result<()> {
        same("counters", &self.read_totals()?, &self.wanted.totals)
    }

    /// Compares every counter there is, checks that each CPU's add up, and that `shown`, which the daemon shows, is
    /// their sum.
    pub(super) fn audit(&self, shown: &dyn CounterReader) -> Result<()> {
        let totals = self.read_totals()?;
        for (cpu, counters) in totals.iter().enumerate() {
            let verdicts = counters.transmitted + counters.redirected + counters.passed;
            let drops: u64 = counters.drops.iter().sum();
            ensure!(counters.received == verdicts + drops, "CPU {cpu} lost count: {counters:?}");
        }
        same("counters", &totals, &self.wanted.totals)?;
        for service in 0..LIMITS.services {
            self.compare_service(service)?;
            same(
                "what is shown of a service",
                &shown.service(service)?,
                &of(&self.wanted.services, service),
            )?;
        }
        for index in 0..LIMITS.backends {
            self.compare_backend(index)?;
            same("what is shown of a backend", &shown.backend(index)?, &of(&self.wanted.backends, index))?;
        }
        // All at once, in an order that is not the map's.
        let services: Vec<_> = (0..LIMITS.services).rev().collect();
        let wanted: Vec<_> = services.iter().map(|service| of(&self.wanted.services, *service)).collect();
        same("what is shown of all services", &shown.services(&services)?, &wanted)?;
        let indexes: Vec<_> = (0..LIMITS.backends).rev().collect();
        let wanted: Vec<_> = indexes.iter().map(|index| of(&self.wanted.backends, *index)).collect();
        same("what is shown of all backends", &shown.backends(&indexes)?, &wanted)?;
        let shown = shown.totals()?;
        let sum = |field: fn(&Counters) -> u64| self.wanted.totals.iter().map(field).sum::<u64>();
        same("received, as shown", &shown.received, &sum(|counters| counters.received))?;
        same("transmitted, as shown", &shown.transmitted, &sum(|counters| counters.transmitted))?;
        same("redirected, as shown", &shown.redirected, &sum(|counters| counters.redirected))?;
        same("passed, as shown", &shown.passed, &sum(|counters| counters.passed))?;
        same("flows inserted, as shown", &shown.flows_inserted, &sum(|counters| counters.flows_inserted))?;
        same("flows evicted, as shown", &shown.flows_evicted, &sum(|counters| counters.flows_evicted))?;
        same("flows refused, as shown", &shown.flows_refused, &sum(|counters| counters.flows_refused))?;
        for event in Event::ALL {
            let shown = *event_counter(&mut shown.clone(), event);
            let wanted =
                self.wanted.totals.iter().map(|counters| *event_counter(&mut counters.clone(), event));
            same(&format!("{event:?}, as shown"), &shown, &wanted.sum())?;
        }
        for (reason, shown) in shown.drops.iter().enumerate() {
            let wanted = self.wanted.totals.iter().map(|counters| counters.drops[reason]).sum();
            same("drops, as shown", shown, &wanted)?;
        }
        Ok(())
    }

    fn compare_service(&self, service: u32) -> Result<()> {
        let found = self.read_traffic(&self.services, service)?;
        same(&format!("counters of service {service}"), &found, &of(&self.wanted.services, service))
    }

    fn compare_backend(&self, index: u32) -> Result<()> {
        let found = self.read_traffic(&self.backends, index)?;
        same(&format!("counters of backend {index}"), &found, &of(&self.wanted.backends, index))
    }

    fn read_totals(&self) -> Result<Vec<Counters>> {
        let bytes = self.totals.lookup(0, self.cpus)?;
        bytes.chunks_exact(size_of::<Counters>()).map(read).collect()
    }

    fn read_traffic(&self, map: &Map, key: u32) -> Result<TrafficCounters> {
        let bytes = map.lookup(key, self.cpus)?;
        let mut sum = TrafficCounters::default();
        for chunk in bytes.chunks_exact(size_of::<TrafficCounters>()) {
            let one: TrafficCounters = read(chunk)?;
            sum.packets += one.packets;
            sum.bytes += one.bytes;
            sum.new_flows += one.new_flows;
            sum.reply_packets += one.reply_packets;
            sum.reply_bytes += one.reply_bytes;
        }
        Ok(sum)
    }
}

const fn event_counter(counters: &mut Counters, event: Event) -> &mut u64 {
    match event {
        Event::EchoReply => &mut counters.echo_replies,
        Event::TooBigSent => &mut counters.too_big_sent,
        Event::TimeExceededSent => &mut counters.time_exceeded_sent,
        Event::ErrorLimited => &mut counters.errors_limited,
        Event::ErrorRelayed => &mut counters.errors_relayed,
        Event::NatCreated => &mut counters.nat_created,
        Event::NatTakenOver => &mut counters.nat_taken_over,
        Event::ResetSent => &mut counters.resets_sent,
        Event::PortUnreachableSent => &mut counters.port_unreachable_sent,
    }
}

fn of(wanted: &BTreeMap<u32, TrafficCounters>, number: u32) -> TrafficCounters {
    wanted.get(&number).copied().unwrap_or_default()
}

fn read<T: FromBytes>(bytes: &[u8]) -> Result<T> {
    T::read_from_bytes(bytes).ok().context("a counter has another size than the ABI's")
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, wanted: &T) -> Result<()> {
    ensure!(found == wanted, "{what}\n  expected: {wanted:?}\n  observed: {found:?}");
    Ok(())
}
