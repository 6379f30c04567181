use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use lb_common::abi::{Counters, TrafficCounters};
use ring::digest::{SHA256, digest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    super::metrics::tests::{Numbered, snapshot},
    *,
};
use crate::dataplane::Error;

struct Fixed {
    snapshot: Snapshot,
    heartbeat_age: Duration,
}

impl Control for Fixed {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(self.snapshot.clone())
    }

    fn heartbeat_age(&self) -> Duration {
        self.heartbeat_age
    }
}

async fn start(snapshot: Snapshot, heartbeat_age: Duration) -> SocketAddr {
    start_with(snapshot, heartbeat_age, Arc::new(Numbered)).await
}

async fn start_with(
    snapshot: Snapshot,
    heartbeat_age: Duration,
    counters: Arc<dyn CounterReader>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let telemetry = Telemetry {
        control: Box::new(Fixed { snapshot, heartbeat_age }),
        counters,
        health: Arc::new(HealthStats::new()),
        publishes: Arc::new(PublishStats::new()),
        discovery: Arc::default(),
        boards: Boards::default(),
        turn: Arc::default(),
    };
    tokio::spawn(serve(listener, Arc::new(telemetry), Hosts::new(&["lb.example.org".to_owned()])));
    address
}

async fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // An early close by the server may reset what was not read.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn get_page(address: SocketAddr, path: &str) -> String {
    ask(address, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await
}

#[tokio::test]
async fn metrics_are_served_as_text() {
    let address = start(snapshot(), Duration::ZERO).await;
    let answer = get_page(address, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    assert!(answer.contains("\nballast_revision 42\n"), "{answer}");
    assert!(get_page(address, "/else").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_name_that_leads_here_and_is_not_ours_gets_no_page() {
    let address = start(snapshot(), Duration::ZERO).await;
    let as_host = async |path: &str, host: &str| {
        ask(address, format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await
    };
    for path in ["/", "/status.json", "/metrics"] {
        let answer = as_host(path, "evil.example:9640").await;
        assert!(answer.starts_with("HTTP/1.1 421 Misdirected Request\r\n"), "{path}: {answer}");
        assert!(answer.contains("`metrics_hosts`") && !answer.contains("192.0.2.1"), "{path}: {answer}");
        assert!(as_host(path, "lb.example.org:9640").await.starts_with("HTTP/1.1 200"), "{path}");
    }
    assert!(as_host("/readyz", "evil.example").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn healthz_is_about_the_control_task() {
    let address = start(Snapshot::default(), Duration::from_millis(4_999)).await;
    assert!(get_page(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    let address = start(snapshot(), Duration::from_secs(7)).await;
    let answer = get_page(address, "/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("the control task has not answered for 7 s\n"), "{answer}");
}

#[tokio::test]
async fn readyz_says_what_is_missing() {
    let address = start(snapshot(), Duration::ZERO).await;
    assert!(get_page(address, "/readyz").await.starts_with("HTTP/1.1 200"));

    let mut detached = snapshot();
    detached.ready = false;
    detached.interfaces[0].attached = false;
    let address = start(detached, Duration::ZERO).await;
    let answer = get_page(address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("not attached to eth0\n"), "{answer}");

    let address = start(Snapshot { ready: false, ..snapshot() }, Duration::ZERO).await;
    assert!(get_page(address, "/readyz").await.ends_with("the last change is not published yet\n"));

    // A fleet's member that has new maps, and waits for etcd.
    let waiting = Snapshot { ready: false, declared: false, ..snapshot() };
    let address = start(waiting, Duration::ZERO).await;
    assert!(get_page(address, "/readyz").await.ends_with("what the services are is not known yet\n"));
}

#[tokio::test]
async fn endless_request_heads_are_cut_off() {
    let address = start(snapshot(), Duration::ZERO).await;
    let mut request = b"GET /metrics HTTP/1.1\r\nx: ".to_vec();
    request.resize(64 * 1024, b'a');
    let started = std::time::Instant::now();
    let answer = ask(address, &request).await;
    assert!(!answer.contains("200 OK"), "{answer}");
    // For its size, not for its time.
    assert!(started.elapsed() < HEAD_TIME_LIMIT);
}

#[tokio::test]
async fn the_status_page_runs_its_own_script_alone_and_is_nobodys_frame() {
    let address = start(snapshot(), Duration::ZERO).await;
    let answer = get_page(address, "/").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for header in [
        "content-type: text/html; charset=utf-8",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "cross-origin-resource-policy: same-origin",
    ] {
        assert!(head.contains(&format!("\r\n{header}\r\n")), "no {header}: {head}");
    }
    let policy = head.split("content-security-policy: ").nth(1).unwrap().lines().next().unwrap();
    for rule in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'"] {
        assert!(policy.split("; ").any(|one| one == rule), "no {rule}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for (tag, source) in [("script", "script-src"), ("style", "style-src")] {
        let inside =
            body.split(&format!("<{tag}>")).nth(1).unwrap().split(&format!("</{tag}>")).next().unwrap();
        let hash = BASE64.encode(digest(&SHA256, inside.as_bytes()));
        assert!(policy.contains(&format!("{source} 'sha256-{hash}'")), "{source}: {policy}");
        assert_eq!(body.matches(&format!("<{tag}")).count(), 1, "more than one {tag}");
    }
    // For browsers without scripts.
    let plain = body.split("<noscript>").last().unwrap();
    assert!(plain.contains("<td>web</td><td>192.0.2.1:80 tcp</td><td>degraded</td>"), "{plain}");
    for place in ["@PAGE@", "@STYLE@", "@PLAIN@", "@SCRIPT@"] {
        assert!(!body.contains(place), "{place} is not filled in");
    }
}

#[tokio::test]
async fn the_status_page_and_what_it_asks_for_are_of_one_version() {
    let address = start(snapshot(), Duration::ZERO).await;
    let answer = get_page(address, "/status.json").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    assert!(head.contains("x-content-type-options: nosniff\r\n"), "{head}");
    let document: serde_json::Value = serde_json::from_str(body).unwrap();
    let page = get_page(address, "/").await;
    let of_page = page.split("data-page=\"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(document["page"], of_page);
    assert_eq!(document["revision"], 42);
}

#[tokio::test]
async fn nothing_can_be_changed_here() {
    let address = start(snapshot(), Duration::ZERO).await;
    for path in ["/", "/status.json", "/metrics", "/healthz", "/readyz"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
            let answer = ask(address, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 405"), "{method} {path}: {answer}");
        }
    }
}

/// Counters that take their time.
struct Slow;

impl CounterReader for Slow {
    fn totals(&self) -> Result<Counters, Error> {
        std::thread::sleep(Duration::from_millis(20));
        Numbered.totals()
    }

    fn service(&self, service: u32) -> Result<TrafficCounters, Error> {
        Numbered.service(service)
    }

    fn backend(&self, index: u32) -> Result<TrafficCounters, Error> {
        Numbered.backend(index)
    }
}

#[tokio::test]
async fn clients_that_hang_up_take_no_threads_from_others() {
    let address = start_with(snapshot(), Duration::ZERO, Arc::new(Slow)).await;
    for _ in 0..600 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /status.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    }
    let apart = tokio::task::spawn_blocking(|| ());
    tokio::time::timeout(Duration::from_secs(1), apart).await.expect("a thread in time").unwrap();
    // And whoever stays is answered before long: all that hung up would take 12 s.
    let asked = std::time::Instant::now();
    assert!(get_page(address, "/status.json").await.starts_with("HTTP/1.1 200"));
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
}
