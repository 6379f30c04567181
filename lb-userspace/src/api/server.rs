//! The server's side: the socket, who may use it, and its bounds. What is answered is in [`routes`].

mod routes;
mod socket;

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::Request,
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::UnixStream, sync::Semaphore, time};

use super::error::{ApiError, ReloadError};
use crate::{
    control::{Applied, Edit, Handle, Rejected},
    dataplane::CounterReader,
    discovery::DiscoveryStats,
};

pub use socket::{BindError, Listener, bind};

/// What requests are answered from.
#[derive(Clone)]
pub struct Api {
    pub control: Handle,
    pub counters: Arc<dyn CounterReader>,
    pub discovery: Arc<DiscoveryStats>,
    /// Makes the running state equal to configuration files, or says what that would change.
    pub reload: Arc<Reload>,
    /// Makes a change to services or backends.
    pub edit: Arc<MakeEdit>,
    /// New settings of a service one after the other: each is made from the ones that were seen.
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

/// See [`Api::reload`].
pub type Reload = dyn Fn(Reloading) -> BoxFuture<'static, Result<Applied, ReloadError>> + Send + Sync;

/// What a reload is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloading {
    /// Paths and texts to plan with; `None`: the files that the daemon has.
    pub files: Option<Vec<(PathBuf, String)>>,
    /// Only say what would change. Given files are never applied.
    pub dry_run: bool,
    /// Replace live services that can't become what is declared.
    pub disruptive: bool,
}

/// See [`Api::edit`].
pub type MakeEdit = dyn Fn(Edit) -> BoxFuture<'static, Result<Applied, Rejected>> + Send + Sync;

/// Answers requests on `listener` until dropped. Requests under way then are cut off; a reload that was begun goes on.
pub async fn serve(listener: Listener, api: Api) {
    let router = routes::router(api);
    let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
    let large = Arc::new(Semaphore::new(MAX_LARGE));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // The next client waits in the kernel's queue until there is room.
        let Ok(permit) = Arc::clone(&clients).acquire_owned().await else { return };
        let (stream, allowed) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("control socket: can't accept a client: {error}");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (router, large) = (router.clone(), Arc::clone(&large));
        connections.spawn(async move {
            // A client's own mistakes concern nobody else.
            let outcome = time::timeout(MAX_CONNECTION, converse(stream, allowed, router, large)).await;
            log::debug!("control socket: client gone: {outcome:?}");
            drop(permit);
        });
    }
}

/// One request and its answer.
async fn converse(
    stream: UnixStream,
    allowed: bool,
    router: axum::Router,
    large: Arc<Semaphore>,
) -> Result<(), hyper::Error> {
    let bounded = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (router, large) = (router.clone(), Arc::clone(&large));
        async move {
            if !allowed {
                return Ok(ApiError::Forbidden.into_response());
            }
            let mut limit = MAX_REQUEST;
            let mut place = None;
            if request.uri().path() == routes::PLAN {
                limit = MAX_PLAN;
                // So many files in memory, and no more.
                place = time::timeout(IDLE_TIMEOUT, large.acquire_owned()).await.ok().and_then(Result::ok);
                if place.is_none() {
                    return Ok(ApiError::Busy.into_response());
                }
            }
            let request = match with_whole_body(request, limit).await {
                Ok(request) => request,
                Err(error) => return Ok(error.into_response()),
            };
            let _until_it_is_answered = place;
            hyper::service::Service::call(&TowerToHyperService::new(router), request).await
        }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(MAX_REQUEST)
        // One request a connection: an idle client can't hold a place.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), erase(bounded))
        .await
}

/// Fixes the error type, which the compiler can't infer.
fn erase<S>(service: S) -> S
where
    S: hyper::service::Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    service
}

/// Reads the body before anything acts on the request, within its bounds of size and time.
async fn with_whole_body(request: Request<Incoming>, limit: usize) -> Result<Request<Body>, ApiError> {
    let (parts, body) = request.into_parts();
    if body.size_hint().lower() > limit as u64 {
        return Err(ApiError::TooLarge(limit));
    }
    let collected = time::timeout(IDLE_TIMEOUT, Limited::new(body, limit).collect()).await;
    let bytes: Bytes = match collected {
        Err(_) => return Err(ApiError::TooSlow),
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(ApiError::TooLarge(limit)),
        Ok(Err(error)) => {
            return Err(ApiError::BadRequest {
                field: "body",
                message: format!("can't read the body: {error}"),
            });
        }
    };
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

/// Clients served at a time.
pub const MAX_CLIENTS: usize = 64;

/// Bytes of a request's headers, and of its body.
pub const MAX_REQUEST: usize = 64 << 10;

/// Bytes of the body of a plan: the largest configuration file, with what JSON adds to it.
pub const MAX_PLAN: usize = 2 * crate::config::MAX_FILE_SIZE as usize;

/// Plans that are read or made at a time.
const MAX_LARGE: usize = 2;

/// How long a client may take for its headers, and then for its body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends clients that don't read their answer.
const MAX_CONNECTION: Duration = Duration::from_secs(120);

/// Accepting fails while the process is out of file descriptors; trying at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
