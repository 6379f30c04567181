//! The only place that touches BPF maps and programs from userspace.

mod allocate;
mod attach;
pub mod bpf;
mod bpffs;
mod capture;
pub mod desired;
pub mod encode;
mod fake;
mod faulty;
mod flow_news;
pub mod inspect;
mod key;
pub mod loader;
mod maps;
pub mod nat;
mod own_macs;
mod per_cpu;
mod pins;
pub mod probe_filter;
pub mod probe_stamps;
pub mod reconcile;
pub mod replicate;
pub mod scan;
mod service_table;
pub mod sources;
mod sys;
mod tc;
mod tracer;
pub mod track;
mod xdp_query;

use std::{io, sync::Arc};

use lb_common::abi::{
    BackendValue, Counters, EgressValue, NatFlow, NatFlowKey, NatPool, NatReply, NatReplyKey, NextHop,
    ServiceEntry, ServiceRecord, Slot, SweepRequest, TrafficCounters,
};

use nat::{NatCursor, NatPage};
use scan::Words;
use sources::SourcePrefix;

pub use capture::{CaptureLoader, CaptureProgram, Captured};
pub use fake::{Fake, Operation};
pub use faulty::Faulty;
pub(crate) use key::key_bytes;
pub use key::{KeyFingerprint, load_key};
pub use service_table::Error as ServiceTableError;
pub use tracer::{Traced, Tracer};

/// A number that nobody can guess.
///
/// # Errors
///
/// If the kernel gives none.
pub fn random_number() -> io::Result<u64> {
    sys::random().map(u64::from_ne_bytes)
}

/// Sizes of the maps, fixed when they are made (`[limits]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub services: u32,
    pub backends: u32,
    pub lookup_slots: u32,
    /// A power of two.
    pub flow_entries: u32,
    /// Flows through `dnat` and `nat`.
    pub nat_flows: u32,
    /// Source prefixes of all services.
    pub source_prefixes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            services: 1024,
            backends: 16_384,
            lookup_slots: 4 << 20,
            flow_entries: 1 << 20,
            nat_flows: 128 << 10,
            source_prefixes: 64 << 10,
        }
    }
}

