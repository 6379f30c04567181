//! Names of maps, programs and load-time constants, as they appear in the object file and under the pin directory.

/// The program, for kernels that hand over frames of several buffers (5.18 and later), and for those that don't.
pub const PROGRAM: &str = "ballast";
pub const PROGRAM_LINEAR: &str = "ballast_linear";
/// Takes NAT flows away that are over; the controller runs it, packets never do.
pub const PROGRAM_SWEEP: &str = "ballast_sweep";
/// Carries health checks over the real path; for egress, where the host's routes to VIPs lead.
pub const PROGRAM_PROBE: &str = "ballast_probe";

pub const CONTROL: &str = "CONTROL";
pub const SERVICE_TABLE: &str = "SERVICE_TABLE";
pub const SERVICES: &str = "SERVICES";
pub const LOOKUP: &str = "LOOKUP";
pub const BACKENDS: &str = "BACKENDS";
pub const EGRESS: &str = "EGRESS";
pub const EGRESS_DEVICES: &str = "EGRESS_DEVICES";
pub const FLOWS: &str = "FLOWS";
pub const SLOT_STAMPS: &str = "SLOT_STAMPS";
pub const FLOW_LOAD: &str = "FLOW_LOAD";
pub const ROTATION: &str = "ROTATION";
pub const CLOCK: &str = "CLOCK";
pub const COUNTERS: &str = "COUNTERS";
pub const SERVICE_COUNTERS: &str = "SERVICE_COUNTERS";
pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTERS";
pub const NAT_FLOWS: &str = "NAT_FLOWS";
pub const NAT_REPLIES: &str = "NAT_REPLIES";
pub const NAT_POOL: &str = "NAT_POOL";
pub const NAT_CURSORS: &str = "NAT_CURSORS";
pub const FRAGMENTS: &str = "FRAGMENTS";
pub const SOURCES: &str = "SOURCES";
pub const NEW_FLOWS: &str = "NEW_FLOWS";
pub const OWN_MACS: &str = "OWN_MACS";
pub const FLOW_NEWS: &str = "FLOW_NEWS";
/// Not pinned: each program has its own.
pub const TRACE: &str = "TRACE";
/// Not pinned: a daemon reads those of the program that it loaded itself.
pub const PROBE_STAMPS: &str = "PROBE_STAMPS";
/// Not pinned: what a capture asks for, and what it gets.
pub const CAPTURE_SETTINGS: &str = "CAPTURE_SETTINGS";
pub const CAPTURE_RATE: &str = "CAPTURE_RATE";
pub const CAPTURE_COUNTERS: &str = "CAPTURE_COUNTERS";
pub const CAPTURE_SCRATCH: &str = "CAPTURE_SCRATCH";
pub const CAPTURED: &str = "CAPTURED";

/// Every map that is pinned, verified and adopted.
pub const PINNED_MAPS: [&str; 24] = [
    CONTROL,
    SERVICE_TABLE,
    SLOT_STAMPS,
    FLOW_LOAD,
    ROTATION,
    FLOWS,
    SERVICES,
    LOOKUP,
    BACKENDS,
    EGRESS,
    EGRESS_DEVICES,
    CLOCK,
    COUNTERS,
    SERVICE_COUNTERS,
    BACKEND_COUNTERS,
    NAT_FLOWS,
    NAT_REPLIES,
    NAT_POOL,
    NAT_CURSORS,
    FRAGMENTS,
    SOURCES,
    NEW_FLOWS,
    OWN_MACS,
    FLOW_NEWS,
];

/// Load-time constants: the two halves of the 128-bit hash key, the masks of one copy of the service table and of the
/// flow table's buckets, whether frames may have several buffers, whether a run may leave traces in maps (`explain` loads the program with 0), whether it
/// notes in `TRACE` what becomes of a packet, and why (`explain` loads it with 1), and whether it refreshes the clock cell (tests that
/// decide what time it is load it with 0).
pub const HASH_KEY_0: &str = "HASH_KEY_0";
pub const HASH_KEY_1: &str = "HASH_KEY_1";
pub const SERVICE_MASK: &str = "SERVICE_MASK";
pub const FLOW_MASK: &str = "FLOW_MASK";
pub const MULTI_BUFFER: &str = "MULTI_BUFFER";
pub const SELF_CLOCK: &str = "SELF_CLOCK";
pub const SIDE_EFFECTS: &str = "SIDE_EFFECTS";
pub const TRACING: &str = "TRACING";
/// Whether packets are copied to a capture.
pub const CAPTURE: &str = "CAPTURE";
/// The last one: whether `FLOW_NEWS` is told of flows that peers have to know.
pub const REPLICATION: &str = "REPLICATION";
