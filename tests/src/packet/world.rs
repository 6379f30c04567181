//! The loaded program and the model, kept in the same state and asked the same questions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail, ensure};
use ballast::dataplane::{Dataplane, Limits, loader};
use lb_common::abi::{
    BackendValue, Counters, ENTRY_OCCUPIED, EgressValue, FORWARDING_IPIP, FORWARDING_L2_DSR, HASH_FLOW,
    HASH_SOURCE, MAX_DROP_REASONS, NextHop, PROTOCOL_ANY, STATE_EXISTING_FLOWS, STATE_IN_USE,
    STATE_NEW_FLOWS, ServiceEntry, ServiceKey, Slot, TrafficCounters, limits, names,
};
use lb_common::hash;
use zerocopy::FromBytes;

use super::frame::hex;
use super::network::{self, Place};
use super::sys::{self, Map};
use crate::model::{
    Backend, Decision, Egress, Forwarding, HashKey, Service, SlotHash, State, Verdict, decide,
};

/// The kernel's side and the model's. Whatever changes one through this changes the other.
pub struct World {
    /// What the model decides by. To be changed through the methods, except for telling the model a lie.
    pub state: State,
    dataplane: Box<dyn Dataplane>,
    program: OwnedFd,
    devices: Map,
    counters: PerCpu,
    place: Place,
    side_effects: bool,
    /// CPU that frames are run on.
    cpu: usize,
    expected: Expected,
    info: sys::ProgramInfo,
}

struct PerCpu {
    totals: Map,
    services: Map,
    backends: Map,
    cpus: usize,
}

/// Counters as they should be.
struct Expected {
    totals: Vec<Counters>,
    services: BTreeMap<u32, TrafficCounters>,
    backends: BTreeMap<u32, TrafficCounters>,
}

/// Room for the fixtures; small, because every test makes its own maps.
pub const LIMITS: Limits = Limits { services: 128, backends: 1024, lookup_slots: 512 * 1024 };

const KEY: HashKey = HashKey { k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908 };

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// What the program did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub code: u32,
    pub frame: Vec<u8>,
}

impl World {
    /// Loads the program into a fresh network namespace, with empty maps, and moves the calling thread there.
    pub fn new() -> Result<Self> {
        Self::load(true)
    }

    /// The same with counting switched off, as `explain` loads it.
    pub fn without_side_effects() -> Result<Self> {
        Self::load(false)
    }

    fn load(side_effects: bool) -> Result<Self> {
        let place = Place::enter()?;
        let key = hash::HashKey { k0: KEY.k0, k1: KEY.k1 };
        let (program, dataplane) =
            loader::load_for_test(LIMITS, key, side_effects).context("load the program")?;
        let info = sys::program_info(&program)?;
        let open = |name| sys::open_map(&info, name).with_context(|| format!("open the map {name}"));
        let cpus = sys::possible_cpus()?;
        let counters = PerCpu {
            totals: open(names::COUNTERS)?,
            services: open(names::SERVICE_COUNTERS)?,
            backends: open(names::BACKEND_COUNTERS)?,
            cpus,
        };
        let state = State {
            hash_key: KEY,
            ingress: network::LOOPBACK,
            services: Vec::new(),
            backends: BTreeMap::new(),
            egress: BTreeMap::new(),
            backend_limit: LIMITS.backends,
            egress_limit: limits::EGRESS_ENTRIES,
            lookup_limit: LIMITS.lookup_slots,
        };
        let cpu = *place.cpus.first().context("a thread runs somewhere")?;
        place.pin_to(cpu)?;
        Ok(Self {
            state,
            dataplane: Box::new(dataplane),
            devices: open(names::EGRESS_DEVICES)?,
            program,
            counters,
            place,
            side_effects,
            cpu,
            expected: Expected {
                totals: vec![no_counters(); cpus],
                services: BTreeMap::new(),
                backends: BTreeMap::new(),
            },
            info,
        })
    }

    /// Instructions of the program, and how many the verifier went through.
    #[must_use]
    pub fn instructions(&self) -> (u32, u32) {
        (self.info.instructions, self.info.verified_instructions)
    }

    /// Index of an interface to redirect to.
    #[must_use]
    pub fn other_interface(&self) -> u32 {
        self.place.interface
    }

