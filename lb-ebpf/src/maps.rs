//! Every map. The loader sets sizes that the configuration decides; the numbers here are only placeholders.
//!
//! Maps that the controller writes are mmapable: it publishes by plain stores, without a system call a slot.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, DevMap, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use lb_common::abi::{
    BackendValue, CaptureCounters, CaptureRate, CaptureScratch, CaptureSettings, ClockCell, ControlBlock,
    Counters, EgressValue, FRAGMENT_ENTRIES, FlowBucket, FlowLoad, FragmentFate, FragmentKey, IcmpBudget,
    NatFlow, NatFlowKey, NatPool, NatReply, NatReplyKey, NewFlows, OWN_MAC_PLACES, Rotation, ServiceEntry,
    ServiceRecord, SlotStampPair, SourceKey, Trace, TrafficCounters,
    limits::{EGRESS_ENTRIES, FLOW_NEWS_BYTES},
};

use crate::{
    icmp::{Draft, quoted::Quoted},
    journey::Journey,
    nat::Scratch,
};

/// What is live. One entry.
#[map]
pub static CONTROL: Array<ControlBlock> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Two copies of the open-addressed service table.
#[map]
pub static SERVICE_TABLE: Array<ServiceEntry> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The controller's records of services, of which the data plane reads how long the flows of another service live.
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

/// NAT flows as their clients know them.
#[map]
pub static NAT_FLOWS: HashMap<NatFlowKey, NatFlow> = HashMap::with_max_entries(1, 0);

/// NAT flows as their backends know them.
#[map]
pub static NAT_REPLIES: HashMap<NatReplyKey, NatReply> = HashMap::with_max_entries(1, 0);

/// The load balancer's own addresses and ports, twice.
#[map]
pub static NAT_POOL: Array<NatPool> = Array::with_max_entries(2, BPF_F_MMAPABLE);

/// How many ports have been tried for new flows, by backend.
#[map]
pub static NAT_CURSORS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Where the rest of a packet goes whose first fragment went by.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentFate> =
    LruHashMap::with_max_entries(FRAGMENT_ENTRIES, 0);

/// Source prefixes of services that do not take flows from everybody.
#[map]
pub static SOURCES: LpmTrie<SourceKey, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Flows opened this second, by service.
#[map]
pub static NEW_FLOWS: Array<NewFlows> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// MAC addresses of this host.
#[map]
pub static OWN_MACS: Array<u64> = Array::with_max_entries(OWN_MAC_PLACES, BPF_F_MMAPABLE);

/// Buckets of `FLOWS` in which a flow has just been confirmed that other load balancers have to know. What finds no room is found
/// by the controller's next look at all flows.
#[map]
pub static FLOW_NEWS: RingBuf = RingBuf::with_byte_size(FLOW_NEWS_BYTES, 0);

/// When a health check over the real path came this far, by backend and the kernel's clock. Not pinned: it is this program's
/// and its daemon's alone.
#[map]
pub static PROBE_STAMPS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The packet that is off the straight path. Not pinned: it is this program's alone.
#[map]
pub static JOURNEY: PerCpuArray<Journey> = PerCpuArray::with_max_entries(1, 0);

/// What NAT's steps hand to each other, a packet's and the controller's. Not pinned: it is this program's alone.
#[map]
pub static NAT_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(2, 0);

/// What becomes of the first fragment at hand. Not pinned: it is this program's alone.
#[map]
pub static FATE: PerCpuArray<FragmentFate> = PerCpuArray::with_max_entries(1, 0);

/// The packet that an ICMP error at hand is about. Not pinned: it is this program's alone.
#[map]
pub static QUOTED: PerCpuArray<Quoted> = PerCpuArray::with_max_entries(1, 0);

/// The ICMP error that is about to be made. Not pinned: it is this program's alone.
#[map]
pub static DRAFT: PerCpuArray<Draft> = PerCpuArray::with_max_entries(1, 0);

/// ICMP errors made this second. Not pinned: it is this program's alone.
#[map]
pub static ICMP_BUDGET: PerCpuArray<IcmpBudget> = PerCpuArray::with_max_entries(1, 0);

/// What becomes of the packet at hand, where the program is loaded to say so. Not pinned: it is this program's alone.
#[map]
pub static TRACE: PerCpuArray<Trace> = PerCpuArray::with_max_entries(1, 0);

/// What is captured. Of this and what follows only the program that runs during a capture makes use, so that is the only one for
/// which they are made large.
#[map]
pub static CAPTURE_SETTINGS: Array<CaptureSettings> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub static CAPTURE_RATE: Array<CaptureRate> = Array::with_max_entries(1, 0);

#[map]
pub static CAPTURE_COUNTERS: PerCpuArray<CaptureCounters> = PerCpuArray::with_max_entries(1, 0);

/// An entry a CPU, by its number: a per-CPU map would be that large in every program.
#[map]
pub static CAPTURE_SCRATCH: Array<CaptureScratch> = Array::with_max_entries(1, 0);

/// Captured packets, to be fetched.
#[map]
pub static CAPTURED: RingBuf = RingBuf::with_byte_size(4096, 0);
