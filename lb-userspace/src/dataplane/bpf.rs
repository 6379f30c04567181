//! The kernel's maps as a [`Dataplane`].

use std::{
    collections::HashMap,
    io, mem,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lb_common::abi::{
    BackendValue, ClockCell, ClockJump, ControlBlock, Counters, ENTRY_OCCUPIED, EgressValue, NatFlow,
    NatFlowKey, NatPool, NatReply, NatReplyKey, NextHop, OwnMacs, SOURCE_LIST_BITS, SWEPT, ServiceEntry,
    ServiceRecord, ServiceTableWord, Slot, SourceKey, SweepRequest, TrafficCounters, limits, names,
    translates,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    CounterReader, Dataplane, Error, Limits, failed,
    flow_news::FlowNews,
    in_range,
    nat::{NatCursor, NatPage},
    own_macs::{self, Layout},
    per_cpu::PerCpuMap,
    scan::Words,
    service_table,
    sources::SourcePrefix,
    sys::{self, DeviceMap, Keyed, Mapped},
    track,
};

/// The maps of a loaded program. Values are read and written in mapped memory, one atomic word at a time; only counters
/// and devices take system calls.
#[derive(Debug)]
pub struct BpfDataplane {
    limits: Limits,
    control: Map,
    service_table: Map,
    services: Map,
    lookup: Map,
    backends: Map,
    egress: Map,
    flows: Map,
    stamps: Map,
    loads: Map,
    clock: Map,
    nat_pool: Map,
    nat_cursors: Map,
    own_macs: Map,
    flow_news: FlowNews,
    nat_flows: Keyed<NatFlowKey, NatFlow>,
    nat_replies: Keyed<NatReplyKey, NatReply>,
    /// The program that takes NAT flows away.
    sweep: OwnedFd,
    sources: Keyed<LpmKey, u32>,
    /// Held open for the program alone.
    _rotation: OwnedFd,
    devices: DeviceMap,
    counters: Arc<BpfCounters>,
}

/// Counters of a loaded program, read through file descriptors of its own.
#[derive(Debug)]
struct BpfCounters {
    totals: PerCpuMap,
    services: PerCpuMap,
    backends: PerCpuMap,
}

impl BpfDataplane {
    /// Takes over the maps of [`names::PINNED_MAPS`], whose sizes and layouts are as `limits` and the ABI say: see
    /// `pins.rs`.
    pub(super) fn new(
        mut maps: HashMap<&'static str, OwnedFd>,
        sweep: OwnedFd,
        limits: Limits,
    ) -> Result<Self, Error> {
        let mut take = |name| maps.remove(name).ok_or_else(|| missing(name));
        let counters = BpfCounters {
            totals: PerCpuMap::new(names::COUNTERS, take(names::COUNTERS)?)?,
            services: PerCpuMap::new(names::SERVICE_COUNTERS, take(names::SERVICE_COUNTERS)?)?,
            backends: PerCpuMap::new(names::BACKEND_COUNTERS, take(names::BACKEND_COUNTERS)?)?,
        };
        let mut mapped = |name| Map::new(name, take(name)?);
        Ok(Self {
            limits,
            control: mapped(names::CONTROL)?,
            service_table: mapped(names::SERVICE_TABLE)?,
            services: mapped(names::SERVICES)?,
            lookup: mapped(names::LOOKUP)?,
            backends: mapped(names::BACKENDS)?,
            egress: mapped(names::EGRESS)?,
            flows: mapped(names::FLOWS)?,
            stamps: mapped(names::SLOT_STAMPS)?,
            loads: mapped(names::FLOW_LOAD)?,
            clock: mapped(names::CLOCK)?,
            nat_pool: mapped(names::NAT_POOL)?,
            nat_cursors: mapped(names::NAT_CURSORS)?,
            own_macs: mapped(names::OWN_MACS)?,
            flow_news: FlowNews::new(take(names::FLOW_NEWS)?)?,
            nat_flows: Keyed::new(take(names::NAT_FLOWS)?).map_err(failed(names::NAT_FLOWS, "describe"))?,
            nat_replies: Keyed::new(take(names::NAT_REPLIES)?)
                .map_err(failed(names::NAT_REPLIES, "describe"))?,
            sweep,
            sources: Keyed::new(take(names::SOURCES)?).map_err(failed(names::SOURCES, "describe"))?,
            _rotation: take(names::ROTATION)?,
            devices: DeviceMap::new(take(names::EGRESS_DEVICES)?)
                .map_err(failed(names::EGRESS_DEVICES, "describe"))?,
            counters: Arc::new(counters),
        })
    }

    /// Readable when flows have been confirmed that peers have to know.
    ///
    /// # Errors
    ///
    /// If there are no file descriptors left.
    pub fn flow_news(&self) -> Result<OwnedFd, Error> {
        self.flow_news.descriptor()
    }

    /// Fingerprint of the hash key that the tables are used with, 0 for none yet.
    pub(super) fn hash_key(&self) -> Result<u64, Error> {
        Ok(self.control_word(mem::offset_of!(ControlBlock, hash_key))?.load(Ordering::Acquire))
    }

    pub(super) fn store_hash_key(&self, fingerprint: u64) -> Result<(), Error> {
        self.control_word(mem::offset_of!(ControlBlock, hash_key))?.store(fingerprint, Ordering::Release);
        Ok(())
    }

    /// Has each backend's flows begin at another port of the pool. If new maps always began at the first, then after a detach and
    /// a start flows would get just the ports of which backends remember the last connection (TIME_WAIT).
    pub(super) fn scatter_nat_ports(&self) -> Result<(), Error> {
        let random = sys::random().map_err(failed(names::NAT_CURSORS, "choose first ports"))?;
        let mut first = u64::from_ne_bytes(random);
        for cursor in self.nat_cursors.all() {
            cursor.store(first, Ordering::Relaxed);
            // No two near each other: the golden ratio of all there are.
            first = first.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
        Ok(())
    }

    fn control_word(&self, offset: usize) -> Result<&AtomicU64, Error> {
        Ok(&self.control.value(0)?[offset / WORD])
    }
}

impl Dataplane for BpfDataplane {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn service_records(&self) -> Result<Vec<(u32, ServiceRecord)>, Error> {
        self.services.records()
    }

    fn backend_records(&self) -> Result<Vec<(u32, BackendValue)>, Error> {
        self.backends.records()
    }

    fn egress_records(&self) -> Result<Vec<(u32, EgressValue)>, Error> {
        self.egress.records()
    }

    fn revision(&self) -> Result<u64, Error> {
        Ok(self.control_word(mem::offset_of!(ControlBlock, revision))?.load(Ordering::Acquire))
    }

    fn write_service_record(&mut self, service: u32, record: &ServiceRecord) -> Result<(), Error> {
        sys::store(self.services.value(service)?, record);
        Ok(())
    }

    fn write_backend(&mut self, index: u32, value: &BackendValue) -> Result<(), Error> {
        sys::store(self.backends.value(index)?, value);
        Ok(())
    }

    fn update_backend_bookkeeping(&mut self, index: u32, value: &BackendValue) -> Result<(), Error> {
        let bookkeeping = mem::offset_of!(BackendValue, stable_id);
        sys::store(&self.backends.value(index)?[bookkeeping / WORD..], &value.as_bytes()[bookkeeping..]);
        Ok(())
    }

    fn store_next_hop(&mut self, index: u32, next_hop: NextHop) -> Result<(), Error> {
        let word = mem::offset_of!(BackendValue, next_hop) / WORD;
        self.backends.value(index)?[word].store(next_hop.0, Ordering::Release);
        Ok(())
    }

    fn store_backend_state(&mut self, index: u32, state: u32) -> Result<(), Error> {
        // The other half of the word is `service`, which only this thread ever writes.
        const WORD_OF_STATE: usize = mem::offset_of!(BackendValue, state) / WORD;
        const _: () = assert!(mem::offset_of!(BackendValue, service) == WORD_OF_STATE * WORD + 4);
        let word = &self.backends.value(index)?[WORD_OF_STATE];
        let service = word.load(Ordering::Relaxed) >> u32::BITS;
        word.store(u64::from(state) | (service << u32::BITS), Ordering::Release);
        Ok(())
    }

    fn store_backend_weight(&mut self, index: u32, weight: u16) -> Result<(), Error> {
        // The rest of the word is the port, which does not change, and padding.
        const WORD_OF_PORT: usize = mem::offset_of!(BackendValue, port) / WORD;
        const _: () = assert!(mem::offset_of!(BackendValue, weight) == WORD_OF_PORT * WORD + 2);
        let word = &self.backends.value(index)?[WORD_OF_PORT];
        let port = word.load(Ordering::Relaxed) & 0xffff;
        word.store(port | (u64::from(weight) << 16), Ordering::Release);
        Ok(())
    }

    fn write_egress(&mut self, number: u32, value: &EgressValue) -> Result<(), Error> {
        let entry = self.egress.value(number)?;
        in_range(names::EGRESS_DEVICES, number, self.devices.entries())?;
        // First what can fail: an interface may have gone since its index was read.
        self.devices.set(number, value.ifindex).map_err(failed(names::EGRESS_DEVICES, "update"))?;
        sys::store(entry, value);
        Ok(())
    }

    fn load_slots(&self, base: u32, count: u32) -> Result<Vec<Slot>, Error> {
        let words = self.lookup.values(base, count)?;
        Ok(words.iter().map(|word| Slot::from_word(word.load(Ordering::Acquire))).collect())
    }

    fn store_slots(&mut self, base: u32, slots: &[Slot], now: u64) -> Result<u32, Error> {
        let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        let words = self.lookup.values(base, count)?;
        let stamps = self.stamps.all();
        let mut stored = 0;
        for ((number, word), slot) in (base..).zip(words).zip(slots) {
            if word.load(Ordering::Relaxed) != slot.word() {
                if slot.is_tracked() {
                    track::stamp(stamps, number, now);
                }
                word.store(slot.word(), Ordering::Release);
                stored += 1;
            }
        }
        Ok(stored)
    }

    fn words(&self) -> Words<'_> {
        Words {
            slots: self.lookup.all(),
            stamps: self.stamps.all(),
            flows: self.flows.all(),
            loads: self.loads.all(),
        }
    }

    fn take_flow_news(&mut self) -> Vec<u32> {
        self.flow_news.take()
    }

    fn store_clock(&mut self, now: u64) {
        let cell = self.clock.all();
        if let (Some(time), Some(jump)) = (cell.first(), cell.get(CLOCK_JUMP)) {
            let after = ClockJump(jump.load(Ordering::Acquire)).after(time.load(Ordering::Acquire), now);
            jump.store(after.0, Ordering::Release);
            time.store(now, Ordering::Release);
        }
    }

    fn publish_services(&mut self, entries: &[ServiceEntry], every_port: bool) -> Result<(), Error> {
        let layout = service_table::lay_out(self.limits.services, entries)?;
        let live = self.control_word(mem::offset_of!(ControlBlock, service_table))?;
        let copy = ServiceTableWord(live.load(Ordering::Acquire)).copy() ^ 1;
        let length = limits::service_table_copy(self.limits.services);
        sys::store(self.service_table.values(copy * length, length)?, layout.entries.as_slice());
        let translates = entries.iter().any(|entry| translates(entry.forwarding));
        live.store(ServiceTableWord::new(copy, every_port, translates, layout.seed).0, Ordering::Release);
        self.quiesce();
        Ok(())
    }

    fn nat_pool(&self) -> Result<NatPool, Error> {
        let live = self.control_word(mem::offset_of!(ControlBlock, nat_pool))?.load(Ordering::Acquire);
        Ok(sys::load(self.nat_pool.value(live as u32 & 1)?))
    }

    fn publish_nat_pool(&mut self, pool: &NatPool) -> Result<(), Error> {
        let live = self.control_word(mem::offset_of!(ControlBlock, nat_pool))?;
        let other = (live.load(Ordering::Acquire) & 1) ^ 1;
        sys::store(self.nat_pool.value(other as u32)?, pool);
        live.store(other, Ordering::Release);
        self.quiesce();
        Ok(())
    }

    fn publish_own_macs(&mut self, macs: &[u64]) -> Result<(), Error> {
        let live = self.control_word(mem::offset_of!(ControlBlock, own_macs))?;
        let places = self.own_macs.all();
        let Some(Layout { seed, places: wanted }) = own_macs::lay_out(macs) else {
            live.store(OwnMacs::ANY.0, Ordering::Release);
            return Ok(());
        };
        let is_there = || places.iter().zip(wanted).all(|(place, mac)| place.load(Ordering::Relaxed) == mac);
        if live.load(Ordering::Acquire) != seed.0 || !is_there() {
            // A packet that began with one seed must not meet places of another.
            live.store(OwnMacs::ANY.0, Ordering::Release);
            sys::synchronize();
            sys::store(places, &wanted);
            live.store(seed.0, Ordering::Release);
        }
        Ok(())
    }

    fn nat_flows(&self, cursor: NatCursor, count: u32) -> Result<NatPage<NatFlowKey, NatFlow>, Error> {
        page(names::NAT_FLOWS, &self.nat_flows, cursor, count)
    }

    fn nat_replies(&self, cursor: NatCursor, count: u32) -> Result<NatPage<NatReplyKey, NatReply>, Error> {
        page(names::NAT_REPLIES, &self.nat_replies, cursor, count)
    }

    fn nat_flow(&self, key: &NatFlowKey) -> Result<Option<NatFlow>, Error> {
        self.nat_flows.lookup(key).map_err(failed(names::NAT_FLOWS, "lookup"))
    }

    fn nat_reply(&self, key: &NatReplyKey) -> Result<Option<NatReply>, Error> {
        self.nat_replies.lookup(key).map_err(failed(names::NAT_REPLIES, "lookup"))
    }

    fn sweep(&mut self, request: &SweepRequest) -> Result<bool, Error> {
        let mut frame = [0; SWEEP_FRAME];
        for (to, from) in frame.iter_mut().zip(request.as_bytes()) {
            *to = *from;
        }
        let code = sys::run_program(self.sweep.as_fd(), &frame);
        Ok(code.map_err(|source| Error::Program { program: names::PROGRAM_SWEEP, source })? == SWEPT)
    }

    fn sources(&self) -> Result<Vec<(u32, SourcePrefix, u32)>, Error> {
        let mut sources = Vec::new();
        let mut at: Option<LpmKey> = None;
        while let Some(key) = self.sources.next(at.as_ref()).map_err(failed(names::SOURCES, "walk"))? {
            let verdict = self.sources.lookup(&key).map_err(failed(names::SOURCES, "lookup"))?;
            let (list, prefix) = key.prefix();
            sources.extend(verdict.map(|verdict| (list, prefix, verdict)));
            at = Some(key);
        }
        Ok(sources)
    }

    fn live_services(&self) -> Result<Vec<ServiceEntry>, Error> {
        let live = self.control_word(mem::offset_of!(ControlBlock, service_table))?;
        let copy = ServiceTableWord(live.load(Ordering::Acquire)).copy();
        let length = limits::service_table_copy(self.limits.services);
        let words = self.service_table.values(copy * length, length)?;
        let entries = words.chunks_exact(size_of::<ServiceEntry>() / WORD).map(sys::load::<ServiceEntry>);
        Ok(entries.filter(|entry| entry.flags & ENTRY_OCCUPIED != 0).collect())
    }

    fn write_source(&mut self, list: u32, prefix: SourcePrefix, verdict: u32) -> Result<(), Error> {
        let key = LpmKey::new(list, prefix);
        self.sources.update(&key, &verdict).map_err(failed(names::SOURCES, "update"))
    }

    fn remove_source(&mut self, list: u32, prefix: SourcePrefix) -> Result<(), Error> {
        let key = LpmKey::new(list, prefix);
        self.sources.remove(&key).map(drop).map_err(failed(names::SOURCES, "delete"))
    }

    fn store_revision(&mut self, revision: u64) -> Result<(), Error> {
        self.control_word(mem::offset_of!(ControlBlock, revision))?.store(revision, Ordering::Release);
        Ok(())
    }

    fn clear_service_counters(&mut self, service: u32) -> Result<(), Error> {
        self.counters.services.clear(service)
    }

    fn clear_backend_counters(&mut self, index: u32) -> Result<(), Error> {
        self.counters.backends.clear(index)
    }

    fn quiesce(&mut self) {
        sys::synchronize();
    }

    fn counters(&self) -> Arc<dyn CounterReader> {
        self.counters.clone()
    }
}

impl CounterReader for BpfCounters {
    fn totals(&self) -> Result<Counters, Error> {
        self.totals.sum(0)
    }

    fn service(&self, service: u32) -> Result<TrafficCounters, Error> {
        self.services.sum(service)
    }

    fn backend(&self, index: u32) -> Result<TrafficCounters, Error> {
        self.backends.sum(index)
    }

    fn services(&self, services: &[u32]) -> Result<Vec<TrafficCounters>, Error> {
        self.services.sums(services)
    }

    fn backends(&self, indexes: &[u32]) -> Result<Vec<TrafficCounters>, Error> {
        self.backends.sums(indexes)
    }
}

/// `struct bpf_lpm_trie_key` with the data of `SOURCES`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct LpmKey {
    /// Bits of `data` that count.
    length: u32,
    data: SourceKey,
}

