//! Laying out one copy of the service table: pure.
//!
//! The data plane probes linearly from a key's home and gives up after `MAX_PROBE` entries. Whether that is enough
//! depends on the seed alone, so the builder tries seeds until it is.

use lb_common::abi::{
    ENTRY_OCCUPIED, ServiceEntry,
    limits::{self, MAX_PROBE},
};

/// One copy of the table, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) seed: u32,
    /// `limits::service_table_copy` entries; the last `MAX_PROBE` take the probes that start near the end, so that
    /// none wraps around.
    pub(crate) entries: Vec<ServiceEntry>,
}

/// Why no table could be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The caller's fault.
    #[error("two entries of the service table have the same key, {0:?}")]
    Duplicate(lb_common::abi::ServiceKey),
    #[error(
        "{wanted} entries do not fit a service table of {capacity}; `[limits] services` decides its size"
    )]
    TooMany { wanted: usize, capacity: u32 },
    /// So improbable at the load that the limits allow that it is a bug.
    #[error(
        "found no seed in {SEEDS} for which {wanted} entries in a service table of {capacity} are all found"
    )]
    NoSeed { wanted: usize, capacity: u32 },
}

/// Lays out `entries` for a table made for `services` services. The keys have to differ.
pub(crate) fn lay_out(services: u32, entries: &[ServiceEntry]) -> Result<Layout, Error> {
    let capacity = limits::service_table_capacity(services);
    let wanted = entries.len();
    // Beyond this no seed would be found; a service has three entries and the table eight for each.
    if wanted > capacity as usize / 2 {
        return Err(Error::TooMany { wanted, capacity });
    }
    let mut keys: Vec<_> = entries.iter().map(|entry| entry.key).collect();
    keys.sort_unstable_by_key(|key| (key.address, key.port, key.protocol, key.kind));
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::Duplicate(pair[0]));
    }

    let mut homes: Vec<(u32, usize)> = Vec::with_capacity(wanted);
    for seed in 0..SEEDS {
        homes.clear();
        homes.extend(entries.iter().map(|entry| entry.key.home(seed, capacity - 1)).zip(0..));
        // In the order of their homes each entry goes as near to its home as can be (Robin Hood hashing), which keeps
        // the longest probe far shorter than the order of insertion would.
        homes.sort_unstable();
        let mut table = vec![ServiceEntry::default(); limits::service_table_copy(services) as usize];
        let mut next = 0;
        let placed = homes.iter().all(|&(home, entry)| {
            let at = home.max(next);
            next = at + 1;
            let near = at - home < MAX_PROBE;
            if near {
                let entry = entries[entry];
                table[at as usize] = ServiceEntry { flags: entry.flags | ENTRY_OCCUPIED, ..entry };
            }
            near
        });
        if placed {
            return Ok(Layout { seed, entries: table });
        }
    }
    Err(Error::NoSeed { wanted, capacity })
}

