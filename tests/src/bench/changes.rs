//! What a change costs: building tables, publishing slots, applying a whole state.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ballast::control::Hop;
use ballast::dataplane::desired::{Desired, DesiredBackend, DesiredService, Way};
use ballast::dataplane::reconcile::Reconciler;
use ballast::dataplane::scan::Moment;
use ballast::dataplane::{Dataplane, Fake, Limits, Operation, encode, loader};
use ballast::domain::{
    Admin, Admission, Algorithm, Forwarding, Health, HealthCheck, Name, OnAllDown, Origin, Panic, Protocol,
    Service, TableSize, Tracking, Vip,
};
use ballast::lookup::maglev::{self, Candidate};
use lb_common::abi::Slot;
use lb_common::hash::HashKey;

use super::stats::Summary;

/// One result, in the unit that its name ends with.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) group: &'static str,
    pub(super) what: String,
    pub(super) value: Summary,
    pub(super) at_most: Option<f64>,
}

pub(super) const TABLES: &str = "tables";
pub(super) const PUBLISH: &str = "publish";

/// Backends, slots, and how many milliseconds building may take.
const SIZES: [(u32, u32, Option<f64>); 4] =
    [(10, 1 << 14, None), (100, 1 << 16, Some(5.0)), (1_000, 1 << 20, Some(100.0)), (10_000, 1 << 20, None)];

/// Building lookup tables.
pub(super) fn tables(rounds: u32) -> Result<Vec<Line>> {
    let line = |(backends, slots, at_most): (u32, u32, Option<f64>)| {
        let size = TableSize::new(slots).context("a table size")?;
        let names: Vec<_> = (1..=backends).map(|index| format!("backend-{index}")).collect();
        let candidates: Vec<_> =
            (1..).zip(&names).map(|(index, name)| Candidate { name, weight: 1, index }).collect();
        let value = milliseconds(rounds, || {
            let table = maglev::build(size, &candidates);
            ensure!(table.len() == slots as usize, "a table of another size");
            Ok(())
        })?;
        let what = format!("build a table, {slots} slots, {backends} backends: ms");
        Ok(Line { group: TABLES, what, value, at_most })
    };
    SIZES.into_iter().map(line).collect()
}

/// Publishing changes to the kernel's maps.
pub(super) fn publish(rounds: u32) -> Result<Vec<Line>> {
    let mut lines = vec![store_slots(rounds)?];
    for (backends, slots, _) in SIZES {
        lines.push(replace_all(rounds, backends, slots)?);
    }
    lines.extend(one_of_many(rounds)?);
    Ok(lines)
}

const SLOTS: u32 = 1 << 16;

/// Every slot of a table gets another backend, and is tracked from then on.
fn store_slots(rounds: u32) -> Result<Line> {
    let limits = Limits {
        services: 16,
        backends: 1024,
        lookup_slots: SLOTS,
        flow_entries: 1 << 16,
        nat_flows: 1024,
        source_prefixes: 1024,
    };
    let (_program, mut dataplane) = loader::load_for_test(limits, KEY, true, true)?;
    let mut now = 0;
    let value = timed(rounds, || {
        now += 1;
        let (current, previous) = if now % 2 == 0 { (1, 2) } else { (2, 1) };
        let slots = vec![Slot::tracked_since(now as u16, current, previous); SLOTS as usize];
        let started = Instant::now();
        let stored = dataplane.store_slots(0, &slots, now)?;
        let spent = started.elapsed();
        ensure!(stored == SLOTS, "{stored} slots stored");
        Ok(spent)
    })?;
    let what = format!("store {SLOTS} changed slots and their stamps: ms");
    Ok(Line { group: PUBLISH, what, value, at_most: Some(1.0) })
}

/// A service whose backends all drain while as many new ones take over: the whole way of such a change.
fn replace_all(rounds: u32, backends: u32, slots: u32) -> Result<Line> {
    // Enough for all that wait to be used again.
    let rounds = rounds.min(8);
    let limits = Limits {
        services: 16,
        backends: (backends * (rounds + 2)).next_power_of_two(),
        lookup_slots: slots,
        flow_entries: 1 << 16,
        nat_flows: 1024,
        source_prefixes: 1024,
    };
    let mut reconciler = load(limits)?;
    let mut generation = 0;
    let mut desired = Desired { ways: ways(backends), ..Desired::default() };
    let value = timed(rounds, || {
        generation += 1;
        desired.services = vec![service(0, slots, generation, backends)?];
        let started = Instant::now();
        let published = reconciler.apply(&desired, at(u64::from(generation)))?;
        let spent = started.elapsed();
        ensure!(published.changed, "nothing has changed");
        Ok(spent)
    })?;
    let what = format!("replace all of {backends} backends, {slots} slots, from state to maps: ms");
    Ok(Line { group: PUBLISH, what, value, at_most: None })
}

const MANY: u32 = 1000;
const FEW_BACKENDS: u32 = 10;
const FEW_SLOTS: u32 = 1024;

