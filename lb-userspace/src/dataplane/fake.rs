//! A data plane in memory, for tests.

mod nat;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use lb_common::abi::{
    BackendValue, Counters, EgressValue, NatFlow, NatFlowKey, NatPool, NatReply, NatReplyKey, NextHop,
    ServiceEntry, ServiceRecord, Slot, SweepRequest, TrafficCounters,
    limits::{EGRESS_ENTRIES, slot_stamp_entries},
};

use zerocopy::FromZeros as _;

use super::{
    CounterReader, Dataplane, Error, Limits,
    nat::{NatCursor, NatPage},
    scan::Words,
    service_table,
    sources::SourcePrefix,
    track,
};

/// Maps in memory. Clones are handles to the same maps, so a test can look at what it gave away, and a second
/// controller can go on from it.
///
/// It holds its caller to the contract: a whole record is only written while nothing refers to it. A breach panics.
#[derive(Clone, Debug)]
pub struct Fake {
    limits: Limits,
    maps: Arc<Mutex<Maps>>,
    memory: Arc<Memory>,
}

/// What the data plane and the controller write at the same time.
#[derive(Debug)]
struct Memory {
    slots: Box<[AtomicU64]>,
    stamps: Box<[AtomicU64]>,
    flows: Box<[AtomicU64]>,
    loads: Box<[AtomicU64]>,
    clock: AtomicU64,
}

impl Memory {
    fn new(limits: Limits) -> Self {
        let zeros = |words: u32| (0..words).map(|_| AtomicU64::new(0)).collect();
        Self {
            slots: zeros(limits.lookup_slots),
            stamps: zeros(slot_stamp_entries(limits.lookup_slots)),
            flows: zeros(limits.flow_entries),
            loads: zeros(limits.backends * 2),
            clock: AtomicU64::new(0),
        }
    }
}

/// A write, in the order in which they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    WriteServiceRecord(u32, ServiceRecord),
    WriteBackend(u32, BackendValue),
    UpdateBackendBookkeeping(u32, BackendValue),
    StoreNextHop(u32, NextHop),
    StoreBackendState(u32, u32),
    StoreBackendWeight(u32, u16),
    WriteEgress(u32, EgressValue),
    /// Base, number of slots, how many differed.
    StoreSlots(u32, u32, u32),
    /// In the order given, and whether any service has every port.
    PublishServices(Vec<ServiceEntry>, bool),
    PublishNatPool(NatPool),
    PublishOwnMacs(Vec<u64>),
    WriteSource(u32, SourcePrefix, u32),
    RemoveSource(u32, SourcePrefix),
    /// The flow, and whether it is gone.
    Sweep(NatFlowKey, bool),
    StoreRevision(u64),
    ClearServiceCounters(u32),
    ClearBackendCounters(u32),
    Quiesce,
}

#[derive(Debug, Default)]
struct Maps {
    services: BTreeMap<u32, ServiceRecord>,
    backends: BTreeMap<u32, BackendValue>,
    egress: BTreeMap<u32, EgressValue>,
    published: Vec<ServiceEntry>,
    every_port: bool,
    nat_pool: NatPool,
    own_macs: Vec<u64>,
    sources: BTreeMap<(u32, SourcePrefix), u32>,
    nat: nat::NatMaps,
    revision: u64,
    /// `None`: all zero.
    totals: Option<Counters>,
    service_counters: BTreeMap<u32, TrafficCounters>,
    backend_counters: BTreeMap<u32, TrafficCounters>,
    operations: Vec<Operation>,
}

impl Maps {
    fn expect_unnamed(&self, list: u32) {
        let named_by = self.published.iter().find(|entry| entry.source_list == list);
        assert_eq!(named_by, None, "source list {list} was changed while this service has it");
    }
}

impl Fake {
    pub fn new(limits: Limits) -> Self {
        Self { limits, maps: Arc::default(), memory: Arc::new(Memory::new(limits)) }
    }

    /// The writes so far, or since [`Self::clear_log`].
    pub fn operations(&self) -> Vec<Operation> {
        self.maps().operations.clone()
    }

    pub fn clear_log(&self) {
        self.maps().operations.clear();
    }

    /// How many slots were given another word since [`Self::clear_log`].
    pub fn slots_changed(&self) -> u32 {
        let maps = self.maps();
        let changes = maps.operations.iter().map(|operation| match operation {
            Operation::StoreSlots(_, _, differed) => *differed,
            _ => 0,
        });
        changes.sum()
    }

    /// The live service table, and whether any service has every port.
    pub fn published(&self) -> (Vec<ServiceEntry>, bool) {
        let maps = self.maps();
        (maps.published.clone(), maps.every_port)
    }

