//! What was done with ICMP messages, by the words for it.

use lb_common::abi::Counters;

/// Each kind with its count.
pub fn by_kind(totals: &Counters) -> [(&'static str, u64); 6] {
    [
        ("echo_reply", totals.echo_replies),
        ("too_big", totals.too_big_sent),
        ("time_exceeded", totals.time_exceeded_sent),
        ("port_unreachable", totals.port_unreachable_sent),
        ("relayed", totals.errors_relayed),
        ("limited", totals.errors_limited),
    ]
}