/// A change of one service among many.
fn one_of_many(rounds: u32) -> Result<Vec<Line>> {
    let limits = Limits {
        services: 1024,
        backends: 1 << 14,
        lookup_slots: 1 << 20,
        flow_entries: 1 << 16,
        nat_flows: 1024,
        source_prefixes: 1024,
    };
    let services = (0..MANY).map(|number| service(number, FEW_SLOTS, 0, FEW_BACKENDS));
    let mut desired = Desired {
        services: services.collect::<Result<_>>()?,
        ways: ways(FEW_BACKENDS),
        ..Desired::default()
    };
    let mut reconciler = load(limits)?;
    reconciler.apply(&desired, at(1))?;
    let fake = Fake::new(limits);
    let mut shadow = Reconciler::restore(Box::new(fake.clone()))?;
    shadow.apply(&desired, at(1))?;

    let mut now = 1;
    let mut elsewhere = 0;
    let mut stored = Vec::new();
    let value = timed(rounds, || {
        now += 1;
        let changed = now as usize * 37 % desired.services.len();
        let weight = &mut desired.services[changed].backends[0].weight;
        *weight = if *weight == 0 { 1 } else { 0 };
        let started = Instant::now();
        reconciler.apply(&desired, at(now))?;
        let spent = started.elapsed();

        fake.clear_log();
        let published = shadow.apply(&desired, at(now))?;
        let own = published.services.get(&desired.services[changed].id).context("a published service")?.id;
        let records = fake.service_records()?;
        let (_, record) = records.iter().find(|(number, _)| *number == own).context("a service's record")?;
        let base = record.slots_base;
        stored.push(f64::from(fake.slots_changed()));
        elsewhere += fake.operations().iter().map(|operation| outside(operation, base)).sum::<u32>();
        Ok(spent)
    })?;
    let what = format!("change one of {MANY} services of {FEW_SLOTS} slots, from state to maps: ms");
    let stored = Summary::of(&stored).context("no value")?;
    let elsewhere = Summary::of(&[f64::from(elsewhere)]).context("no value")?;
    let line = |what: &str, value, at_most| Line { group: PUBLISH, what: what.into(), value, at_most };
    Ok(vec![
        line(&what, value, None),
        line("change one of 1000 services: slots stored", stored, Some(f64::from(FEW_SLOTS))),
        line("change one of 1000 services: slots of others written", elsewhere, Some(0.0)),
    ])
}

/// Slots that an operation looks at outside of the region that begins at `base`.
fn outside(operation: &Operation, base: u32) -> u32 {
    match operation {
        Operation::StoreSlots(at, count, _) if *at < base || at + count > base + FEW_SLOTS => *count,
        _ => 0,
    }
}

fn load(limits: Limits) -> Result<Reconciler> {
    let (_program, dataplane) = loader::load_for_test(limits, KEY, true, true)?;
    Ok(Reconciler::restore(Box::new(dataplane))?)
}

const KEY: HashKey = HashKey { k0: 1, k1: 2 };

fn at(seconds: u64) -> Moment {
    let now = Duration::from_secs(seconds);
    Moment { monotonic: now, boot: now }
}

fn service(number: u32, slots: u32, generation: u32, backends: u32) -> Result<DesiredService> {
    let spec = Service {
        name: format!("service-{number}").parse()?,
        vip: Vip { address: Ipv4Addr::from(0xcb00_7100 + (number >> 8)).into(), port: Some(number as u16) },
        protocol: Protocol::Tcp,
        forwarding: Forwarding::Ipip,
        algorithm: Algorithm::SourceHash,
        table_size: TableSize::new(slots).context("a table size")?,
        health: HealthCheck::default(),
        panic: Panic::default(),
        on_all_down: OnAllDown::FailOpen,
        tracking: Tracking::Auto,
        flow_idle_timeout: Duration::from_secs(900),
        unhealthy_grace: Service::DEFAULT_UNHEALTHY_GRACE,
        drain_timeout: Service::DEFAULT_DRAIN_TIMEOUT,
        slow_start: Duration::ZERO,
        withdraw_below: 0,
        admission: Admission::default(),
        discovery: Default::default(),
        // What is wanted of each is below; the declaration is of no account here.
        backends: std::collections::BTreeMap::new(),
        origin: Origin::File { path: Arc::new(PathBuf::from("bench.toml")), line: 1 },
    };
    let backend = |backend: u32| {
        let name: Name = format!("backend-{generation}-{backend}").parse()?;
        let address = SocketAddr::new(address(backend), 80);
        Ok(DesiredBackend {
            id: encode::backend_id(&spec.name, &name, address),
            name,
            address,
            admin: Admin::Active,
            health: Health::Healthy,
            weight: 1,
            accepts_existing: true,
            left_table_at: 0,
            started_at: 0,
            drain_deadline: 0,
            way: way(),
        })
    };
    let backends = (0..backends).map(backend).collect::<Result<_>>()?;
    Ok(DesiredService {
        id: encode::service_id(&spec.name),
        backends,
        panics: false,
        rejects: false,
        cut: Vec::new(),
        spec: Arc::new(spec),
    })
}

fn ways(backends: u32) -> HashMap<IpAddr, Way> {
    (0..backends).map(|backend| (address(backend), way())).collect()
}

fn address(backend: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0001 + backend).into()
}

fn way() -> Way {
    Way::Resolved(Hop {
        mac: [2, 0, 0, 0, 0, 1],
        // `lo`.
        ifindex: 1,
        source_mac: [2, 0, 0, 0, 0, 2],
        mtu: 1500,
        source: Ipv4Addr::new(10, 255, 0, 1).into(),
    })
}

fn milliseconds(rounds: u32, mut action: impl FnMut() -> Result<()>) -> Result<Summary> {
    timed(rounds, || {
        let started = Instant::now();
        action()?;
        Ok(started.elapsed())
    })
}

/// Does it once more than is counted: the first time touches memory for the first time.
fn timed(rounds: u32, mut action: impl FnMut() -> Result<Duration>) -> Result<Summary> {
    let mut values = Vec::new();
    for round in 0..=rounds {
        let spent = action()?;
        if round > 0 {
            values.push(spent.as_secs_f64() * 1e3);
        }
    }
    Summary::of(&values).context("no round")
}