    /// The live entry with this key.
    pub fn service_entry(&self, key: &lb_common::abi::ServiceKey) -> Option<ServiceEntry> {
        self.maps().published.iter().find(|entry| entry.key == *key).copied()
    }

    /// Addresses of frames that are looked at, as the data plane has them; empty for any.
    pub fn own_macs(&self) -> Vec<u64> {
        self.maps().own_macs.clone()
    }

    pub fn backend(&self, index: u32) -> BackendValue {
        self.maps().backends.get(&index).copied().unwrap_or_default()
    }

    pub fn egress(&self, number: u32) -> EgressValue {
        self.maps().egress.get(&number).copied().unwrap_or_default()
    }

    /// What became of a packet of a service with this list from this address: `SOURCE_*`, or `None` where no prefix
    /// covers it.
    pub fn source_verdict(&self, list: u32, address: [u8; 16]) -> Option<u32> {
        let maps = self.maps();
        let covers = |prefix: &SourcePrefix| {
            let shift = 128 - u32::from(prefix.length);
            let network = |bytes| u128::from_be_bytes(bytes).checked_shr(shift).unwrap_or(0);
            network(prefix.address) == network(address)
        };
        let covering = maps.sources.iter().filter(|((of, prefix), _)| *of == list && covers(prefix));
        covering.max_by_key(|((_, prefix), _)| prefix.length).map(|(_, verdict)| *verdict)
    }

    pub fn slot(&self, slot: u32) -> Slot {
        self.memory.slots.get(slot as usize).map_or(Slot::default(), load_slot)
    }

    /// What time the data plane was told it is.
    pub fn clock(&self) -> u64 {
        self.memory.clock.load(Ordering::Relaxed)
    }

    /// Plays the data plane.
    pub fn set_totals(&self, totals: Counters) {
        self.maps().totals = Some(totals);
    }

    pub fn set_service_counters(&self, service: u32, counters: TrafficCounters) {
        self.maps().service_counters.insert(service, counters);
    }

    pub fn set_backend_counters(&self, index: u32, counters: TrafficCounters) {
        self.maps().backend_counters.insert(index, counters);
    }

