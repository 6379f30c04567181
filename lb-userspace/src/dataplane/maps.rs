//! What each map has to look like: its definition in the object, with the sizes that the limits ask for.

use std::collections::HashMap;

use aya_obj::generated::{BPF_F_RDONLY_PROG, bpf_map_type};
use lb_common::abi::{FLOW_BUCKET_ENTRIES, limits, names};

use super::{Limits, sys::MapInfo};

/// A map as the loader would make it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    info: MapInfo,
    /// The key of `[limits]` that decides its size, and how much of it one entry is.
    limit: Option<(&'static str, u32)>,
}

/// A map differs from what this version and this configuration need.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// The operator's doing.
    #[error(
        "it has room for {found}, and `[limits] {limit}` asks for {wanted}; a map's size is fixed once it is made. Put \
         the old limit back, or run `ballast detach` (which stops forwarding) and start again"
    )]
    Limit { limit: &'static str, found: u32, wanted: u32 },
    /// Somebody else's map, or a bug: the layout's number should have differed.
    #[error(
        "its {property} is {found} instead of {wanted}, so it is not this version's map; run `ballast detach` (which \
         stops forwarding) and start again"
    )]
    Property { property: &'static str, found: u32, wanted: u32 },
}

/// Sizes that the limits decide: map, entries, key of `[limits]`, how much of it one entry is.
pub(super) fn sizes(limits: Limits) -> [(&'static str, u32, &'static str, u32); 16] {
    [
        (names::SERVICES, limits.services, "services", 1),
        (names::SERVICE_COUNTERS, limits.services, "services", 1),
        (names::SERVICE_TABLE, limits::service_table_entries(limits.services), "services", 1),
        (names::BACKENDS, limits.backends, "backends", 1),
        (names::BACKEND_COUNTERS, limits.backends, "backends", 1),
        (names::FLOW_LOAD, limits.backends, "backends", 1),
        (names::ROTATION, limits.services, "services", 1),
        (names::SLOT_STAMPS, limits::slot_stamp_entries(limits.lookup_slots), "lookup_slots", 2),
        (names::LOOKUP, limits.lookup_slots, "lookup_slots", 1),
        (names::FLOWS, limits::flow_buckets(limits.flow_entries), "flow_entries", FLOW_BUCKET_ENTRIES),
        (names::NAT_FLOWS, limits.nat_flows, "nat_flows", 1),
        (names::NAT_REPLIES, limits.nat_flows, "nat_flows", 1),
        (names::NAT_CURSORS, limits.backends, "backends", 1),
        (names::PROBE_STAMPS, limits.backends, "backends", 1),
        (names::SOURCES, limits.source_prefixes, "source_prefixes", 1),
        (names::NEW_FLOWS, limits.services, "services", 1),
    ]
}

/// What the maps of `object` have to look like.
pub(super) fn expected(object: &aya_obj::Object, limits: Limits) -> HashMap<&'static str, Expected> {
    let sizes = sizes(limits).map(|(name, entries, limit, part)| (name, (entries, limit, part)));
    let sizes = HashMap::from(sizes);
    let expected = |name: &'static str| {
        let map = object.maps.get(name)?;
        let mut flags = map.map_flags();
        if map.map_type() == bpf_map_type::BPF_MAP_TYPE_DEVMAP as u32 {
            // The kernel adds it: 0cdbb4b09a06 ("devmap: Allow map lookups from eBPF", 5.3).
            flags |= BPF_F_RDONLY_PROG;
        }
        let size = sizes.get(name);
        let info = MapInfo {
            kind: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: size.map_or(map.max_entries(), |(entries, ..)| *entries),
            flags,
            ..MapInfo::default()
        };
        Some((name, Expected { info, limit: size.map(|(_, limit, part)| (*limit, *part)) }))
    };
    names::PINNED_MAPS.into_iter().filter_map(expected).collect()
}

impl Expected {
    pub(super) fn verify(&self, found: &MapInfo) -> Result<(), Mismatch> {
        let wanted = &self.info;
        let properties = [
            ("type", found.kind, wanted.kind),
            ("key size", found.key_size, wanted.key_size),
            ("value size", found.value_size, wanted.value_size),
            ("set of flags", found.flags, wanted.flags),
        ];
        if let Some((property, found, wanted)) =
            properties.into_iter().find(|(_, found, wanted)| found != wanted)
        {
            return Err(Mismatch::Property { property, found, wanted });
        }
        let (found, wanted) = (found.max_entries, wanted.max_entries);
        match self.limit {
            _ if found == wanted => Ok(()),
            Some((limit, part)) => {
                Err(Mismatch::Limit { limit, found: found.saturating_mul(part), wanted: wanted * part })
            }
            None => Err(Mismatch::Property { property: "number of entries", found, wanted }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_found_and_the_limit_is_named() {
        let info = MapInfo { kind: 2, key_size: 4, value_size: 64, max_entries: 1024, flags: 1024, id: 7 };
        let expected = Expected { info, limit: Some(("services", 1)) };
        assert!(expected.verify(&MapInfo { id: 8, ..info }).is_ok());
        for other in [
            MapInfo { kind: 6, ..info },
            MapInfo { key_size: 8, ..info },
            MapInfo { value_size: 32, ..info },
            MapInfo { flags: 0, ..info },
        ] {
            assert!(matches!(expected.verify(&other), Err(Mismatch::Property { .. })), "{other:?}");
        }
        let error = expected.verify(&MapInfo { max_entries: 2048, ..info }).expect_err("another size");
        assert!(error.to_string().contains("`[limits] services` asks for 1024"), "{error}");
    }
}
