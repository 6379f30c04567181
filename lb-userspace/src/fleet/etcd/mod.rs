//! A client of etcd, over the JSON gateway that every member serves beside gRPC (etcd's documentation, "gRPC gateway"):
//! HTTP/1.1, which the daemon speaks anyway, and no other dependency.

mod connect;
mod operations;
mod wire;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::{Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time;

use crate::{
    config::{Endpoint, FleetConfig},
    secret_file::warn_if_exposed,
};

use connect::connect;
pub use operations::{Compare, Lease, Listing, Operation, Outcome, Watch, Watched};

/// Talks to one member of the cluster after the other: to the same for as long as it answers.
pub struct Client {
    config: Arc<FleetConfig>,
    /// Which endpoint is asked. Grows without end; the number of endpoints divides it.
    turn: AtomicUsize,
    /// A connection that is free, and whose it is.
    idle: Mutex<Option<(usize, SendRequest<Full<Bytes>>)>>,
    /// For a user; etcd forgets it after a while.
    token: Mutex<Option<String>>,
}

/// Why etcd did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// This host's own fault: a file that can't be read.
    #[error("{0}")]
    Ours(String),
    /// Nobody answers there; nothing was asked.
    #[error("{endpoint}: {why}")]
    Unreachable { endpoint: String, why: String },
    /// It was asked, and whether it did it is not known.
    #[error("{endpoint}: {why}")]
    Broken { endpoint: String, why: String },
    /// It says no.
    #[error("{endpoint}: {message}")]
    Refused { endpoint: String, message: String },
    /// What answers is no etcd.
    #[error("{endpoint}: the answer makes no sense: {why}")]
    Garbled { endpoint: String, why: String },
}

impl EtcdError {
    /// Whether it is about a lease that has ended.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Refused { message, .. } if message.contains("lease"))
    }
}

impl Client {
    pub fn new(config: Arc<FleetConfig>) -> Self {
        // Not all members of a fleet lean on the same member of etcd.
        let turn = AtomicUsize::new(fastrand::usize(..config.endpoints.len().max(1)));
        Self { config, turn, idle: Mutex::default(), token: Mutex::default() }
    }

    /// The member that is asked next.
    pub fn endpoint(&self) -> &Endpoint {
        let (_, endpoint) = self.current();
        endpoint
    }

