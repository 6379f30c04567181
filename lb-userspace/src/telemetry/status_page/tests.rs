use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lb_common::hash::HashKey;

use serde_json::Value;

use super::{
    network::{Fleet, Peers},
    *,
};
use crate::{
    announce::{Board, Reason, Report, VipReport, split_brain::HeldVips},
    boards::Boards,
    config::RouteSettings,
    dataplane::KeyFingerprint,
    discovery::DiscoveryStats,
    domain::{Database, Engine, Health, Probe, Role, policy::ServiceState},
    fleet::{
        self, Views,
        book::{Book, Rules},
    },
    peers::{Endpoint, Exchange, Identity, Keys, LinkCounts, PeerStatus, PeersStatus},
    telemetry::metrics::tests::{Numbered, snapshot},
};

const HOSTILE: &str = "agent says down # </noscript><img src=x onerror=alert(1)>";

fn written<T>(snapshot: &crate::control::Snapshot, write: impl FnOnce(&Document<'_>) -> T) -> T {
    written_with(&Boards::default(), snapshot, write)
}

fn written_with<T>(
    boards: &Boards,
    snapshot: &crate::control::Snapshot,
    write: impl FnOnce(&Document<'_>) -> T,
) -> T {
    let discovery = DiscoveryStats::default();
    let daemon = Daemon { page: "id", heartbeat_seconds: 0.25, discovery: &discovery, boards };
    write(&Document::new(snapshot, &Numbered, daemon).unwrap())
}

fn json_of(snapshot: &crate::control::Snapshot) -> Value {
    written(snapshot, |document| serde_json::to_value(document).unwrap())
}

#[test]
fn every_number_is_where_it_belongs() {
    let document = json_of(&snapshot());
    for (pointer, expected) in [
        ("/revision", Value::from(42)),
        ("/ready", true.into()),
        ("/config_current", true.into()),
        ("/heartbeat_seconds", 0.25.into()),
        ("/interfaces/0/mode", "native".into()),
        ("/packets/received", 1007.into()),
        ("/packets/drop", 7.into()),
        ("/drops/2/reason", "fragment".into()),
        ("/drops/2/count", 3.into()),
        ("/flow_table/entries", 11.into()),
        ("/nat_table/capacity", (1 << 17).into()),
        ("/services/0/address", "192.0.2.1:80".into()),
        ("/services/0/state", "degraded".into()),
        ("/services/0/packets", 1001.into()),
        ("/services/1/reply_packets", 2004.into()),
        ("/services/0/backends/1/packets", 20001.into()),
        ("/services/0/backends/1/weight", 14.into()),
        ("/services/0/backends/1/backup", true.into()),
        ("/services/0/backends/1/unreachable", true.into()),
        ("/services/0/backends/0/health", "healthy".into()),
        ("/services/1/backends/1/flows", 10.into()),
    ] {
        assert_eq!(document.pointer(pointer), Some(&expected), "{pointer}");
    }
    // What is usual is left out.
    for pointer in [
        "/not_ready",
        "/services/0/reply_packets",
        "/services/0/backends/0/admin",
        "/services/0/backends/0/flows",
        "/services/0/backends/0/backup",
    ] {
        assert_eq!(document.pointer(pointer), None, "{pointer}");
    }
}

#[test]
fn strangers_are_told_that_something_is_wrong_and_not_what_only_owners_know() {
    let mut snapshot = snapshot();
    snapshot.config_error = Some("config.toml:3: authorization = \"Bearer s3cret\"".into());
    snapshot.state_error = Some("s3cret".into());
    snapshot.ready = false;
    snapshot.interfaces[0].attached = false;
    let view = &mut snapshot.services[0];
    Arc::make_mut(&mut view.service).health.probe = Probe::Exec(vec!["/bin/check".into()]);
    view.backends[0].health_detail = "exit status 3: postgres://user:s3cret@db".into();
    let document = json_of(&snapshot);
    assert_eq!(document["config_current"], false);
    assert_eq!(document["state_complete"], false);
    assert_eq!(document["not_ready"], "not attached to eth0");
    assert_eq!(document["services"][0]["backends"][0]["detail"], "exit status 3");
    let plain = written(&snapshot, plain::render);
    assert!(plain.contains("exit status 3") && plain.contains("NOT WHAT RUNS"), "{plain}");
    for text in [document.to_string(), plain] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn programs_and_databases_are_told_of_in_our_own_words() {
    let exec = || Probe::Exec(vec!["/opt/s3cret/check".into()]);
    let database = || {
        Probe::Database(Database {
            engine: Engine::Mysql,
            role: Role::Primary,
            user: Some("s3cret".into()),
            password_file: None,
            database: None,
            max_lag: None,
            tls: None,
        })
    };
    let told = |probe: Probe, detail: &str| {
        let mut snapshot = snapshot();
        let view = &mut snapshot.services[0];
        Arc::make_mut(&mut view.service).health.probe = probe;
        view.backends[0].health_detail = detail.into();
        json_of(&snapshot)["services"][0]["backends"][0]["detail"].as_str().unwrap_or_default().to_owned()
    };
    for (detail, expected) in [
        ("", ""),
        ("exit status 0: all of s3cret is well", "exit status 0"),
        ("killed by signal 9", "killed by signal 9"),
        ("timed out after 500ms", "timed out after 500ms"),
        ("/opt/s3cret/check: No such file or directory (os error 2)", "could not be run"),
        ("can't be checked: /opt/s3cret/check: too many", "can't be checked"),
    ] {
        assert_eq!(told(exec(), detail), expected, "{detail}");
    }
    for (detail, expected) in [
        ("error 1045: Access denied for user 's3cret'@'10.0.0.5'", "error 1045"),
        ("no pg_hba.conf entry for host \"10.0.0.5\", user \"s3cret\"", "the server refused"),
        ("replica, link to its primary down", "replica, link to its primary down"),
        ("primary: read_only is OFF", "primary: read_only is OFF"),
        ("connection refused", "connection refused"),
    ] {
        assert_eq!(told(database(), detail), expected, "{detail}");
    }
}

#[test]
fn what_backends_say_stays_text_without_scripts_too() {
    let mut snapshot = snapshot();
    snapshot.services[1].backends[0].health_detail = HOSTILE.into();
    let plain = written(&snapshot, plain::render);
    assert!(plain.contains("down # &lt;/noscript&gt;&lt;img src=x onerror=alert(1)&gt;"), "{plain}");
    assert!(!plain.contains("<img"), "{plain}");
}

#[test]
fn the_plain_page_ends_somewhere_and_begins_with_those_that_are_not_well() {
    let mut snapshot = snapshot();
    snapshot.services[0].state = ServiceState::Healthy;
    let one = snapshot.services[0].clone();
    snapshot.services.extend(std::iter::repeat_n(one, 300));
    for backend in snapshot.services.iter_mut().flat_map(|view| &mut view.backends) {
        backend.health = Health::Healthy;
    }
    snapshot.services[299].backends[1].health = Health::Unhealthy;
    let plain = written(&snapshot, plain::render);
    assert!(plain.contains("And 104 more"), "{}", plain.len());
    let first = plain.split("<caption>Backends</caption>").nth(1).unwrap().split("</tr>").nth(1).unwrap();
    assert!(first.contains("<td>unhealthy</td>"), "{first}");
}

/// What the policy would refuse, or what would end a script or a style early.
#[test]
fn the_page_needs_nothing_that_its_policy_forbids() {
    assert!(!SCRIPT.to_lowercase().contains("</script"), "the script ends itself");
    assert!(!STYLE.contains("</"), "the style ends itself");
    for name in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
        assert!(!SCRIPT.contains(name), "the script uses {name}");
    }
    let elsewhere = |text: &str| text.replace("http://www.w3.org/2000/svg", "").contains("://");
    assert!(!elsewhere(SCRIPT) && !elsewhere(STYLE) && !elsewhere(SKELETON), "something from elsewhere");
    for inline in [" on", " style="] {
        let attributes = SKELETON.split('<').filter_map(|tag| tag.split_once('>')).map(|(tag, _)| tag);
        let found: Vec<_> = attributes.filter(|tag| tag.contains(inline)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

/// Only words that are the same everywhere, and numbers: details of reasons, interfaces, endpoints and members are for owners.
#[test]
fn what_the_network_is_told_is_there_and_no_more() {
    let vip = |announced, reason| VipReport {
        announced,
        reason,
        detail: "eth0 s3cret".into(),
        kept: (reason.is_none()).then(|| "s3cret".into()),
        since: Instant::now(),
    };
    let ip = |vip: &str| vip.parse().unwrap();
    let vips = [
        (ip("203.0.113.10"), vip(true, None)),
        (ip("203.0.113.11"), vip(false, Some(Reason::ProbeFailed))),
        (ip("203.0.113.12"), vip(false, Some(Reason::Administrator))),
    ];
    let report =
        Report { routes: RouteSettings::default(), vips: vips.into(), trouble: Some("s3cret".into()) };
    let rules = Rules { keys: fleet::keys::Keys::new("/ballast"), local_files: false };
    let boards = Boards {
        announce: Arc::new(Board::of(report)),
        peers: Some(Arc::new(Exchange::new(endpoint(), true))),
        held: Arc::new(HeldVips::of("192.0.2.9", Some([2; 6]))),
        fleet: Some(Views::new("s3cret".parse().unwrap(), rules, Book::default())),
        ..Boards::default()
    };
    let document = written_with(&boards, &snapshot(), |document| serde_json::to_value(document).unwrap());
    for (pointer, expected) in [
        ("/announce/trouble", Value::from(true)),
        ("/announce/vips/0/vip", "203.0.113.10".into()),
        ("/announce/vips/0/announced", true.into()),
        ("/announce/vips/0/kept", true.into()),
        ("/announce/vips/1/reason", "probe_failed".into()),
        ("/announce/vips/1/is_alright", false.into()),
        ("/announce/vips/2/is_alright", true.into()),
        ("/held/0/vip", "192.0.2.9".into()),
        ("/held/0/rival", true.into()),
        ("/fleet/connected", false.into()),
        ("/fleet/members", 0.into()),
        ("/peers/joining", true.into()),
        ("/peers/peers/0/state", "never heard".into()),
    ] {
        assert_eq!(document.pointer(pointer), Some(&expected), "{pointer}");
    }
    let html = written_with(&boards, &snapshot(), plain::render);
    for text in [
        "ANNOUNCED, AND LACKS BACKENDS",
        "NOT ANNOUNCED (probe_failed)",
        "SPLIT BRAIN",
        "CUT OFF FROM ETCD",
        "<td>192.0.2.2:9650</td><td>never heard</td><td>-</td>",
        "JOINING",
    ] {
        assert!(html.contains(text), "{html}");
    }
    assert!(!html.contains("s3cret") && !document.to_string().contains("s3cret"), "{html}{document}");
    // Where nobody asked for it nothing is said of it.
    let document = json_of(&snapshot());
    assert!(
        ["/announce", "/held", "/fleet", "/peers"].iter().all(|pointer| document.pointer(pointer).is_none())
    );
}

fn endpoint() -> Endpoint {
    let key = HashKey { k0: 1, k1: 2 };
    let identity =
        Identity { keys: Keys::derive(key), fingerprint: KeyFingerprint::of(key), random: Box::new(|| 7) };
    Endpoint::new(identity, &["192.0.2.2:9650".parse().unwrap()], 1e6, Duration::ZERO)
}

#[test]
fn peers_and_a_fleet_that_does_not_hear_of_this_host_are_told_of_as_status_tells_them() {
    let peer = |last: &str, is_up, silent, has_our_key| PeerStatus {
        address: last.parse().unwrap(),
        is_up,
        silent,
        has_our_key,
        has_our_tables: is_up.then_some(false),
        pending: 3,
        counts: LinkCounts { flows_sent: 7, flows_received: 5, ..LinkCounts::default() },
    };
    let second = Duration::from_secs(1);
    let status = PeersStatus {
        is_joining: false,
        peers: vec![
            peer("192.0.2.2:9650", true, Some(second), Some(true)),
            peer("192.0.2.3:9650", false, Some(second), None),
            peer("192.0.2.4:9650", false, Some(second * 61), Some(false)),
        ],
        fates: [].into(),
        refused: [].into(),
    };
    let rules = Rules { keys: fleet::keys::Keys::new("/ballast"), local_files: false };
    let mut view = Views::new("lb-1".parse().unwrap(), rules, Book::default()).now();
    view.unheard = Some("s3cret".into());
    let (discovery, boards) = (DiscoveryStats::default(), Boards::default());
    let daemon = Daemon { page: "id", heartbeat_seconds: 0.25, discovery: &discovery, boards: &boards };
    let snapshot = snapshot();
    let mut document = Document::new(&snapshot, &Numbered, daemon).unwrap();
    (document.peers, document.fleet) = (Some(Peers::new(&status)), Some(Fleet::new(&view)));
    let html = plain::render(&document);
    for text in [
        "<td>up</td><td>equal</td><td>differs</td><td>7</td><td>5</td><td>3</td>",
        "<td>192.0.2.3:9650</td><td>does not hear us</td><td>-</td><td>-</td>",
        "<td>192.0.2.4:9650</td><td>silent, 1m 1s</td><td>differs</td>",
        "DOES NOT HEAR OF THIS HOST",
    ] {
        assert!(html.contains(text), "{text} is not in {html}");
    }
    assert!(!html.contains("JOINING") && !html.contains("s3cret"), "{html}");
    let json = serde_json::to_value(&document).unwrap();
    assert_eq!(json["fleet"]["unheard"], true);
    assert_eq!(json["peers"]["peers"][2]["hash_key_equal"], false);
}
