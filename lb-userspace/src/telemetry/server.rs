use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore};

use super::{
    HealthStats, PublishStats,
    metrics::{Sources, render},
    text::Page,
};
use crate::{
    control::{Handle, Snapshot},
    dataplane::CounterReader,
    discovery::DiscoveryStats,
};

/// Everything the pages are made from.
pub struct Telemetry {
    control: Box<dyn Control>,
    counters: Arc<dyn CounterReader>,
    health: Arc<HealthStats>,
    publishes: Arc<PublishStats>,
    discovery: Arc<DiscoveryStats>,
    /// One scrape at a time: each reads every counter, and scrapers must not multiply that.
    scrape: Mutex<()>,
}

/// What is asked of the control task; the tests have another one.
trait Control: Send + Sync {
    fn snapshot(&self) -> Arc<Snapshot>;
    fn heartbeat_age(&self) -> Duration;
}

impl Control for Handle {
    fn snapshot(&self) -> Arc<Snapshot> {
        Self::snapshot(self)
    }

    fn heartbeat_age(&self) -> Duration {
        Self::heartbeat_age(self)
    }
}

impl Telemetry {
    pub fn new(
        handle: Handle,
        counters: Arc<dyn CounterReader>,
        health: Arc<HealthStats>,
        publishes: Arc<PublishStats>,
        discovery: Arc<DiscoveryStats>,
    ) -> Self {
        Self { control: Box::new(handle), counters, health, publishes, discovery, scrape: Mutex::new(()) }
    }

    /// The text of `/metrics`, read now. Blocks for as long as reading the counters takes.
    fn metrics(&self) -> Result<String, crate::dataplane::Error> {
        let _one_at_a_time = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        render(&Sources {
            snapshot: &self.control.snapshot(),
            counters: &*self.counters,
            health: &self.health,
            publishes: &self.publishes,
            discovery: &self.discovery,
            heartbeat_age: self.control.heartbeat_age(),
        })
    }
}

/// Serves `/metrics`, `/healthz` and `/readyz` until the task is dropped.
///
/// Clients are strangers: one request a connection, a few connections at a time, each closed after [`TIME_LIMIT`]
/// whatever it is doing, and request heads bounded.
pub async fn serve(listener: TcpListener, telemetry: Arc<Telemetry>) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(telemetry);
    let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        // The semaphore is never closed.
        let Ok(client) = clients.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a client that is gone already.
                log::debug!("metrics: a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .keep_alive(false)
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME_LIMIT)
                .max_buf_size(MAX_REQUEST_HEAD)
                .serve_connection(TokioIo::new(stream), service);
            // What a client does wrong is its own affair.
            let _ = tokio::time::timeout(TIME_LIMIT, connection).await;
            drop(client);
        });
    }
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> Response {
    match tokio::task::spawn_blocking(move || telemetry.metrics()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, Page::CONTENT_TYPE)], text).into_response(),
        Ok(Err(error)) => {
            log::error!("metrics: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, "the counters could not be read\n").into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Alive: the process answers, and so does the task that owns the state.
async fn healthz(State(telemetry): State<Arc<Telemetry>>) -> Response {
    let age = telemetry.control.heartbeat_age();
    if age < MAX_HEARTBEAT_AGE {
        return "ok\n".into_response();
    }
    let reason = format!("the control task has not answered for {} s\n", age.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}

/// Ready: interfaces attached and the last change published, whatever the backends' health.
async fn readyz(State(telemetry): State<Arc<Telemetry>>) -> Response {
    let snapshot = telemetry.control.snapshot();
    if snapshot.ready {
        return "ready\n".into_response();
    }
    let missing = snapshot.interfaces.iter().filter(|interface| !interface.attached);
    let missing: Vec<_> = missing.map(|interface| interface.name.as_str()).collect();
    let reason = if missing.is_empty() {
        "the last change is not published\n".to_owned()
    } else {
        format!("not attached to {}\n", missing.join(", "))
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}

/// Longest time from accepting a connection to closing it, and to the end of the request's head.
const TIME_LIMIT: Duration = Duration::from_secs(10);
const HEAD_TIME_LIMIT: Duration = Duration::from_secs(5);
const MAX_CLIENTS: usize = 32;
/// The least hyper allows.
const MAX_REQUEST_HEAD: usize = 8 * 1024;
const MAX_HEARTBEAT_AGE: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::{
        super::metrics::tests::{Numbered, snapshot},
        *,
    };

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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let telemetry = Telemetry {
            control: Box::new(Fixed { snapshot, heartbeat_age }),
            counters: Arc::new(Numbered),
            health: Arc::new(HealthStats::new()),
            publishes: Arc::new(PublishStats::new()),
            discovery: Arc::default(),
            scrape: Mutex::new(()),
        };
        tokio::spawn(serve(listener, Arc::new(telemetry)));
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
        ask(address, format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await
    }

    #[tokio::test]
    async fn metrics_are_served_as_text() {
        let address = start(snapshot(), Duration::ZERO).await;
        let answer = get_page(address, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
        assert!(answer.contains("\nballast_revision 42\n"), "{answer}");
        assert!(get_page(address, "/").await.starts_with("HTTP/1.1 404"));
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
        assert!(get_page(address, "/readyz").await.ends_with("the last change is not published\n"));
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
}