    /// From now on asks the next member of the cluster.
    pub fn turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
        (*lock(&self.idle), *lock(&self.token)) = (None, None);
    }

    /// How many members there are to ask.
    pub fn endpoints(&self) -> usize {
        self.config.endpoints.len()
    }

    /// One question, one answer.
    ///
    /// # Errors
    ///
    /// See [`EtcdError`].
    async fn ask<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, EtcdError> {
        let (at, endpoint) = self.current();
        let asking = async {
            let (sender, answer) = self.post(at, endpoint, path, body).await?;
            let bytes = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let bytes = bytes.map_err(|error| broken(endpoint, &error))?.to_bytes();
            // Everything of the answer is read: the next question may use the connection.
            *lock(&self.idle) = Some((at, sender));
            serde_json::from_slice(&bytes).map_err(|error| garbled(endpoint, &error))
        };
        match time::timeout(ANSWER_TIMEOUT, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(broken(endpoint, &format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
        }
    }

    /// Sends a question and returns the answer as soon as it begins, with a connection of its own.
    async fn post(
        &self,
        at: usize,
        endpoint: &Endpoint,
        path: &str,
        body: &Value,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), EtcdError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let token = self.token(at, endpoint).await?;
            let mut sender = self.sender(at, endpoint).await?;
            let request = request(endpoint, path, body, token.as_deref())?;
            let answer = sender.send_request(request).await.map_err(|error| broken(endpoint, &error))?;
            if answer.status().is_success() {
                return Ok((sender, answer));
            }
            let status = answer.status();
            let message = refusal(answer).await;
            // A token lives for some minutes, and not in a member that was started since.
            if is_about_token(status, &message) && token.is_some() && tries == 1 {
                *lock(&self.token) = None;
                continue;
            }
            return Err(EtcdError::Refused { endpoint: endpoint.to_string(), message });
        }
    }

    /// The free connection, or a new one.
    async fn sender(&self, at: usize, endpoint: &Endpoint) -> Result<SendRequest<Full<Bytes>>, EtcdError> {
        let idle = lock(&self.idle).take();
        if let Some((of, mut sender)) = idle
            && of == at
            // One that the server has closed meanwhile says so here.
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        connect(endpoint, &self.config).await
    }

    /// What shows who asks; `None` where nobody has to.
    async fn token(&self, at: usize, endpoint: &Endpoint) -> Result<Option<String>, EtcdError> {
        let (Some(user), Some(path)) = (&self.config.user, &self.config.password_file) else {
            return Ok(None);
        };
        if let Some(token) = &*lock(&self.token) {
            return Ok(Some(token.clone()));
        }
        let unreadable = |error| EtcdError::Ours(format!("password_file {}: {error}", path.display()));
        warn_if_exposed(path, &tokio::fs::metadata(path).await.map_err(unreadable)?);
        let password = tokio::fs::read_to_string(path).await.map_err(unreadable)?;
        let password = password.lines().next().unwrap_or_default();
        let mut sender = self.sender(at, endpoint).await?;
        let body = json!({ "name": user, "password": password });
        let request = request(endpoint, "/v3/auth/authenticate", &body, None)?;
        let answer = sender.send_request(request).await.map_err(|error| broken(endpoint, &error))?;
        if !answer.status().is_success() {
            let message = format!("user {user} is not let in: {}", refusal(answer).await);
            return Err(EtcdError::Refused { endpoint: endpoint.to_string(), message });
        }
        let bytes = Limited::new(answer.into_body(), MAX_REFUSAL).collect().await;
        let bytes = bytes.map_err(|error| broken(endpoint, &error))?.to_bytes();
        let wire::Token { token } =
            serde_json::from_slice(&bytes).map_err(|error| garbled(endpoint, &error))?;
        *lock(&self.token) = Some(token.clone());
        *lock(&self.idle) = Some((at, sender));
        Ok(Some(token))
    }

    fn current(&self) -> (usize, &Endpoint) {
        let at = self.turn.load(Ordering::Relaxed) % self.config.endpoints.len().max(1);
        // The configuration has at least one.
        (at, &self.config.endpoints[at])
    }
}

fn request(
    endpoint: &Endpoint,
    path: &str,
    body: &Value,
    token: Option<&str>,
) -> Result<Request<Full<Bytes>>, EtcdError> {
    let mut request = Request::post(path)
        .header(header::HOST, endpoint.authority())
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, token);
    }
    request.body(Full::new(Bytes::from(body.to_string()))).map_err(|error| EtcdError::Ours(error.to_string()))
}

/// What an answer says that is no success.
async fn refusal(answer: Response<Incoming>) -> String {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_REFUSAL).collect().await;
    let bytes = body.map(|body| body.to_bytes()).unwrap_or_default();
    match serde_json::from_slice::<wire::Refusal>(&bytes) {
        Ok(refusal) if !refusal.text().is_empty() => refusal.text().to_owned(),
        _ if status == StatusCode::NOT_FOUND => {
            "there is no JSON gateway; etcd 3.4 or later serves it unless it is started with --enable-grpc-gateway=false".to_owned()
        }
        _ => {
            let text = String::from_utf8_lossy(&bytes);
            let told: String = text.trim().chars().filter(|c| !c.is_control()).take(MAX_TOLD).collect();
            format!("status {status}: {told}")
        }
    }
}

fn is_about_token(status: StatusCode, message: &str) -> bool {
    // A change of any user or role makes the tokens old that etcd signs (JWT).
    status == StatusCode::UNAUTHORIZED
        || ["auth token", "auth store is old"].iter().any(|part| message.contains(part))
}

fn broken(endpoint: &Endpoint, why: &dyn std::fmt::Display) -> EtcdError {
    EtcdError::Broken { endpoint: endpoint.to_string(), why: why.to_string() }
}

fn garbled(endpoint: &Endpoint, why: &dyn std::fmt::Display) -> EtcdError {
    EtcdError::Garbled { endpoint: endpoint.to_string(), why: why.to_string() }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A member of etcd without its peers waits for longer before it says so.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// More than what etcd holds by default.
const MAX_ANSWER: usize = 256 << 20;
/// Characters of what is no JSON.
const MAX_TOLD: usize = 200;
const MAX_REFUSAL: usize = 64 << 10;
