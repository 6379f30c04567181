//! What an interface counted: the kernel's statistics and the driver's own, in one map.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use super::namespace::Namespace;

/// Counters by name. A counter that does not exist is absent, not 0.
///
/// - `rx.packets`, `tx.bytes`, `rx.dropped` ...: the interface's statistics (`ip -s link`).
/// - `rx_queue_0_xdp_drops`, `tx_queue_0_xdp_xmit_errors`, `peer_ifindex` ...: the driver's (`ethtool -S`).
/// - `rx_xdp_drops`, `tx_xdp_xmit_errors` ...: the driver's, summed over its queues.
pub type Counters = BTreeMap<String, u64>;

impl Namespace {
    /// What `interface` counted so far.
    pub fn counters(&self, interface: &str) -> Result<Counters> {
        let mut counters = Counters::new();
        let shown = self.run("ip", ["-s", "-j", "link", "show", "dev", interface])?.stdout;
        let links: Value =
            serde_json::from_str(&shown).with_context(|| format!("read what ip printed: {shown}"))?;
        for direction in ["rx", "tx"] {
            let statistics = links.pointer(&format!("/0/stats64/{direction}")).and_then(Value::as_object);
            for (name, value) in statistics.with_context(|| format!("no statistics in {shown}"))? {
                counters.insert(format!("{direction}.{name}"), value.as_u64().unwrap_or_default());
            }
        }
        let shown = self.run("ethtool", ["-S", interface])?.stdout;
        for line in shown.lines() {
            let Some((name, value)) = line.trim().split_once(": ") else { continue };
            let Ok(value) = value.trim().parse::<u64>() else { continue };
            if let Some(sum) = sum_name(name) {
                *counters.entry(sum).or_default() += value;
            }
            counters.insert(name.to_owned(), value);
        }
        Ok(counters)
    }
}

/// `rx_queue_3_xdp_drops` → `rx_xdp_drops`
fn sum_name(name: &str) -> Option<String> {
    let (direction, rest) = name.split_once("_queue_")?;
    let (queue, counter) = rest.split_once('_')?;
    queue.parse::<u32>().ok()?;
    Some(format!("{direction}_{counter}"))
}

#[cfg(test)]
mod tests {
    use super::sum_name;

    #[test]
    fn queue_counters_are_summed_under_the_name_without_the_queue() {
        assert_eq!(sum_name("rx_queue_12_xdp_tx_errors").as_deref(), Some("rx_xdp_tx_errors"));
        assert_eq!(sum_name("peer_ifindex"), None);
    }
}