/// Seeds tried; at the greatest load the limits allow about every other one will do.
const SEEDS: u32 = 1024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lb_common::{
        abi::{ENTRY_ADMISSION, PROTOCOL_TCP, PROTOCOL_UDP, ServiceKey},
        hash::{HashKey, siphash13},
    };
    use proptest::prelude::*;

    use super::*;

    /// The data plane's probe (`lb-ebpf/src/service.rs`).
    fn probe(layout: &Layout, mask: u32, key: &ServiceKey) -> Option<ServiceEntry> {
        let home = key.home(layout.seed, mask);
        for step in 0..MAX_PROBE {
            let entry = layout.entries[(home + step) as usize];
            if entry.flags & ENTRY_OCCUPIED == 0 {
                return None;
            }
            if entry.key.words() == key.words() {
                return Some(entry);
            }
        }
        None
    }

    fn v4(host: u32) -> [u8; 16] {
        let [a, b, c, d] = host.to_be_bytes();
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
    }

    fn entry(key: ServiceKey, service: u32) -> ServiceEntry {
        ServiceEntry { key, service, ..ServiceEntry::default() }
    }

    /// As many entries as a full configuration has: each service on its own address, with its two markers.
    fn full(services: u32) -> Vec<ServiceEntry> {
        let keys = |n: u32| {
            let address = v4(0xc612_0000 + n);
            [
                ServiceKey::service(address, 443, PROTOCOL_TCP),
                ServiceKey::marker(address, PROTOCOL_TCP),
                ServiceKey::marker(address, 0),
            ]
        };
        (0..services).flat_map(|n| keys(n).map(|key| entry(key, n))).collect()
    }

    fn arbitrary_key() -> impl Strategy<Value = ServiceKey> {
        let address = prop_oneof![(0u32..64).prop_map(v4), any::<u32>().prop_map(v4), any::<[u8; 16]>()];
        let protocol = prop_oneof![Just(PROTOCOL_TCP), Just(PROTOCOL_UDP)];
        (address, prop_oneof![0u16..100, any::<u16>()], protocol, any::<bool>()).prop_map(
            |(address, port, protocol, marker)| match marker {
                true => ServiceKey::marker(address, protocol),
                false => ServiceKey::service(address, port, protocol),
            },
        )
    }

    proptest! {
        #[test]
        fn the_data_plane_finds_what_is_in_the_table_and_nothing_else(
            keys in prop::collection::hash_set(arbitrary_key(), 0..192),
            absent in prop::collection::hash_set(arbitrary_key(), 0..192),
        ) {
            let entries: Vec<_> = keys.iter().zip(0..).map(|(key, n)| entry(*key, n)).collect();
            let layout = lay_out(64, &entries).expect("a table at most three eighths full");
            let mask = limits::service_table_capacity(64) - 1;
            for wanted in &entries {
                prop_assert_eq!(probe(&layout, mask, &wanted.key).map(|found| found.service), Some(wanted.service));
            }
            for key in absent.difference(&keys) {
                prop_assert_eq!(probe(&layout, mask, key), None);
            }
        }
    }

    #[test]
    fn a_full_table_of_every_size_is_laid_out_within_the_bound() {
        for services in [1, 2, 3, 16, 100, 1024, 4096, 16_384, 65_536] {
            let entries = full(services);
            let layout = lay_out(services, &entries).expect("the limits allow it");
            let mask = limits::service_table_capacity(services) - 1;
            assert!(layout.entries.len() as u32 * 2 == limits::service_table_entries(services));
            assert!(
                entries.iter().all(|entry| probe(&layout, mask, &entry.key).is_some()),
                "{services} services"
            );
        }
    }

    #[test]
    fn a_seed_with_a_probe_that_is_too_long_is_passed_over() {
        // Half full, more than a configuration can ask for, so that seeds do fail.
        let services = 4096;
        let mask = limits::service_table_capacity(services) - 1;
        let mut seeds = Vec::new();
        for k0 in 0..8 {
            // Consecutive addresses spread too well.
            let scatter = |n| siphash13(HashKey { k0, k1: 0 }, [], u64::from(n)) as u32;
            let addresses: BTreeSet<u32> = (0..=mask / 2).map(scatter).collect();
            let keys = addresses.into_iter().map(|host| ServiceKey::service(v4(host), 80, PROTOCOL_TCP));
            let entries: Vec<_> = keys.map(|key| entry(key, 0)).collect();
            let layout = lay_out(services, &entries).expect("some seed will do");
            assert!(entries.iter().all(|entry| probe(&layout, mask, &entry.key).is_some()));
            seeds.push(layout.seed);
        }
        assert!(seeds.iter().any(|seed| *seed > 0), "no seed failed, so this shows nothing");
    }

    #[test]
    fn the_same_key_twice_is_refused() {
        let key = ServiceKey::service(v4(1), 80, PROTOCOL_TCP);
        assert_eq!(lay_out(8, &[entry(key, 1), entry(key, 2)]), Err(Error::Duplicate(key)));
    }

    #[test]
    fn an_entry_keeps_its_flags() {
        let key = ServiceKey::service(v4(1), 80, PROTOCOL_TCP);
        let limited = ServiceEntry { flags: ENTRY_ADMISSION, ..entry(key, 1) };
        let layout = lay_out(8, &[limited]).expect("one entry");
        let mask = limits::service_table_capacity(8) - 1;
        let found = probe(&layout, mask, &key).map(|found| found.flags);
        assert_eq!(found, Some(ENTRY_OCCUPIED | ENTRY_ADMISSION));
    }

    #[test]
    fn more_than_the_limit_is_refused_by_its_name() {
        let error = lay_out(4, &full(64)).expect_err("192 entries in a table of 32");
        assert!(error.to_string().contains("[limits] services"), "{error}");
    }
}