/// What went wrong with a map or a program. Whose fault: the environment's, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("map {map}: {operation} failed: {source}")]
    Map { map: &'static str, operation: &'static str, source: std::io::Error },
    #[error("map {map}: index {index} is outside its {entries} entries")]
    OutOfRange { map: &'static str, index: u32, entries: u32 },
    #[error("program {program}: a run failed: {source}")]
    Program { program: &'static str, source: std::io::Error },
    #[error(transparent)]
    ServiceTable(#[from] ServiceTableError),
}

fn failed(map: &'static str, operation: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Map { map, operation, source }
}

fn in_range(map: &'static str, index: u32, entries: u32) -> Result<(), Error> {
    if index < entries { Ok(()) } else { Err(Error::OutOfRange { map, index, entries }) }
}

/// The maps, as narrow as the reconciler needs them. One implementation is the kernel's, the others are for tests.
///
/// Writes of records and slots are visible to the data plane at once, one word at a time; the order in which they are
/// made is the reconciler's business.
pub trait Dataplane: Send {
    fn limits(&self) -> Limits;

    /// Everything a starting controller goes on from.
    fn service_records(&self) -> Result<Vec<(u32, ServiceRecord)>, Error>;
    fn backend_records(&self) -> Result<Vec<(u32, BackendValue)>, Error>;
    fn egress_records(&self) -> Result<Vec<(u32, EgressValue)>, Error>;
    fn revision(&self) -> Result<u64, Error>;

    fn write_service_record(&mut self, service: u32, record: &ServiceRecord) -> Result<(), Error>;
    /// Writes a whole record; only for an index that no slot names.
    fn write_backend(&mut self, index: u32, value: &BackendValue) -> Result<(), Error>;
    /// Writes the second line (health, administrator's state, deadlines, weight) of a live record.
    fn update_backend_bookkeeping(&mut self, index: u32, value: &BackendValue) -> Result<(), Error>;
    /// Atomically replaces one word of a live record.
    fn store_next_hop(&mut self, index: u32, next_hop: NextHop) -> Result<(), Error>;
    fn store_backend_state(&mut self, index: u32, state: u32) -> Result<(), Error>;
    fn store_backend_weight(&mut self, index: u32, weight: u16) -> Result<(), Error>;
    /// Writes an egress entry and its device-map entry; only for a number that no next hop names.
    fn write_egress(&mut self, number: u32, value: &EgressValue) -> Result<(), Error>;

    fn load_slots(&self, base: u32, count: u32) -> Result<Vec<Slot>, Error>;
    /// Stores each slot that differs from what is there, each as one atomic word; returns how many differed. The stamps
    /// of one that will be tracked become `now`, in coarse time, first.
    fn store_slots(&mut self, base: u32, slots: &[Slot], now: u64) -> Result<u32, Error>;
    /// What the scan works on.
    fn words(&self) -> Words<'_>;
    /// Buckets of the flow table in which flows have been confirmed that peers have to know, since this was asked last. Some may be
    /// missing.
    fn take_flow_news(&mut self) -> Vec<u32>;
    /// Tells the data plane what time it is, in coarse time.
    fn store_clock(&mut self, now: u64);

    /// Builds the inactive copy of the service table from these entries and makes it live by one word. When it
    /// returns, no packet is being looked up in the old copy any more.
    fn publish_services(&mut self, entries: &[ServiceEntry], every_port: bool) -> Result<(), Error>;
    /// The addresses and ports of NAT that are live.
    fn nat_pool(&self) -> Result<NatPool, Error>;
    /// Makes others live by one word. When it returns, no packet goes by the old ones any more.
    fn publish_nat_pool(&mut self, pool: &NatPool) -> Result<(), Error>;
    /// Has only frames for these MAC addresses looked at, each as `lb_common::abi::mac_word` makes it; for any where there are
    /// none, or more than `MAX_OWN_MACS`. On the way from some to others, frames for any are looked at.
    fn publish_own_macs(&mut self, macs: &[u64]) -> Result<(), Error>;
    /// Some `count` NAT flows from `cursor` on. A pass over all pages meets each flow once that is there all the time.
    fn nat_flows(&self, cursor: NatCursor, count: u32) -> Result<NatPage<NatFlowKey, NatFlow>, Error>;
    fn nat_flow(&self, key: &NatFlowKey) -> Result<Option<NatFlow>, Error>;
    /// Likewise what is kept of their backends' sides.
    fn nat_replies(&self, cursor: NatCursor, count: u32) -> Result<NatPage<NatReplyKey, NatReply>, Error>;
    fn nat_reply(&self, key: &NatReplyKey) -> Result<Option<NatReply>, Error>;
    /// Has the data plane take a flow away if it is over, or in any case, or what is left of one. Says whether it is gone.
    fn sweep(&mut self, request: &SweepRequest) -> Result<bool, Error>;
    /// All source prefixes: number of the list, prefix, `SOURCE_*`.
    fn sources(&self) -> Result<Vec<(u32, SourcePrefix, u32)>, Error>;
    /// What packets are looked up in.
    fn live_services(&self) -> Result<Vec<ServiceEntry>, Error>;
    /// Writes a prefix of a list; only of one that the live service table does not name.
    fn write_source(&mut self, list: u32, prefix: SourcePrefix, verdict: u32) -> Result<(), Error>;
    /// Removes a prefix, likewise. One that is not there is removed already.
    fn remove_source(&mut self, list: u32, prefix: SourcePrefix) -> Result<(), Error>;
    fn store_revision(&mut self, revision: u64) -> Result<(), Error>;
    /// Sets counters to zero before a number is given to another object.
    fn clear_service_counters(&mut self, service: u32) -> Result<(), Error>;
    fn clear_backend_counters(&mut self, index: u32) -> Result<(), Error>;
    /// Returns once no packet that was under way when it was called is still being handled.
    fn quiesce(&mut self);

    /// Counters can be read by anyone at any time.
    fn counters(&self) -> Arc<dyn CounterReader>;
}

/// Sums of the per-CPU counters, read at the moment of asking.
pub trait CounterReader: Send + Sync {
    fn totals(&self) -> Result<Counters, Error>;
    fn service(&self, service: u32) -> Result<TrafficCounters, Error>;
    fn backend(&self, index: u32) -> Result<TrafficCounters, Error>;

    /// Those of each of these services, in their order; cheaper than one after the other.
    fn services(&self, services: &[u32]) -> Result<Vec<TrafficCounters>, Error> {
        services.iter().map(|service| self.service(*service)).collect()
    }

    /// Likewise of backends.
    fn backends(&self, indexes: &[u32]) -> Result<Vec<TrafficCounters>, Error> {
        indexes.iter().map(|index| self.backend(*index)).collect()
    }
}