impl LpmKey {
    fn new(list: u32, prefix: SourcePrefix) -> Self {
        let data = SourceKey { list: list.to_ne_bytes(), address: prefix.address };
        Self { length: SOURCE_LIST_BITS + u32::from(prefix.length), data }
    }

    fn prefix(&self) -> (u32, SourcePrefix) {
        let length = u8::try_from(self.length.saturating_sub(SOURCE_LIST_BITS)).unwrap_or(u8::MAX);
        (u32::from_ne_bytes(self.data.list), SourcePrefix { address: self.data.address, length })
    }
}

/// A mapped array that knows its name.
#[derive(Debug)]
struct Map {
    name: &'static str,
    mapped: Mapped,
}

impl Map {
    fn new(name: &'static str, map: OwnedFd) -> Result<Self, Error> {
        let mapped = Mapped::new(map.as_fd()).map_err(failed(name, "mmap"))?;
        Ok(Self { name, mapped })
    }

    fn value(&self, index: u32) -> Result<&[AtomicU64], Error> {
        self.values(index, 1)
    }

    /// The words of all values.
    fn all(&self) -> &[AtomicU64] {
        self.mapped.values(0, self.mapped.entries()).unwrap_or_default()
    }

    fn values(&self, first: u32, count: u32) -> Result<&[AtomicU64], Error> {
        let outside = |index| Error::OutOfRange { map: self.name, index, entries: self.mapped.entries() };
        self.mapped.values(first, count).ok_or_else(|| outside(first.saturating_add(count.saturating_sub(1))))
    }

    /// Every value that was ever written.
    fn records<T: FromBytes + IntoBytes + Immutable>(&self) -> Result<Vec<(u32, T)>, Error> {
        let mut records = Vec::new();
        for index in 0..self.mapped.entries() {
            let words = self.value(index)?;
            if words.iter().any(|word| word.load(Ordering::Relaxed) != 0) {
                records.push((index, sys::load(words)));
            }
        }
        Ok(records)
    }
}

fn page<K, V>(
    name: &'static str,
    map: &Keyed<K, V>,
    cursor: NatCursor,
    count: u32,
) -> Result<NatPage<K, V>, Error>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    let page = map.page(cursor.0, count).map_err(failed(name, "walk"))?;
    Ok(NatPage { entries: page.entries, next: page.next.map(|bucket| NatCursor(Some(bucket))) })
}

fn missing(map: &'static str) -> Error {
    failed(map, "open")(io::Error::new(io::ErrorKind::NotFound, "the loaded object has no such map"))
}

/// No kernel runs an XDP program on less.
const SWEEP_FRAME: usize = 128;

const WORD: usize = size_of::<u64>();

/// Where it stands among the words of the clock's cell.
const CLOCK_JUMP: usize = mem::offset_of!(ClockCell, jump) / WORD;
