//! Names of maps, program and load-time constants, as they appear in the object file and under the pin directory.

pub const PROGRAM: &str = "ballast";

pub const CONTROL: &str = "CONTROL";
pub const SERVICE_TABLE: &str = "SERVICE_TABLE";
pub const SERVICES: &str = "SERVICES";
pub const LOOKUP: &str = "LOOKUP";
pub const BACKENDS: &str = "BACKENDS";
pub const EGRESS: &str = "EGRESS";
pub const EGRESS_DEVICES: &str = "EGRESS_DEVICES";
pub const COUNTERS: &str = "COUNTERS";
pub const SERVICE_COUNTERS: &str = "SERVICE_COUNTERS";
pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTERS";

/// Every map that is pinned, verified and adopted.
pub const PINNED_MAPS: [&str; 10] = [
    CONTROL,
    SERVICE_TABLE,
    SERVICES,
    LOOKUP,
    BACKENDS,
    EGRESS,
    EGRESS_DEVICES,
    COUNTERS,
    SERVICE_COUNTERS,
    BACKEND_COUNTERS,
];

/// Load-time constants: the two halves of the 128-bit hash key, the mask of one copy of the service table, and
/// whether a run may count (`explain` loads the program with 0).
pub const HASH_KEY_0: &str = "HASH_KEY_0";
pub const HASH_KEY_1: &str = "HASH_KEY_1";
pub const SERVICE_MASK: &str = "SERVICE_MASK";
pub const SIDE_EFFECTS: &str = "SIDE_EFFECTS";
