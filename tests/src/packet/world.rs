//! The loaded program and the model, kept in the same state and asked the same questions.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{MapData, RingBuf};
use ballast::dataplane::bpf::BpfDataplane;
use ballast::dataplane::probe_stamps::ProbeStamps;
use ballast::dataplane::{CaptureProgram, Dataplane, Limits, loader};
use lb_common::abi::{limits as abi_limits, mac_word, names};
use lb_common::hash;

use super::bpffs::PrivateBpffs;
use super::counters::Books;
use super::dump::{Content, Dumped};
use super::encode;
use super::exact::ExactMaps;
use super::flows::FlowMaps;
use super::frame::hex;
use super::network::{self, Place};
use super::outcome::{Observed, difference};
use super::sys::{self, Classified, Map, ProgramInfo};
use crate::model::{
    Backend, Chosen, Decision, Effects, Egress, Flow, Frame, HashKey, Load, NatChange, NatFlowKey,
    NatReplyKey, Pool, Prefix, Service, Slot, Stamps, State, decide_as,
};

/// The kernel's side and the model's. Whatever changes one through this changes the other.
pub struct World {
    /// What the model decides by. To be changed through the methods; only services may be taken out and put back
    /// directly, before [`World::publish`].
    pub state: State,
    dataplane: Box<dyn Dataplane>,
    program: OwnedFd,
    /// The one that carries health checks, on the same maps.
    probe: OwnedFd,
    probe_stamps: ProbeStamps,
    info: ProgramInfo,
    devices: Map,
    flows: FlowMaps,
    exact: ExactMaps,
    books: Books,
    dumped: Dumped,
    /// Whether packets leave anything behind.
    side_effects: bool,
    /// Where the maps are pinned, if they are.
    bpffs: Option<PrivateBpffs>,
    // Last: what the maps name is there until they are gone.
    place: Place,
}

/// Room for the fixtures; small, because every test makes its own maps, and the flow table as small as it can be, so
/// that it fills.
pub const LIMITS: Limits = Limits {
    services: 256,
    backends: 1024,
    lookup_slots: 512 * 1024,
    flow_entries: abi_limits::MIN_FLOW_ENTRIES,
    nat_flows: 1024,
    source_prefixes: 1024,
};

const KEY: HashKey = HashKey { k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908 };

impl World {
    /// Loads the program into a fresh network namespace, with empty maps. The calling thread stays there, on one CPU,
    /// until the world is dropped.
    pub fn new() -> Result<Self> {
        Self::load(LIMITS, true, false)
    }

    /// With room for more NAT flows.
    pub fn with_nat_flows(nat_flows: u32) -> Result<Self> {
        Self::load(Limits { nat_flows, ..LIMITS }, true, false)
    }

    /// With a program that looks at the kernel's clock, as the daemon loads it.
    pub fn with_a_clock_of_its_own() -> Result<Self> {
        Self::load(LIMITS, true, true)
    }

    /// The same with counting switched off, as `explain` loads it.
    pub fn without_side_effects() -> Result<Self> {
        Self::load(LIMITS, false, false)
    }

    /// With the program that runs where there are peers.
    pub fn replicating() -> Result<Self> {
        let place = Place::enter()?;
        let loaded = loader::load_replicating_for_test(LIMITS, Self::hash_key(), false);
        Self::around(loaded.context("load the programs")?, LIMITS, true, place, None)
    }

    /// With the program that runs during a capture, or if that is asked for the one for frames of one buffer; and what it
    /// copies.
    pub fn capturing(linear: bool) -> Result<(Self, CaptureProgram)> {
        let place = Place::enter()?;
        let loaded = loader::load_capturing_for_test(LIMITS, Self::hash_key(), linear);
        let (programs, dataplane, capture) = loaded.context("load the programs")?;
        Ok((Self::around((programs, dataplane), LIMITS, true, place, None)?, capture))
    }

    /// With maps that are pinned, so that another program can be loaded on them.
    pub fn pinned() -> Result<Self> {
        let bpffs = PrivateBpffs::mount()?;
        let place = Place::enter()?;
        let loaded = loader::load_pinned_for_test(&bpffs.pin_dir(), LIMITS, Self::hash_key(), false);
        Self::around(loaded.context("load the programs")?, LIMITS, true, place, Some(bpffs))
    }

    fn load(limits: Limits, side_effects: bool, self_clock: bool) -> Result<Self> {
        let place = Place::enter()?;
        let loaded = loader::load_all_for_test(limits, Self::hash_key(), side_effects, self_clock);
        Self::around(loaded.context("load the programs")?, limits, side_effects, place, None)
    }

    /// The key that flows are hashed with.
    #[must_use]
    pub const fn hash_key() -> hash::HashKey {
        hash::HashKey { k0: KEY.k0, k1: KEY.k1 }
    }

