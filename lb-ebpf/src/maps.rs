//! Every map. The loader sets sizes that the configuration decides; the numbers here are only placeholders.
//!
//! Maps that the controller writes are mmapable: it publishes by plain stores, without a system call a slot.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, DevMap, PerCpuArray},
};
use lb_common::abi::{
    BackendValue, ClockCell, ControlBlock, Counters, EgressValue, FlowBucket, FlowLoad, Rotation,
    ServiceEntry, ServiceRecord, SlotStampPair, TrafficCounters, limits::EGRESS_ENTRIES,
};

/// What is live. One entry.
#[map]
pub static CONTROL: Array<ControlBlock> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Two copies of the open-addressed service table.
#[map]
pub static SERVICE_TABLE: Array<ServiceEntry> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The controller's records of services; the data plane does not read them.
#[map]
pub static SERVICES: Array<ServiceRecord> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// All lookup tables, a region a service.
#[map]
pub static LOOKUP: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub static BACKENDS: Array<BackendValue> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub static EGRESS: Array<EgressValue> = Array::with_max_entries(EGRESS_ENTRIES, BPF_F_MMAPABLE);

/// Interfaces of `EGRESS`, as the redirect helper needs them.
#[map]
pub static EGRESS_DEVICES: DevMap = DevMap::with_max_entries(EGRESS_ENTRIES, 0);

/// Where tracked flows go.
#[map]
pub static FLOWS: Array<FlowBucket> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What the controller has to know of slots before it may untrack them; two slots an entry.
#[map]
pub static SLOT_STAMPS: Array<SlotStampPair> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Live flows by backend, for least-connections.
#[map]
pub static FLOW_LOAD: Array<FlowLoad> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Whose turn it is, by service, for round-robin.
#[map]
pub static ROTATION: Array<Rotation> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What time it is.
#[map]
pub static CLOCK: Array<ClockCell> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub static SERVICE_COUNTERS: PerCpuArray<TrafficCounters> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub static BACKEND_COUNTERS: PerCpuArray<TrafficCounters> = PerCpuArray::with_max_entries(1, 0);
