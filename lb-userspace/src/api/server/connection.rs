//! One client: its request within bounds of size and time, and the answer.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::Request,
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::UnixStream,
    sync::{Semaphore, SetOnce},
    time,
};

use super::{ApiError, capture::Stream, places::Place, routes};
use crate::capture::Client;

/// What answers requests.
#[derive(Clone)]
pub(super) struct Answering {
    router: axum::Router,
    /// So many files in memory, and no more.
    large: Arc<Semaphore>,
}

impl Answering {
    pub(super) fn new(router: axum::Router) -> Self {
        Self { router, large: Arc::new(Semaphore::new(MAX_LARGE)) }
    }

    async fn answer(&self, request: Request<Incoming>, place: &Place) -> Result<Response, ApiError> {
        let mut limit = MAX_REQUEST;
        let mut large = None;
        if request.uri().path() == routes::PLAN {
            limit = MAX_PLAN;
            let waiting = time::timeout(IDLE_TIMEOUT, Arc::clone(&self.large).acquire_owned()).await;
            large = Some(waiting.ok().and_then(Result::ok).ok_or(ApiError::Busy)?);
        }
        let request = with_whole_body(request, limit).await?;
        if !place.work() {
            return Err(ApiError::TooSlow);
        }
        let routed = TowerToHyperService::new(self.router.clone());
        let answer = hyper::service::Service::call(&routed, request).await;
        drop(large);
        match answer {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }
}

/// One request and its answer. Without `answering` the client may not use the socket, and is told so.
pub(super) async fn converse(stream: UnixStream, place: Place, answering: Option<Answering>) {
    let client = client(&stream);
    let (place, answered) = (Arc::new(place), Arc::new(SetOnce::new()));
    let service = {
        let (place, answered) = (Arc::clone(&place), Arc::clone(&answered));
        hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(client);
            let (place, answered, answering) = (Arc::clone(&place), Arc::clone(&answered), answering.clone());
            async move {
                let answer = match answering {
                    Some(answering) => answering.answer(request, &place).await,
                    None => Err(ApiError::Forbidden),
                };
                let answer = answer.unwrap_or_else(IntoResponse::into_response);
                let stream = answer.extensions().get::<Stream>().cloned();
                if stream.is_none() {
                    // While a stream runs the client waits for the server. There is one at a time.
                    place.await_client();
                }
                // There is one request, and so one answer.
                let _ = answered.set(stream);
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(MAX_REQUEST)
        // One request a connection: an idle client can't hold a place.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // A client's own mistakes concern nobody else.
    let is_late = tokio::select! {
        outcome = &mut connection => {
            log::debug!("control socket: client gone: {outcome:?}");
            outcome.is_err_and(|error| error.is_timeout())
        }
        () = place.lost() => {
            log::debug!("control socket: a client that was waited for gave way to another one");
            true
        }
        () = unread(&answered) => {
            log::debug!("control socket: a client did not read its answer");
            false
        }
    };
    if is_late && !answered.initialized() {
        // The library has nothing to say to who has not sent a request. There is room for so little.
        let _ = connection.into_parts().io.into_inner().try_write(&ApiError::TooSlow.whole_answer());
    }
}

/// Who is at the other end. Those whose credentials are not known were not let in.
fn client(stream: &UnixStream) -> Client {
    let known = stream.peer_cred().ok();
    let client = known.map(|known| Client {
        uid: known.uid(),
        process: known.pid().and_then(|process| u32::try_from(process).ok()).filter(|process| *process != 0),
    });
    client.unwrap_or_default()
}

/// Returns when the client has had its time to read the answer; if that is a stream, what is left of it when it has ended.
async fn unread(answered: &SetOnce<Option<Stream>>) {
    if let Some(stream) = answered.wait().await {
        stream.ended().await;
    }
    time::sleep(IDLE_TIMEOUT).await;
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

/// Bytes of a request's headers, and of its body.
pub const MAX_REQUEST: usize = 64 << 10;

/// Bytes of the body of a plan: the largest configuration file, with what JSON adds to it.
pub const MAX_PLAN: usize = 2 * crate::config::MAX_FILE_SIZE as usize;

/// Plans that are read or made at a time.
const MAX_LARGE: usize = 2;

/// How long a client may take for its headers, then for its body, and then for reading the answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
