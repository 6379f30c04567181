//! The controller's side of maps that are no arrays, against the kernel's own.

use anyhow::Result;
use ballast::dataplane::{Dataplane as _, Limits, loader::load_for_test, sources::SourcePrefix};
use lb_common::abi::{NatPool, SOURCE_ALLOW, SOURCE_DENY};
use lb_common::hash::HashKey;
use lb_tests::require_root;

const LIMITS: Limits = Limits {
    services: 4,
    backends: 64,
    lookup_slots: 4096,
    flow_entries: 1024,
    nat_flows: 1024,
    source_prefixes: 100,
};

fn prefix(n: u8, length: u8) -> SourcePrefix {
    SourcePrefix { address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, n, 0, 0], length }
}

#[test]
fn source_prefixes_are_found_again_list_by_list_up_to_the_limit() -> Result<()> {
    require_root!(Ok(()));
    let (_program, mut dataplane) = load_for_test(LIMITS, HashKey::default(), true, false)?;
    let mut written = Vec::new();
    for list in [1, 2, 0x0102_0304] {
        for (n, length) in [(0, 96), (0, 104), (1, 112), (2, 112), (3, 128)] {
            let verdict = if length == 112 { SOURCE_ALLOW } else { SOURCE_DENY };
            dataplane.write_source(list, prefix(n, length), verdict)?;
            written.push((list, prefix(n, length), verdict));
        }
    }
    let sorted = |mut sources: Vec<(u32, SourcePrefix, u32)>| {
        sources.sort_unstable();
        sources
    };
    assert_eq!(sorted(dataplane.sources()?), sorted(written.clone()));
    written.retain(|(list, prefix, _)| *list != 2 || prefix.length == 96);
    for (n, length) in [(0, 104), (1, 112), (2, 112), (3, 128), (9, 112)] {
        dataplane.remove_source(2, prefix(n, length))?;
    }
    assert_eq!(sorted(dataplane.sources()?), sorted(written.clone()));
    // Branches of the trie take no room.
    for n in 0..100 - u8::try_from(written.len())? {
        dataplane.write_source(7, prefix(n, 112), SOURCE_DENY)?;
    }
    assert!(dataplane.write_source(8, prefix(0, 112), SOURCE_DENY).is_err());
    Ok(())
}

#[test]
fn one_of_two_pools_is_live() -> Result<()> {
    require_root!(Ok(()));
    let (_program, mut dataplane) = load_for_test(LIMITS, HashKey::default(), true, false)?;
    assert_eq!(dataplane.nat_pool()?, NatPool::default());
    for first_port in 1024..1030 {
        let pool = NatPool { first_port, last_port: 2000, v6_count: 1, ..NatPool::default() };
        dataplane.publish_nat_pool(&pool)?;
        assert_eq!(dataplane.nat_pool()?, pool);
    }
    Ok(())
}
