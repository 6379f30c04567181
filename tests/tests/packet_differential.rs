//! Program and model on random, damaged and hostile frames, with the maps changing in between.

use std::time::Instant;

use anyhow::Result;
use lb_common::abi::DropReason;
use lb_tests::model::{Event, Fate, Kind, Selection};
use lb_tests::packet::fixture::world;
use lb_tests::packet::fuzz::{self, Coverage};
use lb_tests::require_root;

/// Frames that a test takes where nothing limits it.
const ORDINARY: u64 = 500_000;

#[test]
fn program_and_model_agree_on_random_frames() -> Result<()> {
    require_root!(Ok(()));
    fuzz_with(&[0x00ba_11a5], fuzz::packets(ORDINARY)?)
}

#[test]
#[ignore = "long: ten million frames"]
fn program_and_model_agree_on_ten_million_random_frames() -> Result<()> {
    require_root!(Ok(()));
    fuzz_with(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 1_000_000)
}

fn fuzz_with(seeds: &[u64], packets: u64) -> Result<()> {
    for &seed in seeds {
        let mut world = world()?;
        let start = Instant::now();
        let coverage = fuzz::run(&mut world, seed, packets)?;
        println!("seed {seed:#x}: {coverage:?} in {:?}", start.elapsed());
        // A shorter run is a part of the ordinary one, which has shown that it meets everything.
        if packets >= ORDINARY {
            assert_met_everything(&coverage);
        }
    }
    Ok(())
}

/// A fuzzer that never meets a verdict proves nothing about it.
fn assert_met_everything(coverage: &Coverage) {
    let least = coverage.packets / 10_000;
    for count in [coverage.passed, coverage.transmitted, coverage.redirected] {
        assert!(count > 10 * least, "{coverage:?}");
    }
    for reason in DropReason::ALL {
        // Test runs always have headroom, unless asked otherwise.
        let met = coverage.drops[reason as usize];
        assert!(met > least || reason == DropReason::NoHeadroom, "{}: {coverage:?}", reason.name());
    }
    for (selection, kind, fate) in ways_of_tracked_packets() {
        let met = coverage.fates.get(&(selection, kind, fate)).copied().unwrap_or_default();
        assert!(met * 100_000 > coverage.packets, "{selection:?}, {kind:?}, {fate:?}: {coverage:?}");
    }
    for event in Event::ALL {
        let met = coverage.events.get(&event).copied().unwrap_or_default();
        assert!(met * 50_000 > coverage.packets, "{event:?}: {coverage:?}");
    }
    for way in WAYS {
        for is_v4 in [true, false] {
            let met = coverage.ways.get(&(way, is_v4)).copied().unwrap_or_default();
            let possible = !(way == "options" && !is_v4 || way == "extension headers" && is_v4);
            assert!(!possible || met * 50_000 > coverage.packets, "{way}, {is_v4}: {coverage:?}");
        }
    }
    for count in [coverage.exceptions, coverage.failures, coverage.new_flows] {
        assert!(count > least, "{coverage:?}");
    }
}

/// Rules of docs/packet-path.md, each for both families.
const WAYS: [&str; 24] = [
    "l2-dsr",
    "ipip",
    "ipip, mixed families",
    "gue",
    "gue, mixed families",
    "dnat",
    "nat",
    "reply",
    "flow refreshed",
    "flow anew",
    "flow by another way",
    "flow taken from its backend",
    "later fragment passed",
    "later fragment forwarded",
    "later fragment translated",
    "later fragment replied",
    "last fragment of a reply",
    "options",
    "extension headers",
    "error to a backend",
    "error to a backend through NAT",
    "error to a client through NAT",
    "too big from a tunnel",
    "unreachable from a tunnel",
];

/// What can become of each kind of packet, under each algorithm.
fn ways_of_tracked_packets() -> Vec<(Selection, Kind, Fate)> {
    let mut ways = Vec::new();
    for selection in [Selection::Hash, Selection::RoundRobin, Selection::LeastConnections] {
        for kind in Kind::ALL {
            let possible = |fate: &Fate| match kind {
                Kind::Observes => [Fate::Hit, Fate::Observed].contains(fate),
                _ => *fate != Fate::Observed,
            };
            ways.extend(Fate::ALL.into_iter().filter(possible).map(|fate| (selection, kind, fate)));
        }
    }
    ways
}
