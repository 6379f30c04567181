//! Names of maps, program and load-time constants, as they appear in the object file and under the pin directory.

pub const PROGRAM: &str = "ballast";

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

/// Every map that is pinned, verified and adopted.
pub const PINNED_MAPS: [&str; 15] = [
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
];

/// Load-time constants: the two halves of the 128-bit hash key, the masks of one copy of the service table and of the
/// flow table's buckets, whether a run may leave traces in maps (`explain` loads the program with 0), and whether it
/// refreshes the clock cell (tests that decide what time it is load it with 0).
pub const HASH_KEY_0: &str = "HASH_KEY_0";
pub const HASH_KEY_1: &str = "HASH_KEY_1";
pub const SERVICE_MASK: &str = "SERVICE_MASK";
pub const FLOW_MASK: &str = "FLOW_MASK";
pub const SELF_CLOCK: &str = "SELF_CLOCK";
pub const SIDE_EFFECTS: &str = "SIDE_EFFECTS";
