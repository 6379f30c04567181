//! `[limits]`: the sizes of the maps.

use lb_common::abi::{
    MAX_BACKEND_INDEX,
    limits::{MAX_FLOW_ENTRIES, MIN_FLOW_ENTRIES, MIN_TABLE_SIZE},
};

use super::{
    daemon::set,
    key::{Integer, Key, PowerOfTwo},
    reference::Section,
    report::Report,
    table::Table,
};
use crate::dataplane::Limits;

pub(super) fn read(document: &mut Table<'_>, report: &mut Report<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut table) = document.table("limits", "[limits]", report) else { return limits };
    set(&mut limits.services, table.read(&SERVICES, report));
    set(&mut limits.backends, table.read(&BACKENDS, report));
    set(&mut limits.lookup_slots, table.read(&LOOKUP_SLOTS, report));
    set(&mut limits.flow_entries, table.read(&FLOW_ENTRIES, report));
    set(&mut limits.nat_flows, table.read(&NAT_FLOWS, report));
    set(&mut limits.source_prefixes, table.read(&SOURCE_PREFIXES, report));
    table.finish(report);
    limits
}

pub(super) const LIMITS: Section = Section {
    heading: "## `[limits]`",
    says: "Sizes of the maps, fixed when they are made: another size needs `ballast detach` and a start.",
    keys: &[&SERVICES, &BACKENDS, &LOOKUP_SLOTS, &FLOW_ENTRIES, &NAT_FLOWS, &SOURCE_PREFIXES],
};

const SERVICES: Key<Integer> = Key {
    name: "services",
    takes: Integer(1, MAX_SERVICES),
    default: "1024",
    means: "services, those of the command line among them",
};
const BACKENDS: Key<Integer> = Key {
    name: "backends",
    takes: Integer(2, MAX_BACKEND_INDEX),
    default: "16384",
    means: "backends, counted over all services; one entry is reserved",
};
const LOOKUP_SLOTS: Key<Integer> = Key {
    name: "lookup_slots",
    takes: Integer(MIN_TABLE_SIZE, MAX_LOOKUP_SLOTS),
    default: "4194304",
    means: "the sum of all services' tables, 8 bytes each",
};
const FLOW_ENTRIES: Key<PowerOfTwo> = Key {
    name: "flow_entries",
    takes: PowerOfTwo(MIN_FLOW_ENTRIES, MAX_FLOW_ENTRIES),
    default: "1048576",
    means: "entries of the flow table, 8 bytes each. Give it room for twice the flows of services that track always",
};
const NAT_FLOWS: Key<Integer> = Key {
    name: "nat_flows",
    takes: Integer(MIN_NAT_FLOWS, MAX_NAT_FLOWS),
    default: "131072",
    means: "flows of all `dnat` and `nat` services together, some 300 bytes each",
};
const SOURCE_PREFIXES: Key<Integer> = Key {
    name: "source_prefixes",
    takes: Integer(1, MAX_SOURCE_PREFIXES),
    default: "65536",
    means: "prefixes in the `allow` and `deny` lists of all services",
};

/// 64 MiB of service table.
const MAX_SERVICES: u32 = 1 << 16;
/// 512 MiB of lookup tables.
const MAX_LOOKUP_SLOTS: u32 = 1 << 26;
const MIN_NAT_FLOWS: u32 = 1 << 10;
/// Some 5 GB of both tables.
const MAX_NAT_FLOWS: u32 = 1 << 24;
const MAX_SOURCE_PREFIXES: u32 = 1 << 24;
