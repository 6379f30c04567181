//! `explain` says what the wire does, and leaves no trace.

use anyhow::Result;
use lb_tests::packet::explained::{Asked, Told};
use lb_tests::packet::fuzz;
use lb_tests::require_root;

#[test]
fn explain_agrees_with_the_wire_for_ten_thousand_tuples_and_changes_nothing() -> Result<()> {
    require_root!(Ok(()));
    let count = fuzz::packets(10_000)?;
    let told = Asked::new()?.about_tuples(0x00ba_11a5, count)?;
    println!("{told:#?}");
    if count >= 10_000 {
        assert_said_everything(&told);
    }
    Ok(())
}

#[test]
fn explain_agrees_with_the_wire_about_frames_of_all_kinds() -> Result<()> {
    require_root!(Ok(()));
    let count = fuzz::packets(10_000)?;
    let told = Asked::new()?.about_frames(0x00ba_11a5, count)?;
    println!("{told:#?}");
    if count >= 10_000 {
        for reason in
            ["echo", "icmp_error", "tunnel_error", "fragment", "fragment_passed", "other", "no_service"]
        {
            assert!(told.reasons.contains_key(reason), "{reason}: {told:?}");
        }
    }
    Ok(())
}

/// What is never said is not tested.
fn assert_said_everything(told: &Told) {
    let reasons = [
        "table",
        "flow",
        "previous",
        "fallback",
        "new_flow",
        "round_robin",
        "least_connections",
        "nat_flow",
        "no_backend",
        "rejected",
        "backend_disabled",
        "next_hop_unresolved",
        "packet_too_big",
        "no_egress",
        "bad_map_entry",
        "no_nat_flow",
        "source_denied",
        "new_flow_limit",
    ];
    for reason in reasons {
        assert!(told.reasons.get(reason).is_some_and(|&count| count > 5), "{reason}: {told:?}");
    }
    for verdict in ["tx", "redirect", "drop"] {
        assert!(told.verdicts.get(verdict).is_some_and(|&count| count > 500), "{verdict}: {told:?}");
    }
    assert!(told.of_known_flows > 1_000, "{told:?}");
    for is_v4 in [true, false] {
        let forwarded: u64 =
            told.forwarded.iter().filter(|((_, v4), _)| *v4 == is_v4).map(|(_, count)| count).sum();
        assert!(forwarded > 1_500, "{told:?}");
    }
}
