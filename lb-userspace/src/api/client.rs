//! The client's side.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::{Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time};

use super::v1;
use crate::domain::Name;

/// Talks to a daemon; a connection for each request.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("can't reach the daemon at {}: {source}", .socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    /// It took the connection and then did not answer in time.
    #[error("the daemon at {} did not answer within {} s", .socket.display(), .limit.as_secs())]
    Timeout { socket: PathBuf, limit: Duration },
    /// The daemon said no.
    #[error("{}", .error.message)]
    Refused { status: u16, error: v1::ErrorDetail },
    /// What answers is no Ballast daemon, or it went away half-way.
    #[error("the answer from {} makes no sense: {reason}", .socket.display())]
    Garbled { socket: PathBuf, reason: String },
}

impl Client {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// # Errors
    ///
    /// See [`ClientError`]; the same for all requests.
    pub async fn status(&self) -> Result<v1::Status, ClientError> {
        self.get("/v1/status").await
    }

    /// The fleet as the daemon knows it.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn fleet(&self) -> Result<v1::Fleet, ClientError> {
        self.get("/v1/fleet").await
    }

    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn services(&self) -> Result<Vec<v1::Service>, ClientError> {
        self.get("/v1/services").await
    }

    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn service(&self, service: &Name) -> Result<v1::Service, ClientError> {
        self.get(&format!("/v1/services/{service}")).await
    }

    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn backends(&self, service: &Name) -> Result<Vec<v1::Backend>, ClientError> {
        self.get(&format!("/v1/services/{service}/backends")).await
    }

    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn backend(&self, service: &Name, backend: &Name) -> Result<v1::Backend, ClientError> {
        self.get(&format!("/v1/services/{service}/backends/{backend}")).await
    }

    /// Makes the running state equal to the file, or with `dry_run` says what that would change.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; with [`ClientError::Refused`] nothing changed.
    pub async fn reload(&self, dry_run: bool, disruptive: bool) -> Result<v1::Reload, ClientError> {
        let path = format!("/v1/reload?dry_run={dry_run}&disruptive={disruptive}");
        self.request(Method::POST, &path, Vec::new(), CHANGE_TIMEOUT).await
    }

    /// What these files would change if they were the daemon's.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn plan(&self, plan: &v1::Plan, disruptive: bool) -> Result<v1::Reload, ClientError> {
        let body = serde_json::to_vec(plan).map_err(|error| self.garbled(error))?;
        self.request(Method::POST, &format!("/v1/plan?disruptive={disruptive}"), body, CHANGE_TIMEOUT).await
    }

    /// What becomes of a packet.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn explain(&self, question: &v1::Question) -> Result<v1::Explained, ClientError> {
        let body = serde_json::to_vec(question).map_err(|error| self.garbled(error))?;
        self.request(Method::POST, "/v1/explain", body, CHANGE_TIMEOUT).await
    }

    /// # Errors
    ///
    /// See [`ClientError`]; with [`ClientError::Refused`] nothing changed. The same for all changes.
    pub async fn add_service(&self, service: &v1::ServiceSettings) -> Result<v1::Changed, ClientError> {
        self.change(Method::POST, "/v1/services", Some(service)).await
    }

    /// Lays [`v1::ServiceSettings`] over those of the service; a key that is `null` goes back to its default.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn set_service(
        &self,
        service: &Name,
        settings: &impl Serialize,
    ) -> Result<v1::Changed, ClientError> {
        self.change(Method::PATCH, &format!("/v1/services/{service}"), Some(settings)).await
    }

    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn remove_service(&self, service: &Name) -> Result<v1::Changed, ClientError> {
        self.change(Method::DELETE, &format!("/v1/services/{service}"), None::<&()>).await
    }

    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn add_backend(
        &self,
        service: &Name,
        backend: &v1::NewBackend,
    ) -> Result<v1::Changed, ClientError> {
        self.change(Method::POST, &format!("/v1/services/{service}/backends"), Some(backend)).await
    }

    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn set_backend(
        &self,
        service: &Name,
        backend: &Name,
        settings: &v1::BackendSettings,
    ) -> Result<v1::Changed, ClientError> {
        let path = format!("/v1/services/{service}/backends/{backend}");
        self.change(Method::PATCH, &path, Some(settings)).await
    }

    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn remove_backend(&self, service: &Name, backend: &Name) -> Result<v1::Changed, ClientError> {
        let path = format!("/v1/services/{service}/backends/{backend}");
        self.change(Method::DELETE, &path, None::<&()>).await
    }

    /// `None`: this host makes no routes.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn announce(&self) -> Result<Option<v1::Announce>, ClientError> {
        self.get("/v1/announce").await
    }

    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn set_announce(&self, announcing: &v1::Announcing) -> Result<v1::Changed, ClientError> {
        self.change(Method::PATCH, "/v1/announce", Some(announcing)).await
    }

    /// Begins a capture.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn capture(&self, capture: &v1::Capture) -> Result<Stream, ClientError> {
        let body = serde_json::to_vec(capture).map_err(|error| self.garbled(error))?;
        let stream = self.connect().await?;
        let beginning = self.send(stream, Method::POST, "/v1/capture", body);
        let limit = CHANGE_TIMEOUT;
        let answer = time::timeout(limit, beginning).await.map_err(|_| self.timed_out(limit))??;
        let (status, body) = (answer.status(), answer.into_body());
        if status.is_success() {
            return Ok(Stream { client: self.clone(), body });
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        Err(self.refused(status, &body.map_err(|error| self.garbled(error))?.to_bytes()))
    }

    async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<v1::Changed, ClientError> {
        let body = body.map(serde_json::to_vec).transpose().map_err(|error| self.garbled(error))?;
        self.request(method, path, body.unwrap_or_default(), CHANGE_TIMEOUT).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, Vec::new(), READ_TIMEOUT).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let stream = self.connect().await?;
        let exchange = self.exchange(stream, method, path, body);
        let (status, body) = time::timeout(limit, exchange).await.map_err(|_| self.timed_out(limit))??;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.garbled(error));
        }
        Err(self.refused(status, &body))
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        match time::timeout(CONNECT_TIMEOUT, UnixStream::connect(&self.socket)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source)) => Err(ClientError::Unreachable { socket: self.socket.clone(), source }),
            Err(_) => Err(self.timed_out(CONNECT_TIMEOUT)),
        }
    }

    async fn exchange(
        &self,
        stream: UnixStream,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let response = self.send(stream, method, path, body).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        Ok((status, body.map_err(|error| self.garbled(error))?.to_bytes()))
    }

    async fn send(
        &self,
        stream: UnixStream,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.garbled(error))?;
        // Ends by itself when the request is done or given up: its sender is dropped then.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "ballast")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.garbled(error))?;
        sender.send_request(request).await.map_err(|error| self.garbled(error))
    }

    /// From an answer that is no success.
    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<v1::ErrorBody>(body) {
            Ok(body) => ClientError::Refused { status: status.as_u16(), error: body.error },
            Err(_) => self.garbled(format!("status {status}")),
        }
    }

    fn timed_out(&self, limit: Duration) -> ClientError {
        ClientError::Timeout { socket: self.socket.clone(), limit }
    }

    fn garbled(&self, reason: impl ToString) -> ClientError {
        ClientError::Garbled { socket: self.socket.clone(), reason: reason.to_string() }
    }
}

/// An answer that goes on until it is dropped.
#[derive(Debug)]
pub struct Stream {
    client: Client,
    body: Incoming,
}

impl Stream {
    /// What comes next, cut anywhere; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the daemon went away half-way.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.client.garbled(error)),
                // What is no data is of no use here.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A large configuration is read, checked, built and published in this time.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Room for many thousands of backends.
const MAX_ANSWER: usize = 256 << 20;