    /// CPUs that frames can be run on.
    #[must_use]
    pub fn cpus(&self) -> &[usize] {
        &self.place.cpus
    }

    pub fn run_on_cpu(&mut self, cpu: usize) -> Result<()> {
        self.place.pin_to(cpu)?;
        self.cpu = cpu;
        Ok(())
    }

    pub fn set_egress(&mut self, number: u16, egress: Egress) -> Result<()> {
        let value = EgressValue {
            source_mac: egress.source_mac,
            ifindex: egress.interface,
            mtu: egress.mtu,
            source: mapped(egress.source),
            ..EgressValue::default()
        };
        self.dataplane.write_egress(number.into(), &value)?;
        if !egress.has_device {
            // As the kernel does when an interface goes.
            self.devices.delete(number.into())?;
        }
        ensure!(self.devices.has(number.into()) == egress.has_device, "device map entry {number}");
        self.state.egress.insert(number, egress);
        Ok(())
    }

    /// Writes a whole record, for an index no slot names.
    pub fn set_backend(&mut self, index: u32, service: u32, backend: Backend) -> Result<()> {
        let value = BackendValue {
            next_hop: next_hop(&backend).0,
            address: mapped(backend.address),
            state: state_bits(&backend),
            service,
            ..BackendValue::default()
        };
        self.dataplane.write_backend(index, &value)?;
        self.state.backends.insert(index, backend);
        Ok(())
    }

    /// Changes a live backend as the controller does: by its two words.
    pub fn change_backend(&mut self, index: u32, change: impl FnOnce(&mut Backend)) -> Result<()> {
        let Some(backend) = self.state.backends.get_mut(&index) else { bail!("no backend {index}") };
        change(backend);
        self.dataplane.store_next_hop(index, next_hop(backend))?;
        self.dataplane.store_backend_state(index, state_bits(backend))?;
        Ok(())
    }

    /// Adds a service. It is not live before [`World::publish`].
    pub fn add_service(&mut self, service: Service) -> Result<()> {
        let room = LIMITS.lookup_slots.saturating_sub(service.base) as usize;
        let slots: Vec<_> = service.slots.iter().take(room).map(|&index| Slot::steady(index)).collect();
        if !slots.is_empty() {
            self.dataplane.store_slots(service.base, &slots)?;
        }
        self.state.services.push(service);
        Ok(())
    }

    /// Points one slot of a service, by its place in `state.services`, at another backend.
    pub fn change_slot(&mut self, service: usize, slot: usize, index: u32) -> Result<()> {
        let service = &mut self.state.services[service];
        service.slots[slot] = index;
        self.dataplane.store_slots(service.base + slot as u32, &[Slot::steady(index)])?;
        Ok(())
    }

    /// The first slot behind every region.
    #[must_use]
    pub fn next_base(&self) -> u32 {
        let ends = self.state.services.iter().map(|service| service.base + service.slots.len() as u32);
        ends.filter(|&end| end < LIMITS.lookup_slots).max().unwrap_or_default()
    }

    /// The first index behind every backend's.
    #[must_use]
    pub fn next_index(&self) -> u32 {
        self.state.backends.keys().next_back().map_or(1, |last| last + 1)
    }

    /// Makes the services of `state` live.
    pub fn publish(&mut self) -> Result<()> {
        let services = &self.state.services;
        let mut entries: Vec<_> = services.iter().map(entry).collect();
        // The markers by which the data plane knows its VIPs: an address and protocol, an address.
        let markers: std::collections::BTreeSet<_> = services
            .iter()
            .map(|service| mapped(service.address))
            .zip(services.iter().map(|service| service.protocol.number()))
            .flat_map(|(address, protocol)| [(address, protocol), (address, PROTOCOL_ANY)])
            .collect();
        entries.extend(markers.into_iter().map(|(address, protocol)| ServiceEntry {
            key: ServiceKey::marker(address, protocol),
            flags: ENTRY_OCCUPIED,
            ..ServiceEntry::default()
        }));
        let every_port = services.iter().any(|service| service.port.is_none());
        self.dataplane.publish_services(&entries, every_port)?;
        Ok(())
    }

    /// Runs the program on a frame. Nothing is compared and nothing expected.
    pub fn run(&self, frame: &[u8]) -> std::io::Result<Observed> {
        let (code, frame) = sys::test_run(&self.program, frame, 0)?;
        Ok(Observed { code, frame })
    }

