//! Answers of a daemon that there is not.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use serde_json::{Value, json};

use crate::api::v1;

/// A backend that is well; number 0 is `web-1` at `10.0.0.11:80` if its service is `web`.
pub(super) fn backend(service: &str, number: usize) -> v1::Backend {
    let value = json!({
        "name": format!("{service}-{}", number + 1), "address": format!("10.0.{}.{}:80", number / 200, 11 + number % 200),
        "weight": 1, "backup": false, "admin": "active", "health": "healthy", "health_detail": "HTTP 200", "share": 0.0,
        "flows": null, "accepts_existing": true, "drain_seconds_left": null, "drained": false, "packets": 0, "bytes": 0,
        "new_flows": 0, "reply_packets": null, "reply_bytes": null, "reachable": true, "origin": {"kind": "cli"},
        "overrides": [],
    });
    serde_json::from_value(value).unwrap()
}

/// A service that is well, its backends sharing it evenly.
pub(super) fn service(name: &str, address: &str, backends: usize) -> v1::Service {
    let share = 1.0 / backends.max(1) as f64;
    let backends: Vec<_> =
        (0..backends).map(|number| v1::Backend { share, ..backend(name, number) }).collect();
    let value = json!({
        "name": name, "address": address, "protocol": "tcp", "forwarding": "l2-dsr", "algorithm": "source-hash",
        "state": "healthy", "packets": 0, "bytes": 0, "new_flows": 0, "reply_packets": null, "reply_bytes": null,
        "fingerprint": "00000000deadbeef", "settings": {"drain_timeout": "5m"}, "origin": {"kind": "cli"},
        "overrides": [], "backends": backends, "leaving": [],
    });
    serde_json::from_value(value).unwrap()
}

pub(super) fn status(services: Vec<v1::Service>) -> v1::Status {
    let mut value = json!({
        "revision": 12, "ready": true, "interfaces": [{"name": "eth0", "mode": "native", "attached": true}],
        "own_macs": null, "services": [], "drops": {"new_flow_limit": 0, "next_hop_unresolved": 0, "no_backend": 0},
        "verdicts": {"tx": 0, "redirect": 0, "pass": 0, "drop": 0}, "packets": 0, "config_error": null,
        "state_error": null, "flow_table": {"entries": 1_234, "capacity": 1_048_576},
        "nat_table": {"entries": 0, "capacity": 131_072}, "icmp": {}, "resets": 0, "tracked_slots": 37, "nat_clashes": [],
    });
    value["services"] = Value::Array(services.iter().map(|one| serde_json::to_value(one).unwrap()).collect());
    serde_json::from_value(value).unwrap()
}

/// Lets packets of 1,000 bytes pass: so many for each backend of a service, a tenth of them the first of a flow.
pub(super) fn pass(service: &mut v1::Service, packets: &[u64]) {
    for (backend, packets) in service.backends.iter_mut().zip(packets) {
        let grow = |total: Option<u64>| total.map(|total| total + packets / 10);
        (backend.packets, backend.bytes) = (backend.packets + packets, backend.bytes + packets * 1000);
        backend.new_flows = grow(backend.new_flows);
        (service.packets, service.bytes) = (service.packets + packets, service.bytes + packets * 1000);
        service.new_flows = grow(service.new_flows);
    }
}