    /// A test that panicked elsewhere has its own message.
    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, operation: Operation) -> MutexGuard<'_, Maps> {
        let mut maps = self.maps();
        maps.operations.push(operation);
        maps
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Dataplane for Fake {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn service_records(&self) -> Result<Vec<(u32, ServiceRecord)>, Error> {
        Ok(written(&self.maps().services))
    }

    fn backend_records(&self) -> Result<Vec<(u32, BackendValue)>, Error> {
        Ok(written(&self.maps().backends))
    }

    fn egress_records(&self) -> Result<Vec<(u32, EgressValue)>, Error> {
        Ok(written(&self.maps().egress))
    }

    fn revision(&self) -> Result<u64, Error> {
        Ok(self.maps().revision)
    }

    fn write_service_record(&mut self, service: u32, record: &ServiceRecord) -> Result<(), Error> {
        in_range("SERVICES", service, 1, self.limits.services)?;
        self.write(Operation::WriteServiceRecord(service, *record)).services.insert(service, *record);
        Ok(())
    }

    fn write_backend(&mut self, index: u32, value: &BackendValue) -> Result<(), Error> {
        in_range("BACKENDS", index, 1, self.limits.backends)?;
        let mut maps = self.write(Operation::WriteBackend(index, *value));
        let slots = self.memory.slots.iter().map(load_slot);
        let named_by =
            slots.enumerate().find(|(_, slot)| slot.current() == index || slot.previous() == index);
        let named_by = named_by.map(|(number, _)| number);
        assert_eq!(named_by, None, "backend {index} was rewritten while this slot names it");
        maps.backends.insert(index, *value);
        Ok(())
    }

    fn update_backend_bookkeeping(&mut self, index: u32, value: &BackendValue) -> Result<(), Error> {
        in_range("BACKENDS", index, 1, self.limits.backends)?;
        let mut maps = self.write(Operation::UpdateBackendBookkeeping(index, *value));
        let record = maps.backends.entry(index).or_default();
        let BackendValue { next_hop, address, state, service, port, weight, _padding, .. } = *record;
        *record = BackendValue { next_hop, address, state, service, port, weight, _padding, ..*value };
        Ok(())
    }

    fn store_next_hop(&mut self, index: u32, next_hop: NextHop) -> Result<(), Error> {
        in_range("BACKENDS", index, 1, self.limits.backends)?;
        self.write(Operation::StoreNextHop(index, next_hop)).backends.entry(index).or_default().next_hop =
            next_hop.0;
        Ok(())
    }

    fn store_backend_state(&mut self, index: u32, state: u32) -> Result<(), Error> {
        in_range("BACKENDS", index, 1, self.limits.backends)?;
        self.write(Operation::StoreBackendState(index, state)).backends.entry(index).or_default().state =
            state;
        Ok(())
    }

    fn store_backend_weight(&mut self, index: u32, weight: u16) -> Result<(), Error> {
        in_range("BACKENDS", index, 1, self.limits.backends)?;
        self.write(Operation::StoreBackendWeight(index, weight)).backends.entry(index).or_default().weight =
            weight;
        Ok(())
    }

    fn write_egress(&mut self, number: u32, value: &EgressValue) -> Result<(), Error> {
        in_range("EGRESS", number, 1, EGRESS_ENTRIES)?;
        let mut maps = self.write(Operation::WriteEgress(number, *value));
        let named_by = maps.backends.iter().find(|(_, backend)| NextHop(backend.next_hop).egress() == number);
        // The same again harms nobody.
        let another = maps.egress.get(&number) != Some(value);
        let named_by = named_by.map(|(index, _)| *index).filter(|_| number != 0 && another);
        assert_eq!(named_by, None, "egress {number} was rewritten while this backend's next hop names it");
        maps.egress.insert(number, *value);
        Ok(())
    }

    fn load_slots(&self, base: u32, count: u32) -> Result<Vec<Slot>, Error> {
        in_range("LOOKUP", base, count, self.limits.lookup_slots)?;
        Ok((base..base + count).map(|slot| self.slot(slot)).collect())
    }

    fn store_slots(&mut self, base: u32, slots: &[Slot], now: u64) -> Result<u32, Error> {
        let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        in_range("LOOKUP", base, count, self.limits.lookup_slots)?;
        let mut maps = self.maps();
        let mut differed = 0;
        for ((number, word), slot) in (base..).zip(self.memory.slots.iter().skip(base as usize)).zip(slots) {
            if load_slot(word) != *slot {
                if slot.is_tracked() {
                    track::stamp(&self.memory.stamps, number, now);
                }
                word.store(slot.word(), Ordering::Relaxed);
                differed += 1;
            }
        }
        maps.operations.push(Operation::StoreSlots(base, count, differed));
        Ok(differed)
    }

    fn words(&self) -> Words<'_> {
        let Memory { slots, stamps, flows, loads, .. } = &*self.memory;
        Words { slots, stamps, flows, loads }
    }

    fn take_flow_news(&mut self) -> Vec<u32> {
        Vec::new()
    }

    fn store_clock(&mut self, now: u64) {
        self.memory.clock.store(now, Ordering::Relaxed);
    }

    fn publish_services(&mut self, entries: &[ServiceEntry], every_port: bool) -> Result<(), Error> {
        service_table::lay_out(self.limits.services, entries)?;
        let mut maps = self.write(Operation::PublishServices(entries.to_vec(), every_port));
        maps.published = entries.to_vec();
        maps.every_port = every_port;
        Ok(())
    }

    fn nat_pool(&self) -> Result<NatPool, Error> {
        Ok(self.maps().nat_pool)
    }

    fn publish_nat_pool(&mut self, pool: &NatPool) -> Result<(), Error> {
        self.write(Operation::PublishNatPool(*pool)).nat_pool = *pool;
        Ok(())
    }

    fn publish_own_macs(&mut self, macs: &[u64]) -> Result<(), Error> {
        self.write(Operation::PublishOwnMacs(macs.to_vec())).own_macs = macs.to_vec();
        Ok(())
    }

    fn nat_flows(&self, cursor: NatCursor, count: u32) -> Result<NatPage<NatFlowKey, NatFlow>, Error> {
        Ok(self.maps().nat.flows(cursor, count))
    }

    fn nat_replies(&self, cursor: NatCursor, count: u32) -> Result<NatPage<NatReplyKey, NatReply>, Error> {
        Ok(self.maps().nat.replies(cursor, count))
    }

    fn nat_flow(&self, key: &NatFlowKey) -> Result<Option<NatFlow>, Error> {
        Ok(self.maps().nat.flow(key))
    }

    fn nat_reply(&self, key: &NatReplyKey) -> Result<Option<NatReply>, Error> {
        Ok(self.maps().nat.reply(key))
    }

    fn sweep(&mut self, request: &SweepRequest) -> Result<bool, Error> {
        let gone = self.maps().sweep(request, self.clock());
        drop(self.write(Operation::Sweep(request.flow, gone)));
        Ok(gone)
    }

    fn sources(&self) -> Result<Vec<(u32, SourcePrefix, u32)>, Error> {
        let maps = self.maps();
        Ok(maps.sources.iter().map(|((list, prefix), verdict)| (*list, *prefix, *verdict)).collect())
    }

    fn live_services(&self) -> Result<Vec<ServiceEntry>, Error> {
        Ok(self.maps().published.clone())
    }

    fn write_source(&mut self, list: u32, prefix: SourcePrefix, verdict: u32) -> Result<(), Error> {
        let mut maps = self.write(Operation::WriteSource(list, prefix, verdict));
        maps.expect_unnamed(list);
        let room = maps.sources.len() < self.limits.source_prefixes as usize;
        assert!(room || maps.sources.contains_key(&(list, prefix)), "the trie is full");
        maps.sources.insert((list, prefix), verdict);
        Ok(())
    }

    fn remove_source(&mut self, list: u32, prefix: SourcePrefix) -> Result<(), Error> {
        let mut maps = self.write(Operation::RemoveSource(list, prefix));
        maps.expect_unnamed(list);
        maps.sources.remove(&(list, prefix));
        Ok(())
    }

    fn store_revision(&mut self, revision: u64) -> Result<(), Error> {
        self.write(Operation::StoreRevision(revision)).revision = revision;
        Ok(())
    }

    fn clear_service_counters(&mut self, service: u32) -> Result<(), Error> {
        in_range("SERVICE_COUNTERS", service, 1, self.limits.services)?;
        self.write(Operation::ClearServiceCounters(service)).service_counters.remove(&service);
        Ok(())
    }

    fn clear_backend_counters(&mut self, index: u32) -> Result<(), Error> {
        in_range("BACKEND_COUNTERS", index, 1, self.limits.backends)?;
        self.write(Operation::ClearBackendCounters(index)).backend_counters.remove(&index);
        Ok(())
    }

    fn quiesce(&mut self) {
        drop(self.write(Operation::Quiesce));
    }

    fn counters(&self) -> Arc<dyn CounterReader> {
        Arc::new(self.clone())
    }
}