    /// Runs the program on a frame and compares verdict, frame and counters with the model's.
    pub fn check(&mut self, frame: &[u8]) -> Result<Decision> {
        let decision = decide(&self.state, frame);
        self.expect(frame, 0, &decision)?;
        Ok(decision)
    }

    /// The same with an expectation of one's own, and metadata bytes in the frame's headroom.
    pub fn expect(&mut self, frame: &[u8], metadata: usize, decision: &Decision) -> Result<()> {
        let (code, out) = sys::test_run(&self.program, frame, metadata).context("run the program")?;
        let observed = Observed { code, frame: out };
        if let Some(difference) = difference(frame, decision, &observed) {
            bail!("{difference}\n  frame in:\n{}", hex(frame));
        }
        self.expected.add(self.cpu, decision);
        self.compare_counters(decision).with_context(|| format!("frame in:\n{}", hex(frame)))
    }

    /// Whether program and model see this frame alike, without a look at the counters. For shrinking.
    pub fn differs(&self, frame: &[u8]) -> Option<String> {
        let observed = self.run(frame).ok()?;
        difference(frame, &decide(&self.state, frame), &observed)
    }

    /// Compares the counters that the last frame should have changed.
    fn compare_counters(&self, decision: &Decision) -> Result<()> {
        ensure_equal("counters", self.read_totals()?, self.wanted(|expected| expected.totals.clone()))?;
        if let Some(counted) = decision.counted {
            self.compare_service(counted.service)?;
            self.compare_backend(counted.backend)?;
        }
        Ok(())
    }

    /// Compares every counter there is, and checks that each CPU's add up.
    pub fn audit(&self) -> Result<()> {
        let totals = self.read_totals()?;
        for (cpu, counters) in totals.iter().enumerate() {
            let verdicts = counters.transmitted + counters.redirected + counters.passed;
            let drops: u64 = counters.drops.iter().sum();
            ensure!(counters.received == verdicts + drops, "CPU {cpu} lost count: {counters:?}");
        }
        ensure_equal("counters", totals, self.wanted(|expected| expected.totals.clone()))?;
        (0..LIMITS.services).try_for_each(|service| self.compare_service(service))?;
        (0..LIMITS.backends).try_for_each(|index| self.compare_backend(index))?;

        // What the daemon shows is the sum.
        let shown = self.dataplane.counters().totals()?;
        let sum = |field: fn(&Counters) -> u64| self.wanted(|all| all.totals.iter().map(field).sum::<u64>());
        ensure_equal("received, as summed up", shown.received, sum(|counters| counters.received))?;
        ensure_equal("transmitted, as summed up", shown.transmitted, sum(|counters| counters.transmitted))?;
        ensure_equal("redirected, as summed up", shown.redirected, sum(|counters| counters.redirected))?;
        ensure_equal("passed, as summed up", shown.passed, sum(|counters| counters.passed))
    }

    fn compare_service(&self, service: u32) -> Result<()> {
        let found = self.read_traffic(&self.counters.services, service)?;
        let wanted = self.wanted(|expected| expected.services.get(&service).copied().unwrap_or_default());
        ensure_equal(&format!("counters of service {service}"), found, wanted)
    }

    fn compare_backend(&self, index: u32) -> Result<()> {
        let found = self.read_traffic(&self.counters.backends, index)?;
        let wanted = self.wanted(|expected| expected.backends.get(&index).copied().unwrap_or_default());
        ensure_equal(&format!("counters of backend {index}"), found, wanted)
    }

    /// A program without side effects counts nothing at all.
    fn wanted<T>(&self, of: impl FnOnce(&Expected) -> T) -> T {
        if self.side_effects {
            of(&self.expected)
        } else {
            of(&Expected {
                totals: vec![no_counters(); self.counters.cpus],
                services: BTreeMap::new(),
                backends: BTreeMap::new(),
            })
        }
    }

    fn read_totals(&self) -> Result<Vec<Counters>> {
        let bytes = self.counters.totals.lookup(0, self.counters.cpus)?;
        bytes.chunks_exact(size_of::<Counters>()).map(read).collect()
    }

