//! What the page says of peers, of a fleet and of VIPs that lack backends, in states that are hard to come by. The daemon's unit tests
//! have what it is told of them.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::scene::Scene;

pub(crate) fn peers_a_fleet_and_vips_that_lack_backends_show(scene: &mut Scene) -> Result<()> {
    let peer = |address: &str, more: serde_json::Value| {
        let mut peer = json!({"address": address, "flows_sent": 1234, "flows_received": 5, "pending": 0});
        let (fields, more) = (peer.as_object_mut().expect("it is one"), more.as_object().expect("it is one"));
        fields.extend(more.clone());
        peer
    };
    let told = json!({
        "announce": {"vips": [{"vip": "192.0.2.9", "announced": true, "is_alright": true, "kept": true}]},
        "fleet": {"connected": true, "silent_seconds": 0, "members": 3, "marked": 0, "refuses": false, "unheard": true},
        "peers": {"joining": true, "peers": [
            peer("192.0.2.2:9650", json!({"up": true, "state": "up", "hash_key_equal": true, "tables_equal": false})),
            peer("192.0.2.3:9650", json!({"up": false, "state": "never heard"})),
            peer("192.0.2.4:9650", json!({"up": false, "state": "silent, 1m 1s", "pending": 2})),
            peer("192.0.2.5:9650", json!({"up": false, "state": "silent, 9s", "hash_key_equal": false})),
        ]},
    });
    let ask = |what: &str| format!("{what}.map(one => Object.values(one).join(' ')).join('\\n')");
    let problems = ask(&format!("problemsOf({{...latest, ...{told}}})"));
    let facts = ask(&format!("networkFacts({told})"));
    for (script, expected) in [
        (
            problems,
            &[
                "warn 192.0.2.9 lacks backends, and is not withdrawn",
                "bad The fleet does not hear of this host",
                "warn Peer 192.0.2.3:9650 was never heard: flows are not replicated with it",
                "warn Peer 192.0.2.4:9650 is silent, 1m 1s: flows",
                "bad Peer 192.0.2.5:9650 has another hash key",
            ][..],
        ),
        (
            facts,
            &[
                "VIP 192.0.2.9 announced, and lacks backends warn",
                "Fleet 3 members, which do not hear of this host bad",
                "Peer 192.0.2.2:9650 up, other tables, flows: 1.23 k sent, 5 received warn",
                "Peer 192.0.2.4:9650 silent, 1m 1s, flows: 1.23 k sent, 5 received, 2 messages pending warn",
                "Peer 192.0.2.5:9650 silent, 9s, another hash key, flows: 1.23 k sent, 5 received bad",
                "Flow replication joining: peers have not told yet",
            ],
        ),
    ] {
        let shown = scene.browser.value(&script)?;
        let shown = shown.as_str().unwrap_or_default();
        for line in expected {
            ensure!(shown.lines().any(|one| one.starts_with(line)), "{line:?} is not in {shown}");
        }
    }
    Ok(())
}
