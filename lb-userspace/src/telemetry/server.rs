use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, Semaphore},
};

use super::{
    HealthStats, PublishStats,
    hosts::{self, Hosts},
    metrics::{Sources, render},
    status_page,
    text::Page,
};
use crate::{
    boards::Boards,
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
    boards: Boards,
    /// One at a time reads every counter: scrapers must not multiply that.
    turn: Arc<Mutex<()>>,
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
        boards: Boards,
    ) -> Self {
        let control = Box::new(handle);
        Self { control, counters, health, publishes, discovery, boards, turn: Arc::default() }
    }

    pub(super) fn boards(&self) -> &Boards {
        &self.boards
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.control.snapshot()
    }

    pub(super) fn heartbeat_age(&self) -> Duration {
        self.control.heartbeat_age()
    }

    pub(super) fn counters(&self) -> &dyn CounterReader {
        &*self.counters
    }

    pub(super) fn discovery(&self) -> &DiscoveryStats {
        &self.discovery
    }

    /// The text of `/metrics`, read now. Blocks for as long as reading the counters takes.
    fn metrics(&self) -> Result<String, crate::dataplane::Error> {
        render(&Sources {
            snapshot: &self.control.snapshot(),
            counters: &*self.counters,
            health: &self.health,
            publishes: &self.publishes,
            discovery: &self.discovery,
            boards: &self.boards,
            heartbeat_age: self.control.heartbeat_age(),
        })
    }
}

/// Serves the status page, `/metrics`, `/healthz` and `/readyz` until the task is dropped. There is nothing to change here:
/// every method but GET and HEAD is refused.
///
/// Clients are strangers: one request a connection, a few connections at a time, each closed after [`TIME_LIMIT`]
/// whatever it is doing, and request heads bounded.
pub async fn serve(listener: TcpListener, telemetry: Arc<Telemetry>, hosts: Hosts) {
    let router = Router::new()
        .route("/", get(page))
        .route("/status.json", get(status))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(Arc::new(hosts), hosts::check))
        // These tell nothing that is anybody's, and probes ask by whatever name they like.
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

async fn page(State(telemetry): State<Arc<Telemetry>>) -> Response {
    answered(telemetry, status_page::page).await
}

async fn status(State(telemetry): State<Arc<Telemetry>>) -> Response {
    answered(telemetry, status_page::json).await
}

/// Reading counters blocks, so it is done apart. Who hangs up while it waits for its turn leaves nothing behind: there is never
/// more than one of the threads busy with this, which checks need too.
async fn answered(
    telemetry: Arc<Telemetry>,
    answer: impl FnOnce(&Telemetry) -> Response + Send + 'static,
) -> Response {
    let turn = Arc::clone(&telemetry.turn).lock_owned().await;
    let answer = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        answer(&telemetry)
    });
    answer.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> Response {
    answered(telemetry, |telemetry| match telemetry.metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, Page::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            log::error!("metrics: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, "the counters could not be read\n").into_response()
        }
    })
    .await
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
    match telemetry.snapshot().why_not_ready() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
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
mod tests;