impl CounterReader for Fake {
    fn totals(&self) -> Result<Counters, Error> {
        Ok(self.maps().totals.unwrap_or(Counters::new_zeroed()))
    }

    fn service(&self, service: u32) -> Result<TrafficCounters, Error> {
        in_range("SERVICE_COUNTERS", service, 1, self.limits.services)?;
        Ok(self.maps().service_counters.get(&service).copied().unwrap_or_default())
    }

    fn backend(&self, index: u32) -> Result<TrafficCounters, Error> {
        in_range("BACKEND_COUNTERS", index, 1, self.limits.backends)?;
        Ok(self.maps().backend_counters.get(&index).copied().unwrap_or_default())
    }
}

/// As the kernel's maps do it: an entry of zeros is one that was never written.
fn written<T: Copy + Default + PartialEq>(map: &BTreeMap<u32, T>) -> Vec<(u32, T)> {
    map.iter().filter(|(_, value)| **value != T::default()).map(|(index, value)| (*index, *value)).collect()
}

fn load_slot(word: &AtomicU64) -> Slot {
    Slot::from_word(word.load(Ordering::Relaxed))
}

fn in_range(map: &'static str, first: u32, count: u32, entries: u32) -> Result<(), Error> {
    let last = first.saturating_add(count.saturating_sub(1));
    if u64::from(first) + u64::from(count) <= u64::from(entries) {
        Ok(())
    } else {
        Err(Error::OutOfRange { map, index: last, entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_sees_the_same_maps_and_slots_that_changed_are_counted() {
        let mut fake = Fake::default();
        let other = fake.clone();
        assert_eq!(fake.store_slots(10, &[Slot::steady(1), Slot::steady(2)], 0).expect("in range"), 2);
        assert_eq!(fake.store_slots(10, &[Slot::steady(1), Slot::steady(0)], 0).expect("in range"), 1);
        assert_eq!(other.load_slots(10, 2).expect("in range"), [Slot::steady(1), Slot::steady(0)]);
        assert_eq!(other.slots_changed(), 3);
        let limit = Limits::default().lookup_slots;
        assert!(matches!(fake.store_slots(limit, &[Slot::steady(1)], 0), Err(Error::OutOfRange { .. })));
    }

    #[test]
    #[should_panic = "backend 7 was rewritten"]
    fn rewriting_a_backend_that_a_slot_names_is_a_breach() {
        let mut fake = Fake::default();
        fake.store_slots(0, &[Slot::steady(7)], 0).expect("in range");
        let _ = fake.write_backend(7, &BackendValue::default());
    }
}