    fn read_traffic(&self, map: &Map, key: u32) -> Result<TrafficCounters> {
        let bytes = map.lookup(key, self.counters.cpus)?;
        let mut sum = TrafficCounters::default();
        for chunk in bytes.chunks_exact(size_of::<TrafficCounters>()) {
            let one: TrafficCounters = read(chunk)?;
            sum.packets += one.packets;
            sum.bytes += one.bytes;
            sum.new_flows += one.new_flows;
            sum._reserved += one._reserved;
        }
        Ok(sum)
    }
}

impl Expected {
    fn add(&mut self, cpu: usize, decision: &Decision) {
        let counters = &mut self.totals[cpu];
        counters.received += 1;
        match &decision.verdict {
            Verdict::Pass => counters.passed += 1,
            Verdict::Transmit(_) => counters.transmitted += 1,
            Verdict::Redirect(_) => counters.redirected += 1,
            Verdict::Drop(reason) => counters.drops[*reason as usize] += 1,
        }
        let Some(counted) = decision.counted else { return };
        for traffic in [
            self.services.entry(counted.service).or_default(),
            self.backends.entry(counted.backend).or_default(),
        ] {
            traffic.packets += 1;
            traffic.bytes += counted.bytes;
            traffic.new_flows += u64::from(counted.new_flow);
        }
    }
}

/// What is different between what should have become of a frame and what did.
fn difference(frame: &[u8], decision: &Decision, observed: &Observed) -> Option<String> {
    let (code, out) = match &decision.verdict {
        Verdict::Pass => (XDP_PASS, Some(frame)),
        Verdict::Transmit(out) => (XDP_TX, Some(&out[..])),
        Verdict::Redirect(out) => (XDP_REDIRECT, Some(&out[..])),
        // What is left of a dropped frame is nobody's business.
        Verdict::Drop(_) => (XDP_DROP, None),
    };
    let same = observed.code == code && out.is_none_or(|out| out == observed.frame);
    (!same).then(|| {
        let wanted = match &decision.verdict {
            Verdict::Drop(reason) => format!("drop ({})", reason.name()),
            Verdict::Pass => "pass".into(),
            _ => code_name(code).to_owned(),
        };
        let frame_of = |out: Option<&[u8]>| out.map(|out| format!("\n{}", hex(out))).unwrap_or_default();
        format!(
            "expected: {wanted}{}\n  observed: {}{}",
            frame_of(out),
            code_name(observed.code),
            frame_of(Some(&observed.frame))
        )
    })
}

fn code_name(code: u32) -> &'static str {
    match code {
        0 => "aborted",
        XDP_DROP => "drop",
        XDP_PASS => "pass",
        XDP_TX => "transmit",
        XDP_REDIRECT => "redirect",
        _ => "no XDP code",
    }
}

fn entry(service: &Service) -> ServiceEntry {
    ServiceEntry {
        key: ServiceKey::service(
            mapped(service.address),
            service.port.unwrap_or(0),
            service.protocol.number(),
        ),
        service: service.number,
        slots_base: service.base,
        slot_shift: 64 - service.slots.len().trailing_zeros() as u8,
        forwarding: match service.forwarding {
            Forwarding::L2Dsr => FORWARDING_L2_DSR,
            Forwarding::Ipip => FORWARDING_IPIP,
            Forwarding::Unknown(number) => number,
        },
        hash_key: match service.hash {
            SlotHash::Source => HASH_SOURCE,
            SlotHash::Flow => HASH_FLOW,
        },
        flags: ENTRY_OCCUPIED,
        ..ServiceEntry::default()
    }
}

fn next_hop(backend: &Backend) -> NextHop {
    backend.next_hop.map_or(NextHop::UNRESOLVED, |(mac, egress)| NextHop::new(mac, egress))
}

fn state_bits(backend: &Backend) -> u32 {
    let existing = if backend.accepts_existing_flows { STATE_EXISTING_FLOWS } else { 0 };
    STATE_IN_USE | STATE_NEW_FLOWS | existing
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn no_counters() -> Counters {
    Counters { received: 0, transmitted: 0, redirected: 0, passed: 0, drops: [0; MAX_DROP_REASONS] }
}

fn read<T: FromBytes>(bytes: &[u8]) -> Result<T> {
    T::read_from_bytes(bytes).ok().context("a counter has another size than the ABI's")
}

fn ensure_equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result<()> {
    ensure!(found == wanted, "{what}\n  expected: {wanted:?}\n  observed: {found:?}");
    Ok(())
}