    /// Where its maps are pinned.
    #[must_use]
    pub fn pins(&self) -> Option<PathBuf> {
        self.bpffs.as_ref().map(PrivateBpffs::pin_dir)
    }

    /// Everything that is in its maps.
    pub(super) fn dump(&self) -> Result<BTreeMap<&'static str, Content>> {
        self.dumped.read()
    }

    /// Compares what is changed by every packet, and by those that open flows, with what it was after the last one.
    pub(super) fn is_untouched(&self) -> Result<()> {
        self.books.compare_totals()?;
        self.exact.compare(&self.state, &Effects::default())
    }

    fn around(
        (programs, dataplane): (loader::Programs, BpfDataplane),
        limits: Limits,
        side_effects: bool,
        place: Place,
        bpffs: Option<PrivateBpffs>,
    ) -> Result<Self> {
        let loader::Programs { balancer: program, probe, probe_stamps } = programs;
        let info = sys::program_info(&program)?;
        let buckets = abi_limits::flow_buckets(limits.flow_entries) as usize;
        let mut state = State::new(KEY, network::LOOPBACK, buckets);
        state.interfaces =
            [(network::LOOPBACK, network::LOOPBACK_MTU), (place.interface, network::VETH_MTU)].into();
        state.nat.limit = limits.nat_flows as usize;
        state.backend_limit = LIMITS.backends;
        state.egress_limit = abi_limits::EGRESS_ENTRIES;
        state.lookup_limit = LIMITS.lookup_slots;
        let cpu = *place.cpus.first().context("a thread runs somewhere")?;
        place.pin_to(cpu)?;
        state.cpu = cpu;
        Ok(Self {
            state,
            dataplane: Box::new(dataplane),
            devices: sys::open_map(&info, names::EGRESS_DEVICES)?,
            flows: FlowMaps::open(&info)?,
            exact: ExactMaps::open(&info)?,
            books: Books::open(&info, side_effects)?,
            dumped: Dumped::open(&info)?,
            side_effects,
            bpffs,
            program,
            probe,
            probe_stamps,
            info,
            place,
        })
    }

    /// The maps as the controller has them. What is changed here the model does not hear of.
    pub fn dataplane(&mut self) -> &mut dyn Dataplane {
        &mut *self.dataplane
    }

    /// Takes all news of flows. Returns how many there were.
    pub fn take_news(&mut self) -> Result<usize> {
        let ring = MapData::from_fd(sys::open_map(&self.info, names::FLOW_NEWS)?.into_fd())?;
        let mut ring = RingBuf::try_from(aya::maps::Map::RingBuf(ring))?;
        let mut count = 0;
        while ring.next().is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// What the clock cell says, in seconds.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.flows.clock()
    }

    /// The loaded program's name, and how many instructions the verifier walked to accept it, on all paths together.
    #[must_use]
    pub fn verified(&self) -> (&str, u32) {
        (&self.info.name, self.info.verified_instructions)
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
        self.state.cpu = cpu;
        Ok(())
    }

    pub fn set_egress(&mut self, number: u16, egress: Egress) -> Result<()> {
        self.dataplane.write_egress(number.into(), &encode::egress(&egress))?;
        if !egress.has_device {
            // As the kernel does when an interface goes.
            self.devices.delete(number.into())?;
        }
        ensure!(self.devices.has(number.into()) == egress.has_device, "device map entry {number}");
        self.state.egress.insert(number, egress);
        Ok(())
    }

    /// Writes a whole record, for an index no slot names.
    pub fn set_backend(&mut self, index: u32, backend: Backend) -> Result<()> {
        self.dataplane.write_backend(index, &encode::backend(&backend))?;
        self.state.backends.insert(index, backend);
        Ok(())
    }

    /// Changes a live backend as the controller does: word by word.
    pub fn change_backend(&mut self, index: u32, change: impl FnOnce(&mut Backend)) -> Result<()> {
        let Some(backend) = self.state.backends.get_mut(&index) else { bail!("no backend {index}") };
        change(backend);
        self.dataplane.store_next_hop(index, encode::next_hop(backend))?;
        self.dataplane.store_backend_state(index, encode::state_bits(backend))?;
        self.flows.store_weight(index, backend.weight);
        Ok(())
    }

    /// Adds a service with its slots, as far as they fit. It is not live before [`World::publish`].
    pub fn add_service(&mut self, service: Service) -> Result<()> {
        let room = LIMITS.lookup_slots.saturating_sub(service.base) as usize;
        let slots = service.slots.iter().take(room).map(encode::slot);
        for (place, slot) in (service.base..).zip(slots) {
            self.flows.store_slot(place, slot.word());
        }
        self.dataplane.write_service_record(service.number, &encode::record(&service))?;
        self.state.idle_timeouts.insert(service.number, service.idle_timeout);
        self.state.services.push(service);
        Ok(())
    }

    /// Writes one slot of a service, which is named by its place in `state.services`.
    pub fn change_slot(&mut self, service: usize, number: usize, slot: Slot) -> Result<()> {
        let service = &mut self.state.services[service];
        service.slots[number] = slot;
        self.flows.store_slot(service.base + number as u32, encode::slot(&slot).word());
        Ok(())
    }

    /// Decides what time it is.
    pub fn set_time(&mut self, now: u64) {
        self.state.now = now;
        self.flows.store_clock(now);
    }

    /// As if time had stood still before that moment for so many seconds.
    pub fn set_jump(&mut self, at: u32, length: u32) {
        self.state.jump = (at, length);
        self.flows.store_clock_jump((at, length));
    }

    /// When time went on last after it had stood still, and for how long it had, in seconds.
    #[must_use]
    pub fn clock_jump(&self) -> (u32, u32) {
        self.flows.clock_jump()
    }

    /// Which addresses and ports NAT takes from now on.
    pub fn set_pool(&mut self, pool: Pool) -> Result<()> {
        self.exact.store_pool(&pool)?;
        self.state.pool = pool;
        Ok(())
    }

    /// Frames for which MAC addresses are looked at from now on; `None`: for any.
    pub fn set_own_macs(&mut self, macs: Option<BTreeSet<[u8; 6]>>) -> Result<()> {
        let words: Vec<_> = macs.iter().flatten().map(|&mac| mac_word(mac)).collect();
        self.dataplane.publish_own_macs(&words)?;
        self.state.own_macs = macs;
        Ok(())
    }

    pub fn add_prefix(&mut self, prefix: Prefix) -> Result<()> {
        self.exact.store_prefix(&prefix)?;
        self.state.prefixes.push(prefix);
        Ok(())
    }

    /// Writes or removes an entry of NAT.
    pub fn plant_nat(&mut self, change: &NatChange) -> Result<()> {
        self.exact.store_nat(change)?;
        self.state.nat.apply(change);
        Ok(())
    }

    /// Removes both entries of a flow through NAT.
    pub fn remove_nat(&mut self, key: &NatReplyKey) -> Result<()> {
        let reply = self.state.nat.replies.get(key).context("no such flow")?;
        let flow = NatChange::Flow(reply.flow_key(), None);
        self.plant_nat(&flow)?;
        self.plant_nat(&NatChange::Reply(*key, None))
    }

    /// As if the CPU on hand had made so many ICMP errors this second.
    pub fn set_errors_made(&mut self, made: u64) -> Result<()> {
        self.state.errors_made.insert(self.state.cpu, (self.state.now, made));
        self.exact.store_errors_made(&self.state)
    }

    /// As if a service had opened so many flows in a second.
    pub fn set_opened(&mut self, service: u32, (second, flows): (u32, u32)) {
        self.state.opened.insert(service, (second, flows));
        self.exact.store_opened(service, (second, flows));
    }

    /// Forgets every first fragment. There are so few that none is evicted between two calls.
    pub fn forget_notes(&mut self) -> Result<()> {
        self.exact.forget_notes()?;
        self.state.notes.clear();
        Ok(())
    }

    /// Writes a word into the flow table.
    pub fn plant(&mut self, bucket: usize, place: usize, word: u64) {
        self.state.flows[bucket][place] = word;
        self.flows.store_entry(bucket, place, word);
    }

    /// Stamps a slot, named by its place in the lookup map.
    pub fn set_stamps(&mut self, slot: u32, stamps: Stamps) {
        self.state.stamps.insert(slot, stamps);
        self.flows.store_stamps(&self.state, slot);
    }

    pub fn set_load(&mut self, index: u32, load: Load) {
        self.state.loads.insert(index, load);
        self.flows.store_load(&self.state, index);
    }

    pub fn set_placed(&mut self, service: u32, placed: u64) {
        self.state.placed.insert(service, placed);
        self.flows.store_placed(&self.state, service);
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
        let every_port = services.iter().any(|service| service.port.is_none());
        self.dataplane.publish_services(&encode::entries(services), every_port)?;
        Ok(())
    }

    /// The program, for another thread to run.
    pub fn runner(&self) -> Result<Runner> {
        Ok(Runner(self.program.try_clone().context("clone the program's descriptor")?))
    }

    /// Runs the program on a frame. Nothing is compared, and the books don't know of it.
    pub fn run(&self, frame: &[u8]) -> std::io::Result<Observed> {
        let (code, frame) = sys::test_run(&self.program, frame, 0)?;
        Ok(Observed { code, frame })
    }

    /// Runs the program for health checks on a frame that leaves with a mark, and would be cut into segments of so many
    /// bytes if that is not 0.
    pub fn run_probe(&self, frame: &[u8], mark: u32, gso_size: u32) -> std::io::Result<Classified> {
        sys::classify(&self.probe, frame, mark, gso_size)
    }

    /// When that program last met one of this backend's; 0: never.
    #[must_use]
    pub fn probe_met(&self, backend: u32) -> u64 {
        self.probe_stamps.last(backend)
    }

    /// How many instructions the verifier walked to accept the program for health checks.
    pub fn verified_probe(&self) -> Result<u32> {
        Ok(sys::program_info(&self.probe)?.verified_instructions)
    }

    /// Runs the program on a frame and compares verdict, frame, counters and maps with the model's.
    pub fn check(&mut self, frame: &[u8]) -> Result<Decision> {
        let observed = self.run(frame).context("run the program")?;
        let decision = self.decision(frame)?;
        self.compare(frame, &decision, &observed)?;
        Ok(decision)
    }

    /// The same with an expectation of one's own, and metadata bytes in the frame's headroom.
    pub fn expect(&mut self, frame: &[u8], metadata: usize, decision: &Decision) -> Result<()> {
        let (code, out) = sys::test_run(&self.program, frame, metadata).context("run the program")?;
        self.compare(frame, decision, &Observed { code, frame: out })
    }

    /// The model's, with the choices that the program has made about this frame.
    fn decision(&self, frame: &[u8]) -> Result<Decision> {
        let failed = RefCell::new(None);
        let chosen = |key: &NatFlowKey| {
            if !self.side_effects {
                return Chosen::Unknown;
            }
            self.exact.chosen(key).unwrap_or_else(|error| {
                failed.replace(Some(error));
                Chosen::Nothing
            })
        };
        let first = frame.len().min(FIRST_BUFFER);
        let decision = decide_as(&self.state, Frame { bytes: frame, first }, &chosen);
        match failed.take() {
            Some(error) => Err(error.context("look up a NAT flow")),
            None => Ok(decision),
        }
    }

    fn compare(&mut self, frame: &[u8], decision: &Decision, observed: &Observed) -> Result<()> {
        let left = || {
            let looked = decision.effects.looked_at;
            let bucket = looked.map(|looked| self.state.flows[looked.bucket].map(Flow::from_word));
            let entry = decision.effects.entry.map(|(place, word)| (place, Flow::from_word(word)));
            let effects = &decision.effects;
            format!("{looked:?}\n  {bucket:?}\n  {entry:?}\n  {effects:x?}\n  frame in:\n{}", hex(frame))
        };
        if let Some(fault) = &decision.effects.fault {
            bail!("{fault}\n  {}", left());
        }
        if let Some(difference) = difference(frame, decision, observed) {
            bail!("{difference}\n  {}", left());
        }
        self.books.enter(self.state.cpu, decision);
        self.books.compare(decision).with_context(left)?;
        let none = Effects { looked_at: decision.effects.looked_at, ..Effects::default() };
        let effects = if self.side_effects { &decision.effects } else { &none };
        self.flows.compare(&self.state, effects).with_context(left)?;
        self.exact.compare(&self.state, effects).with_context(left)?;
        self.state.apply(effects);
        Ok(())
    }

    /// How program and model differ about this frame, without a look at the counters. For shrinking: the maps that
    /// packets change are set back to what the model has first.
    #[must_use]
    pub fn differs(&self, frame: &[u8]) -> Option<String> {
        self.flows.write(&self.state);
        self.exact.write(&self.state).ok()?;
        let observed = self.run(frame).ok()?;
        let decision = self.decision(frame).ok()?;
        let compared = self.flows.compare(&self.state, &decision.effects);
        let compared = compared.and_then(|()| self.exact.compare(&self.state, &decision.effects));
        let left = compared.err().filter(|_| self.side_effects).map(|error| format!("{error:#}"));
        let fault = decision.effects.fault.clone();
        difference(frame, &decision, &observed).or(fault).or(left)
    }

    /// Compares every counter there is, and all maps that packets change.
    pub fn audit(&self) -> Result<()> {
        self.books.audit(&*self.dataplane.counters())?;
        self.flows.audit(&self.state)?;
        self.exact.audit(&self.state)
    }
}

/// Runs a world's program, wherever its thread is. Its books don't know of it.
#[derive(Debug)]
pub struct Runner(OwnedFd);

impl Runner {
    pub fn run(&self, frame: &[u8]) -> std::io::Result<Observed> {
        let (code, frame) = sys::test_run(&self.0, frame, 0)?;
        Ok(Observed { code, frame })
    }
}

/// Bytes of a frame that fit a page besides the reserves that test runs keep before and behind it; what is longer is in
/// several buffers.
pub const FIRST_BUFFER: usize = 4096 - 256 - 320;
