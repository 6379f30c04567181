//! Sizes fixed by the layout itself. Sizes an operator may choose are in the configuration (`[limits]`).

/// Entries a service lookup looks at before it gives up. The controller picks a seed for which that is enough.
pub const MAX_PROBE: u32 = 8;

/// Service-table entries kept for each service that `limits.services` allows: a service needs up to three (itself
/// and two markers), and a sparse table keeps probes short.
pub const TABLE_ENTRIES_PER_SERVICE: u32 = 8;

/// Egress entries (interface, source MAC, MTU, outer source address). Number 0 means "none".
pub const EGRESS_ENTRIES: u32 = 1024;

/// Room for news of flows, in bytes.
pub const FLOW_NEWS_BYTES: u32 = 64 << 10;
/// Bytes that one takes: the ring's header, and a word.
pub const FLOW_NEWS_RECORD: u32 = 16;
/// How many there is room for: a ring keeps a byte free.
pub const FLOW_NEWS: u32 = (FLOW_NEWS_BYTES - 1) / FLOW_NEWS_RECORD;

/// Smallest and largest lookup table of a service, in slots. Both are powers of two.
pub const MIN_TABLE_SIZE: u32 = 1 << 10;
pub const MAX_TABLE_SIZE: u32 = 1 << 20;

/// Hash entries in one copy of the service table: a power of two.
pub const fn service_table_capacity(services: u32) -> u32 {
    (services * TABLE_ENTRIES_PER_SERVICE).next_power_of_two()
}

/// Entries of the service-table map: two copies, each with room for a probe that starts at its last entry.
pub const fn service_table_entries(services: u32) -> u32 {
    2 * service_table_copy(services)
}

/// Distance between the two copies.
pub const fn service_table_copy(services: u32) -> u32 {
    service_table_capacity(services) + MAX_PROBE
}

/// Entries of the flow table: a power of two between these.
pub const MIN_FLOW_ENTRIES: u32 = 1 << 10;
pub const MAX_FLOW_ENTRIES: u32 = 1 << 26;

/// Longest idle timeout of a flow, in time units: entries must be found and removed well before their age can no longer
/// be told ([`super::MAX_FLOW_AGE`]).
pub const MAX_FLOW_IDLE: u32 = 3600;

/// Buckets of a flow table of this many entries.
pub const fn flow_buckets(entries: u32) -> u32 {
    entries / super::FLOW_BUCKET_ENTRIES
}

/// Entries of the map that holds the stamps of this many slots.
pub const fn slot_stamp_entries(slots: u32) -> u32 {
    slots.div_ceil(2)
}
